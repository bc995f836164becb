"""The vision tower and projector of a VLM: pictures -> visual tokens, in torch or as an ONNX graph.

Each keyframe is one tile. SmolVLM and Idefics3 support up to 17 tiles, which costs too many tokens for a live
stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, Any]  # the image processor's output: torch tensors by name
VisualTokens = tuple[Any, int, int]  # tokens (n, width); rows and columns of their grid (0 without a grid)


def has_grid(config: Any) -> bool:
    """Whether a model keeps the aspect ratio of pictures and has position ids for rows and columns (Qwen)."""
    return hasattr(config.vision_config, "spatial_merge_size")


class Tower:
    """Vision tower and projector.

    Args:
        model: the whole model, in eval mode.
        processor: its image processor.
        graph: the tower exported by `export_vlm.exported`; None: torch.
    """

    def __init__(self, model: Any, processor: Any, graph: Path | None = None) -> None:
        self._model = model
        self._processor = processor
        self._grids = has_grid(model.config)
        self._session = session(graph) if graph else None

    def encode(self, pictures: Sequence[Any]) -> list[VisualTokens]:
        """Visual tokens of RGB pictures of any size, in one batch if the tower supports it."""
        inputs = self.inputs(pictures)
        if self._session is not None:
            tokens: Sequence[Any] = run(self._session, inputs, self.merge)
        else:
            import torch

            with torch.inference_mode():
                moved = {name: value.to(self._model.device) for name, value in inputs.items()}
                tokens = self._model.get_image_features(**moved).pooler_output
        if not self._grids:
            return [(picture_tokens, 0, 0) for picture_tokens in tokens]
        grids = (inputs["image_grid_thw"][:, 1:] // self.merge).tolist()
        return [(part, rows, columns) for part, (rows, columns) in zip(tokens, grids, strict=True)]

    def fit(self, picture: Any, most: int) -> Any:
        """The picture, scaled down to at most `most` visual tokens.

        Without a grid all pictures have the same number.
        """
        if not self._grids:
            return picture
        side = int(self._model.config.vision_config.patch_size) * self.merge  # pixels of one token
        share = math.sqrt(most * side * side / (picture.width * picture.height))
        if share >= 1.0:
            return picture
        return picture.resize([max(1, int(pixels * share) // side) * side for pixels in picture.size])

    def inputs(self, pictures: Sequence[Any]) -> Inputs:
        """The image processor's output for pictures, in the form that the model's class expects."""
        if self._grids or self._model.config.model_type == "llava":
            return dict(self._processor(images=list(pictures), return_tensors="pt"))
        return dict(
            self._processor(
                images=[[picture] for picture in pictures], do_image_splitting=False, return_tensors="pt"
            )
        )

    @property
    def merge(self) -> int:
        """Patches per token along each side."""
        return int(self._model.config.vision_config.spatial_merge_size) if self._grids else 1


def session(graph: Path) -> Any:
    """An ONNX Runtime session, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def run(session: Any, inputs: Inputs, merge: int) -> list[NDArray[np.float32]]:
    """Tokens (n, width) of each picture.

    Pictures with a grid run one by one: the graph attends over all patches.
    """
    if "image_grid_thw" not in inputs:
        pixels = inputs["pixel_values"].numpy()
        (tokens,) = session.run(None, {"pixels": pixels.reshape(-1, *pixels.shape[-3:])})
        return list(tokens)
    patches = inputs["pixel_values"].numpy()
    result = []
    first = 0
    for _, rows, columns in inputs["image_grid_thw"].tolist():
        part = patches[first : first + rows * columns]
        result.append(session.run(None, {"patches": part, "places": places(rows, columns, merge)})[0])
        first += rows * columns
    return result


def places(rows: int, columns: int, merge: int) -> NDArray[np.int64]:
    """(row, column) of each patch, shape (rows * columns, 2), in Qwen's order.

    Blocks of merge x merge, row by row.
    """
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    blocks = grid.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(-1, 2), dtype=np.int64)
