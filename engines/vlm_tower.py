"""The eye of a VLM: pictures -> visual tokens, by the class's own vision tower and projector in torch, or by the same as an ONNX graph.

One tile a keyframe: SmolVLM and Idefics3 could cut a picture into up to 17, which for a live stream costs more tokens than it tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, Any]  # of one run, as the class's image processor makes them: torch tensors
Sight = tuple[
    Any, int, int
]  # tokens (n, width), rows and columns of their grid (0 where positions know none)


def has_grid(config: Any) -> bool:
    """Whether a model's pictures keep their shape, and its positions know rows and columns (Qwen)."""
    return hasattr(config.vision_config, "spatial_merge_size")


class Tower:
    """Vision tower and projector.

    Args:
        model: the whole model, in eval mode.
        processor: its image processor.
        graph: the tower exported by `export_vlm.exported`; None: torch.
    """

    def __init__(self, model: Any, processor: Any, graph: Path | None = None) -> None:
        self._model, self._processor = model, processor
        self._grids = has_grid(model.config)
        self._session = session(graph) if graph else None

    def see(self, pictures: Sequence[Any]) -> list[Sight]:
        """Visual tokens of RGB pictures of any size, all in one run where the tower can."""
        inputs = self.inputs(pictures)
        if self._session is not None:
            tokens: Sequence[Any] = run(self._session, inputs, self.merge)
        else:
            import torch

            with torch.inference_mode():
                moved = {name: value.to(self._model.device) for name, value in inputs.items()}
                tokens = self._model.get_image_features(**moved).pooler_output
        if not self._grids:
            return [(one, 0, 0) for one in tokens]
        grids = (inputs["image_grid_thw"][:, 1:] // self.merge).tolist()
        return [(one, rows, columns) for one, (rows, columns) in zip(tokens, grids, strict=True)]

    def fitted(self, picture: Any, most: int) -> Any:
        """A picture, made smaller where it would be more than `most` visual tokens; without a grid all pictures are equally many."""
        if not self._grids:
            return picture
        side = int(self._model.config.vision_config.patch_size) * self.merge  # pixels of one token
        share = math.sqrt(most * side * side / (picture.width * picture.height))
        return (
            picture
            if share >= 1.0
            else picture.resize([max(1, int(pixels * share) // side) * side for pixels in picture.size])
        )

    def inputs(self, pictures: Sequence[Any]) -> Inputs:
        """What the model's class takes for pictures."""
        if self._grids or self._model.config.model_type == "llava":
            return dict(self._processor(images=list(pictures), return_tensors="pt"))
        return dict(
            self._processor(
                images=[[picture] for picture in pictures], do_image_splitting=False, return_tensors="pt"
            )
        )

    @property
    def merge(self) -> int:
        """Patches that make one token, along each side."""
        return int(self._model.config.vision_config.spatial_merge_size) if self._grids else 1


def session(graph: Path) -> Any:
    """An ONNX Runtime session, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def run(session: Any, inputs: Inputs, merge: int) -> list[NDArray[np.float32]]:
    """Tokens (n, width) of each picture. Pictures with a grid are run one by one: the graph attends over all of its patches."""
    if "image_grid_thw" not in inputs:
        pixels = inputs["pixel_values"].numpy()
        (tokens,) = session.run(None, {"pixels": pixels.reshape(-1, *pixels.shape[-3:])})
        return list(tokens)
    patches, result, first = inputs["pixel_values"].numpy(), [], 0
    for _, rows, columns in inputs["image_grid_thw"].tolist():
        part = patches[first : first + rows * columns]
        result.append(session.run(None, {"patches": part, "places": places(rows, columns, merge)})[0])
        first += rows * columns
    return result


def places(rows: int, columns: int, merge: int) -> NDArray[np.int64]:
    """Row and column of each patch, shape (rows * columns, 2), in the order of Qwen's processor: blocks of merge x merge, row by row."""
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    blocks = grid.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(-1, 2), dtype=np.int64)
