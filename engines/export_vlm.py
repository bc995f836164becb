"""Exports the vision tower and projector of a transformers VLM to one ONNX graph, and verifies it.

    python -m engines.export_vlm FOLDER

The graph is `tower-<hash>.onnx` beside the model; the hash covers the tower's weights, versions and RECIPE.
Dynamic dimensions: the number of pictures (SmolVLM, Idefics3, LLaVA), or the number of patches and so the
picture size (Qwen). Qwen's code splits attention by lengths read from a tensor, which a graph cannot express;
here an equivalent attention mask is used.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from engines.export import OPSET, quiet
from engines.files import as_made, note_made
from engines.vlm_tower import Tower, has_grid, places, run, session
from streamsvc.core.errors import ModelMissing

RECIPE = "1"  # increment when the graph changes
TOLERANCE = 1e-4  # largest difference of a token, relative to the largest value of the tokens
_PARTS = {  # attributes of `model.model`, by model type
    "qwen2_vl": ("visual",),
    "qwen2_5_vl": ("visual",),
    "smolvlm": ("vision_model", "connector"),
    "idefics3": ("vision_model", "connector"),
    "llava": ("vision_tower", "multi_modal_projector"),
}


def exported(model: Any, tower: Tower, folder: Path) -> Path:
    """The path of the graph; exports it first if necessary.

    Args:
        model: the whole model, float32 on the CPU, in eval mode.
        tower: the same model's tower in torch.
        folder: the model's folder.

    Raises:
        ModelMissing: the class is not supported, or the graph differs from its source by more than TOLERANCE.
    """
    kind = str(model.config.model_type)
    if kind not in _PARTS:
        raise ModelMissing(f"the tower of {kind} cannot be exported; supported: {', '.join(_PARTS)}")
    target = folder / f"tower-{_mark(model, kind)}.onnx"
    if as_made(folder, target.name):
        return target
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as scratch:
        path = Path(scratch) / "tower.onnx"
        _write(model, kind, tower, path)
        gap = parity(path, tower)
        if not gap <= TOLERANCE:
            raise ModelMissing(f"the exported tower of {folder.name} differs from its source by {gap:.1e}")
        for old in folder.glob("tower-*.onnx"):
            old.unlink()
        path.rename(target)
    note_made(folder, target.name)
    return target


def parity(graph: Path, tower: Tower) -> float:
    """Largest relative difference between the tokens of a graph and a torch tower, over several shapes."""
    from PIL import Image

    random = np.random.default_rng(5)
    worst = 0.0
    for width, height in ((64, 48), (96, 40), (33, 71)):
        pictures = [Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)) for _ in range(2)]
        expected = [np.asarray(tokens) for tokens, _, _ in tower.encode(pictures)]
        actual = run(session(graph), tower.inputs(pictures), tower.merge)
        pairs = zip(expected, actual, strict=True)
        worst = max(worst, *(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs))
    return worst


def _mark(model: Any, kind: str) -> str:
    import torch
    import transformers

    versions = f"{OPSET} {torch.__version__} {transformers.__version__}"
    mark = hashlib.sha256(f"{RECIPE} {versions} {model.config.vision_config}".encode())
    for part in _PARTS[kind]:
        for name, weight in getattr(model.model, part).state_dict().items():
            mark.update(name.encode() + weight.numpy().tobytes())
    return mark.hexdigest()[:16]


def _write(model: Any, kind: str, tower: Tower, path: Path) -> None:
    import onnx
    import torch
    from PIL import Image

    inputs = tower.inputs([Image.new("RGB", (64, 48)), Image.new("RGB", (64, 48))])
    count = torch.export.Dim("count", min=2)
    if has_grid(model.config):
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        example = {
            "patches": inputs["pixel_values"][: rows * columns],
            "places": torch.from_numpy(places(rows, columns, tower.merge)),
        }
        unit = tower.merge**2
        shapes = {"patches": {0: unit * count}, "places": {0: unit * count}}
        module = _grid(model)
    else:
        pixels = inputs["pixel_values"]
        example = {"pixels": pixels.reshape(-1, *pixels.shape[-3:])}
        shapes = {"pixels": {0: count}}
        module = _clip(model) if kind == "llava" else _shuffled(model)
    with quiet(Warning), torch.inference_mode():
        torch.onnx.export(
            module.eval(),
            (),
            str(path),
            kwargs=example,
            dynamic_shapes=shapes,
            output_names=["tokens"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    onnx.checker.check_model(str(path), full_check=True)


def _grid(model: Any) -> Any:
    """Qwen2-VL, Qwen2.5-VL: patches (n, values), places (n, 2) -> tokens (n / 4, width) of one picture."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    config = model.config.vision_config
    side = getattr(config, "window_size", 0) // config.patch_size  # of an attention window, in patches
    full_attention = set(getattr(config, "fullatt_block_indexes", range(config.depth)))

    def rotate(x: Any, cos: Any, sin: Any) -> Any:
        left, right = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat([-right, left], dim=-1) * sin[:, None]

    class Grid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.model.visual

        def forward(self, patches: Any, places: Any) -> Any:
            x = self.visual.patch_embed(patches)
            cos, sin = self.visual.rotary_pos_emb(x, places)
            mask = None
            if side:
                window = places // side
                mask = (window[:, None] == window[None]).all(dim=-1)
            for number, block in enumerate(self.visual.blocks):
                query, key, value = (
                    block.attn.qkv(block.norm1(x)).unflatten(-1, (3, config.num_heads, -1)).unbind(1)
                )
                query, key = rotate(query, cos, sin), rotate(key, cos, sin)
                query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
                attended = attention(query, key, value, None if number in full_attention else mask)
                x = x + block.attn.proj(attended[0].transpose(0, 1).flatten(1))
                x = x + block.mlp(block.norm2(x))
            return self.visual.merger(x)

    return Grid()


