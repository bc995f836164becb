"""A torch module -> an ONNX file with a dynamic batch, checked: its form by onnx.checker, its numbers against the module itself.

The file is the common source of every compiled engine: a TensorRT plan (`tensorrt_plan.py`) or a CPU runtime (`build_vision.py`).
Needs the extra `gpu` (torch, onnx, onnxscript); who only runs what was built does not need it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.building import building
from streamsvc.core.errors import ModelMissing, WorkerError

OPSET = 18  # what torch's exporter writes natively; every other number is a conversion of that
MAX_BATCH = 32  # pictures of one batch
INPUT, OUTPUT = (
    "input_pixels",
    "output_embedding",
)  # plain words are names inside some models, and torch's exporter lets them clash
_BATCHES = (1, 3, MAX_BATCH)  # of the comparison: no number that the export itself has seen


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the ONNX file is from the torch module, over random pictures.

    `worst`: the largest difference, as a share of the largest value. `pictures`: how many were compared. `opset`: of the file.
    """

    worst: float
    pictures: int
    opset: int

    def __str__(self) -> str:
        return f"opset {self.opset}, {self.pictures} pictures, largest difference {self.worst:.1e} of the largest value"


def exported(
    module: Any, side: int, target: Path, *, half: bool = False, tolerance: float | None = None
) -> Parity:
    """Write `target`: float32 pixels (n, 3, side, side), already normalised -> float32 embedding (n, d), n from 1 to 32.

    Args:
        module: a torch module of one tensor that gives (n, d); it is left in evaluation mode.
        side: pixels.
        target: the file; it appears whole or not at all. At most 2 GB, the limit of one protobuf message.
        half: weights and arithmetic in float16, as a strongly typed TensorRT network takes its precision from the file.
        tolerance: of `Parity.worst`; by default 1e-4, or 2e-2 in float16.

    Raises:
        ModelMissing: a package of the extra `gpu` is not installed.
        WorkerError: code "onnx_invalid": the checker refuses the file; "onnx_differs": its numbers are not the module's.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise ModelMissing(
            f"to export a model, {error.name} is needed: pip install 'streamsvc[gpu]'"
        ) from None
    scratch = Path(tempfile.mkdtemp(prefix=".exporting-", dir=target.parent))
    path = scratch / target.name
    try:
        with quiet(FutureWarning), torch.inference_mode():  # of torch's own pytrees, in its exporter
            torch.onnx.export(
                _in_half(module) if half else module.eval(),
                (torch.zeros(2, 3, side, side),),  # 2: an example of 1 would be taken for a fixed size
                str(path),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        opset = _checked(onnx, path)
        parity = Parity(_difference(module, path, side), sum(_BATCHES), opset)
        if not parity.worst <= (
            tolerance if tolerance is not None else 2e-2 if half else 1e-4
        ):  # so that NaN fails too
            raise WorkerError(
                f"the exported {target.name} differs from its source: {parity}", code="onnx_differs"
            )
        path.replace(target)
        return parity
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def kept(folder: Path, module: Any, side: int) -> tuple[Path, str]:
    """The module's ONNX file below `folder`, made once for these weights, and its parity in words; files of other weights go.

    Raises:
        ModelMissing, WorkerError: of `exported`.
    """
    digest = hashlib.sha256(f"{OPSET} {side} ".encode())
    for value in module.state_dict().values():
        digest.update(value.numpy().tobytes())
    target = folder / f"onnx-{digest.hexdigest()[:16]}"
    file, words = target / "model.onnx", target / "model.parity.txt"
    if not (file.is_file() and words.is_file()):
        with building(target, "onnx-*", lambda: file.is_file() and words.is_file()) as scratch:
            (scratch / words.name).write_text(str(exported(module, side, scratch / file.name)))
    return file, words.read_text()


@contextlib.contextmanager
def quiet(about: type[Warning]) -> Iterator[None]:
    """Without what torch's exporter says of itself: warnings of a kind, and at every export a list of what it leaves out."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", about)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _checked(onnx: Any, path: Path) -> int:
    """The file's opset, once form, types, shapes and names are right."""
    model = onnx.load(str(path))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WorkerError(
            f"the exported {path.name} is no valid ONNX: {type(error).__name__}", code="onnx_invalid"
        ) from None
    opset = next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    (given,), (made,) = model.graph.input, model.graph.output
    if (opset, given.name, made.name) != (OPSET, INPUT, OUTPUT) or not all(
        _dynamic(value) for value in (given, made)
    ):
        raise WorkerError(
            f"the exported {path.name} is not as it was asked for: {opset}, {given.name}, {made.name}",
            code="onnx_invalid",
        )
    return opset


def _dynamic(value: Any) -> bool:
    return bool(value.type.tensor_type.shape.dim[0].dim_param)


def _difference(module: Any, path: Path, side: int) -> float:
    """Parity.worst, by ONNX Runtime without its own optimisations: what is compared is the file."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    worst = 0.0
    for batch in _BATCHES:
        pixels = random.standard_normal((batch, 3, side, side), dtype=np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(pixels)).float().numpy()
        (found,) = session.run([OUTPUT], {INPUT: pixels})
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9)))
        if not np.isfinite(worst):
            return float("inf")
    return worst


def _in_half(module: Any) -> Any:
    import copy

    import torch

    class Half(torch.nn.Module):
        """float32 at both ends, float16 between."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(module).half().eval()

        def forward(self, pixels: Any) -> Any:
            return self.inner(pixels.half()).float()

    return Half().eval()


def pooled(model: Any) -> Any:
    """A vision tower of transformers as a module of one tensor: pixels -> pooled (n, d).

    Args:
        model: CLIPVisionModel or SiglipVisionModel; or CLIPModel or SiglipModel, whose vision tower and projection it takes.
    """
    import torch

    see = getattr(model, "get_image_features", model)

    class Pooled(torch.nn.Module):
        """The pooled output alone."""

        def __init__(self) -> None:
            super().__init__()
            self.tower = model

        def forward(self, pixels: Any) -> Any:
            return see(pixel_values=pixels).pooler_output

    return Pooled().eval()
