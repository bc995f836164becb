"""The vision tower and projector of a transformers VLM -> one ONNX graph, checked, and compared with its source on random pictures.

    python -m engines.export_vlm FOLDER

The graph lies beside the model in `tower-<hash>.onnx`, named by the tower's weights, the versions and RECIPE. Dynamic: the number of
pictures (SmolVLM, Idefics3, LLaVA) or of patches, so any size of picture (Qwen). Qwen's code splits its attention by lengths that it reads
from a tensor, which no graph can hold; here a mask says which patches see each other, which is the same attention.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from engines.export import OPSET, quiet
from engines.vlm_tower import Tower, has_grid, places, run, session
from streamsvc.core.errors import ModelMissing

RECIPE = "1"  # raise it when the graph changes
TOLERANCE = (
    1e-4  # largest difference of a token from its source, as a share of the largest number of the tokens
)
_PARTS = {  # of `model.model`, by kind
    "qwen2_vl": ("visual",),
    "qwen2_5_vl": ("visual",),
    "smolvlm": ("vision_model", "connector"),
    "idefics3": ("vision_model", "connector"),
    "llava": ("vision_tower", "multi_modal_projector"),
}


def exported(model: Any, tower: Tower, folder: Path) -> Path:
    """The graph's path; made first, if it is not there.

    Args:
        model: the whole model, float32 on the CPU, in eval mode.
        tower: of the same model, in torch.
        folder: where it lies.

    Raises:
        ModelMissing: the class is not known here, or the graph's tokens are not those of its source.
    """
    kind = str(model.config.model_type)
    if kind not in _PARTS:
        raise ModelMissing(f"the tower of {kind} cannot be exported: known are {', '.join(_PARTS)}")
    target = folder / f"tower-{_mark(model, kind)}.onnx"
    if target.is_file():
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
    return target


def parity(graph: Path, tower: Tower) -> float:
    """Largest difference of the tokens of a graph from a torch tower's, as a share of the largest number; pictures of several shapes."""
    from PIL import Image

    chance, worst = np.random.default_rng(5), 0.0
    for width, height in ((64, 48), (96, 40), (33, 71)):
        pictures = [Image.fromarray(chance.integers(0, 255, (height, width, 3), np.uint8)) for _ in range(2)]
        theirs = [np.asarray(tokens) for tokens, _, _ in tower.encode(pictures)]
        ours = run(session(graph), tower.inputs(pictures), tower.merge)
        worst = max(
            worst, *(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(theirs, ours, strict=True))
        )
    return worst


def _mark(model: Any, kind: str) -> str:
    import torch
    import transformers

    mark = hashlib.sha256(
        f"{RECIPE} {OPSET} {torch.__version__} {transformers.__version__} {model.config.vision_config}".encode()
    )
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
    from torch.nn.functional import scaled_dot_product_attention as attended

    config = model.config.vision_config
    side = getattr(config, "window_size", 0) // config.patch_size  # of a window, in patches
    whole = set(getattr(config, "fullatt_block_indexes", range(config.depth)))

    def turned(x: Any, cos: Any, sin: Any) -> Any:
        left, right = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat([-right, left], dim=-1) * sin[:, None]

    class Grid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.model.visual

        def forward(self, patches: Any, places: Any) -> Any:
            x = self.visual.patch_embed(patches)
            cos, sin = self.visual.rotary_pos_emb(x, places)
            near = None
            if side:
                window = places // side
                near = (window[:, None] == window[None]).all(dim=-1)
            for number, block in enumerate(self.visual.blocks):
                query, key, value = (
                    block.attn.qkv(block.norm1(x)).unflatten(-1, (3, config.num_heads, -1)).unbind(1)
                )
                query, key = turned(query, cos, sin), turned(key, cos, sin)
                query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
                seen = attended(query, key, value, None if number in whole else near)
                x = x + block.attn.proj(seen[0].transpose(0, 1).flatten(1))
                x = x + block.mlp(block.norm2(x))
            return self.visual.merger(x)

    return Grid()


def _shuffled(model: Any) -> Any:
    """SmolVLM, Idefics3: square pictures (count, 3, side, side) without padding -> tokens (count, n, width)."""
    import torch

    class Shuffled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eye, self.connector = model.model.vision_model, model.model.connector
            rows = self.eye.embeddings.num_patches_per_side
            black = torch.zeros(1, 3, rows * self.eye.patch_size, rows * self.eye.patch_size)
            whole = torch.ones(1, rows, rows, dtype=torch.bool)
            with torch.no_grad():  # the positions of a whole picture, as the class finds them: by comparing fractions, with its roundings
                places = self.eye.embeddings(black, whole) - self._patches(black)
            self.register_buffer("places", places)

        def _patches(self, pixels: Any) -> Any:
            return self.eye.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)

        def forward(self, pixels: Any) -> Any:
            x = self.eye.encoder(
                inputs_embeds=self._patches(pixels) + self.places, attention_mask=None
            ).last_hidden_state
            return self.connector(self.eye.post_layernorm(x))

    return Shuffled()


def _clip(model: Any) -> Any:
    """LLaVA: square pictures (count, 3, side, side) -> tokens (count, n, width)."""
    import torch

    layers = range(model.config.vision_config.num_hidden_layers + 1)[
        model.config.vision_feature_layer
    ]  # of one layer, as LLaVA has it

    class Clip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eye, self.projector = model.model.vision_tower, model.model.multi_modal_projector

        def forward(self, pixels: Any) -> Any:
            x = self.eye.pre_layrnorm(self.eye.embeddings(pixels))
            for layer in self.eye.encoder.layers[:layers]:
                x = layer(x, None)
            return self.projector(x[:, 1:] if model.config.vision_feature_select_strategy == "default" else x)

    return Clip()


def main(folder: str) -> None:
    """Export the tower of the model in a folder."""
    from engines.vlm_model import load_model

    model, _, processor = load_model(Path(folder), "cpu")
    tower = Tower(model, processor)
    graph = exported(model, tower, Path(folder))
    print(
        f"{graph.name}: {graph.stat().st_size / 1e6:.1f} MB, opset {OPSET}, differs by {parity(graph, tower):.1e} of the largest number"
    )


if __name__ == "__main__":
    main(sys.argv[1])