def _shuffled(model: Any) -> Any:
    """SmolVLM, Idefics3.

    Square pictures (count, 3, side, side) without padding -> tokens (count, n, width).
    """
    import torch

    class Shuffled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = model.model.vision_model
            self.connector = model.model.connector
            rows = self.tower.embeddings.num_patches_per_side
            black = torch.zeros(1, 3, rows * self.tower.patch_size, rows * self.tower.patch_size)
            whole = torch.ones(1, rows, rows, dtype=torch.bool)
            # The class's own position embeddings of an unpadded picture, including its rounding of fractions.
            with torch.no_grad():
                places = self.tower.embeddings(black, whole) - self._patches(black)
            self.register_buffer("places", places)

        def _patches(self, pixels: Any) -> Any:
            return self.tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)

        def forward(self, pixels: Any) -> Any:
            x = self.tower.encoder(
                inputs_embeds=self._patches(pixels) + self.places, attention_mask=None
            ).last_hidden_state
            return self.connector(self.tower.post_layernorm(x))

    return Shuffled()


def _clip(model: Any) -> Any:
    """LLaVA: square pictures (count, 3, side, side) -> tokens (count, n, width)."""
    import torch

    # LLaVA uses the features of one layer, given as an index that may be negative.
    layers = range(model.config.vision_config.num_hidden_layers + 1)[model.config.vision_feature_layer]

    class Clip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = model.model.vision_tower
            self.projector = model.model.multi_modal_projector

        def forward(self, pixels: Any) -> Any:
            x = self.tower.pre_layrnorm(self.tower.embeddings(pixels))
            for layer in self.tower.encoder.layers[:layers]:
                x = layer(x, None)
            return self.projector(x[:, 1:] if model.config.vision_feature_select_strategy == "default" else x)

    return Clip()


def main(folder: str) -> None:
    """Export the vision tower of the model in a folder."""
    from engines.vlm_model import load_model

    model, _, processor = load_model(Path(folder), "cpu")
    tower = Tower(model, processor)
    graph = exported(model, tower, Path(folder))
    size = f"{graph.stat().st_size / 1e6:.1f} MB"
    print(f"{graph.name}: {size}, opset {OPSET}, largest relative difference {parity(graph, tower):.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
