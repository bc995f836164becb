"""Exports a torch module to ONNX with a dynamic batch, and verifies the file.

onnx.checker validates the form; the numbers are compared with the module on random input.

The file is the source of every compiled engine: a TensorRT plan (`tensorrt_plan.py`) or a CPU runtime
(`build_vision.py`). Needs the extra `gpu` (torch, onnx, onnxscript); running built engines does not.
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
from engines.files import as_made, note_made
from streamsvc.core.errors import ModelMissing, WorkerError

OPSET = 18  # native to torch's exporter; others are conversions
MAX_BATCH = 32  # pictures
# Shorter names occur inside some models, and torch's exporter does not resolve the clash.
INPUT = "input_pixels"
OUTPUT = "output_embedding"
_BATCHES = (1, 3, MAX_BATCH)  # batch sizes of the comparison; the export uses another one


@dataclass(frozen=True, slots=True)
class Parity:
    """The difference between the ONNX file and the torch module on random pictures.

    `worst`: largest absolute difference divided by the largest absolute value. `pictures`: number compared.
    `opset`: of the file.
    """

    worst: float
    pictures: int
    opset: int

    def __str__(self) -> str:
        compared = f"opset {self.opset}, {self.pictures} pictures"
        return f"{compared}, largest difference {self.worst:.1e} of the largest value"


def exported(
    module: Any, side: int, target: Path, *, half: bool = False, tolerance: float | None = None
) -> Parity:
    """Export a module to `target` and verify it.

    Signature: normalised float32 pixels (n, 3, side, side) -> float32 embedding (n, d), n from 1 to 32.

    Args:
        module: a torch module from one tensor to (n, d); left in evaluation mode.
        side: pixels.
        target: the file, created atomically. At most 2 GB, the limit of a protobuf message.
        half: weights and arithmetic in float16. A strongly typed TensorRT network takes its precision from
            the file.
        tolerance: limit of `Parity.worst`; default 1e-4, or 2e-2 in float16.

    Raises:
        ModelMissing: a package of the extra `gpu` is not installed.
        WorkerError: code "onnx_invalid": the checker refuses the file; "onnx_differs": it differs more than
            `tolerance`.
    """
    try:
        import onnx
        import torch
    except ImportError as error:
        raise ModelMissing(f"exporting a model needs {error.name}: pip install 'streamsvc[gpu]'") from None
    scratch = Path(tempfile.mkdtemp(prefix=".exporting-", dir=target.parent))
    path = scratch / target.name
    try:
        with quiet(FutureWarning), torch.inference_mode():  # of torch's own pytrees, in its exporter
            torch.onnx.export(
                _in_half(module) if half else module.eval(),
                (torch.zeros(2, 3, side, side),),  # a batch of 1 would be exported as a fixed size
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
        limit = tolerance if tolerance is not None else 2e-2 if half else 1e-4
        if not parity.worst <= limit:  # NaN fails too
            raise WorkerError(
                f"the exported {target.name} differs from its source: {parity}", code="onnx_differs"
            )
        path.replace(target)
        return parity
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def cached(folder: Path, module: Any, side: int) -> tuple[Path, str]:
    """The module's ONNX file below `folder`, exported once per set of weights, and its parity as text.

    Older files are removed.

    Raises:
        ModelMissing, WorkerError: of `exported`.
    """
    digest = hashlib.sha256(f"{OPSET} {side} ".encode())
    for value in module.state_dict().values():
        digest.update(value.numpy().tobytes())
    target = folder / f"onnx-{digest.hexdigest()[:16]}"
    file = target / "model.onnx"
    parity = target / "model.parity.txt"
    names = (file.name, parity.name)
    if not as_made(target, *names):
        with building(target, "onnx-*", lambda: as_made(target, *names)) as scratch:
            (scratch / parity.name).write_text(str(exported(module, side, scratch / file.name)))
            note_made(scratch, *names)
    return file, parity.read_text()


@contextlib.contextmanager
def quiet(about: type[Warning]) -> Iterator[None]:
    """Suppress warnings of one category and the log output of torch's exporter."""
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
    """The file's opset, after checking form, types, shapes and names."""
    model = onnx.load(str(path))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WorkerError(
            f"the exported {path.name} is not valid ONNX: {type(error).__name__}", code="onnx_invalid"
        ) from None
    opset = next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    (given,), (made,) = model.graph.input, model.graph.output
    if (opset, given.name, made.name) != (OPSET, INPUT, OUTPUT) or not all(
        _dynamic(value) for value in (given, made)
    ):
        raise WorkerError(
            f"the exported {path.name} has another signature: {opset}, {given.name}, {made.name}",
            code="onnx_invalid",
        )
    return opset


def _dynamic(value: Any) -> bool:
    return bool(value.type.tensor_type.shape.dim[0].dim_param)


def _difference(module: Any, path: Path, side: int) -> float:
    """`Parity.worst`, by ONNX Runtime without optimisations, so that the file itself is compared."""
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
        (output,) = session.run([OUTPUT], {INPUT: pixels})
        if output.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(output - expected).max() / max(float(np.abs(expected).max()), 1e-9)))
        if not np.isfinite(worst):
            return float("inf")
    return worst


def _in_half(module: Any) -> Any:
    import copy

    import torch

    class Half(torch.nn.Module):
        """float16 inside, float32 input and output."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(module).half().eval()

        def forward(self, pixels: Any) -> Any:
            return self.inner(pixels.half()).float()

    return Half().eval()


def pooled(model: Any) -> Any:
    """A transformers vision tower as a module from one tensor to one: pixels -> pooled (n, d).

    Args:
        model: CLIPVisionModel, SiglipVisionModel, or CLIPModel or SiglipModel (vision tower and projection).
    """
    import torch

    encode = getattr(model, "get_image_features", model)

    class Pooled(torch.nn.Module):
        """The pooled output alone."""

        def __init__(self) -> None:
            super().__init__()
            self.tower = model

        def forward(self, pixels: Any) -> Any:
            return encode(pixel_values=pixels).pooler_output

    return Pooled().eval()
