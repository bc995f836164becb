"""Vision encoders behind one interface: pictures to vectors, by the best runtime of this machine.

    Source (ONNX, and where there is one the published graph in 8 bits) -> load -> Encoder.encode

The runtimes: TensorRT where there are a GPU and its builder, OpenVINO and ONNX Runtime on the CPU, one
thread each. They are measured once per machine. ONNX Runtime in float32 is the reference: a runtime whose
vectors differ from its is refused, whatever its speed. The choice is stored beside the file until the file, a
version, the CPU or the GPU changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines import tensorrt_plan
from engines.build_vision import compiled
from engines.processor import flags
from streamsvc.core.errors import ModelMissing, WorkerError

Pixels = NDArray[np.float32]  # (n, 3, side, side) in the range that the model wants; n from 1 to 32
Encode = Callable[[Pixels], NDArray[np.float32]]  # -> (n, d)

RECIPE = "2"  # increment when the way of measuring changes
GRAPH_RECIPE = "2"  # increment when `published_graph.cut` changes
MAX_BATCH = tensorrt_plan.BATCHES[-1]  # pictures
MIN_COSINE = 0.99  # to ONNX Runtime in float32; others compute in bfloat16 or in 8 bits
TRIAL_BATCH = 8  # pictures of the batch that is timed to choose a runtime
TRIALS = 5  # of which the fastest counts
_SPOTS = {4: 0.6, 16: 0.4, 64: 0.3, 256: 0.2}  # across a picture of the trial -> their contrast
_COLOUR = 0.2  # of the contrast


def _as_read(graph: Any) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one encoder.

    `onnx`: float32 (n, 3, side, side) -> (n, d), n from 1 to MAX_BATCH. `published`: the same in 8 bits, in a
    format that OpenVINO reads, once `shape` has changed the graph; None: there is none. `low`, `high`: range
    of the pixels.
    """

    onnx: Path
    side: int
    published: Path | None = None
    shape: Callable[[Any], None] = _as_read
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime chosen on this machine.

    `ms`: CPU milliseconds per picture in a batch of TRIAL_BATCH, by runtime. `refused`: why others were not
    chosen that could be had: an error's code, or the least cosine to ONNX Runtime.
    """

    runtime: str
    ms: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        refused = [f"{name} refused: {reason}" for name, reason in self.refused.items()]
        return "; ".join([self.runtime, *refused])


class Encoder:
    """A loaded encoder. Not thread-safe.

    Args:
        encode: of the chosen runtime.
        choice: which one that is.
        side: pixels of a picture.
    """

    def __init__(self, encode: Encode, choice: Choice, side: int) -> None:
        self.choice = choice
        self._encode = encode
        self._shape = (3, side, side)

    def encode(self, pixels: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors, float32 (n, d), of pictures, float32 or uint8 (n, 3, side, side), n from 1 to MAX_BATCH.

        Raises:
            WorkerError: code "bad_batch": another shape or type; "run_failed": of the runtime.
        """
        fits = pixels.ndim == 4 and pixels.shape[1:] == self._shape and 1 <= len(pixels) <= MAX_BATCH
        if not fits or pixels.dtype not in (np.float32, np.uint8):
            raise WorkerError(f"not a batch of this encoder: {pixels.shape} {pixels.dtype}", code="bad_batch")
        return self._encode(np.ascontiguousarray(pixels, dtype=np.float32))


def load(source: Source) -> Encoder:
    """An encoder in the runtime for this machine; some seconds where that is not measured yet.

    Raises:
        WorkerError: code "no_runtime": none computes it correctly.
    """
    choice = stored(source)
    if choice is not None:
        try:
            return Encoder(RUNTIMES[choice.runtime](source), choice, source.side)
        except Exception:  # what could be had when it was measured cannot be had now
            choice = None
    choice = measured(source)
    _store(source, choice)
    return Encoder(RUNTIMES[choice.runtime](source), choice, source.side)


def stored(source: Source) -> Choice | None:
    """The choice that was made before for this file on this machine, if nothing has changed since."""
    try:
        found = json.loads(_path(source).read_text())
        choice = Choice(found["runtime"], found["ms"], found["refused"])
        return choice if found["key"] == _key(source) and choice.runtime in RUNTIMES else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not stored yet, or incomplete


def measured(source: Source) -> Choice:
    """Time every runtime that can be had, and compare its vectors with ONNX Runtime's.

    TensorRT is chosen where its vectors are right, for it leaves the CPU to the others; else the runtime that
    takes the least CPU time (wall time depends on other processes).

    Raises:
        WorkerError: as `load`.
    """
    pixels = trial(source)
    expected = onnxruntime(source)(pixels)
    ms: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, make in RUNTIMES.items():
        try:
            encode = make(source)
            similarity = cosine(encode(pixels), expected)
        except ModelMissing:  # it cannot be had here; `streamsvc bench vision` says why
            continue
        except WorkerError as error:
            refused[name] = error.code
            continue
        except Exception as error:  # a runtime that fails is not chosen, whatever it raises
            refused[name] = type(error).__name__
            continue
        if similarity < MIN_COSINE:
            refused[name] = f"cosine {similarity:.3f}"
        else:
            ms[name] = round(timed(encode, pixels, TRIALS)[1] / len(pixels) * 1000, 3)
    if not ms:
        raise WorkerError("no runtime of this machine computes the encoder correctly", code="no_runtime")
    best = "tensorrt" if "tensorrt" in ms else min(ms, key=lambda name: ms[name])
    return Choice(best, ms, refused)


# --- runtimes -----------------------------------------------------------------------------------------------


def tensorrt(source: Source) -> Encode:
    """The ONNX file as a TensorRT plan, with host arrays as input and output.

    For GPU tensors use `tensorrt_context.Context`.

    Raises:
        ModelMissing: no GPU (code "no_gpu") or no TensorRT with its builder (code "no_tensorrt").
        WorkerError: the plan cannot be built.
    """
    module, torch = tensorrt_plan.bindings()
    from engines.tensorrt_context import Context

    context = Context(module, torch, tensorrt_plan.built(module, torch, source.onnx))
    return lambda pixels: np.asarray(context.host(context.encode(torch.from_numpy(pixels))).numpy())


def openvino_int8(source: Source) -> Encode:
    """The published graph in OpenVINO, one thread, in 8 bits. Raises ModelMissing: there is none."""
    if source.published is None:
        raise ModelMissing("no graph in 8 bits was published")
    return _openvino(compiled(source.published, source.shape, GRAPH_RECIPE))


def openvino(source: Source) -> Encode:
    """The ONNX file in OpenVINO, one thread, in its choice of precision (bfloat16 with matrix units)."""
    return _openvino(compiled(source.onnx, _as_read))


def _openvino(model: Any) -> Encode:
    request = model.create_infer_request()
    return lambda pixels: np.array(request.infer({0: pixels})[model.outputs[0]])


def onnxruntime(source: Source) -> Encode:
    """The ONNX file in ONNX Runtime, one thread, in the file's precision."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(source.onnx), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


RUNTIMES: Mapping[str, Callable[[Source], Encode]] = {
    "tensorrt": tensorrt,
    "openvino int8": openvino_int8,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
}


# --- measuring ----------------------------------------------------------------------------------------------


def trial(source: Source, count: int = TRIAL_BATCH) -> Pixels:
    """Pictures of gray spots of all sizes with a little colour, as in photos.

    Smooth or gaudy ones would be a harder test of 8 bits than any photo is: few features respond to them.
    """
    random = np.random.default_rng(0)
    planes = np.zeros((count, 3, source.side, source.side), np.float32)
    for spots, contrast in _SPOTS.items():
        for picture in planes:
            picture += _spots(random, source.side, spots, contrast)
            for plane in picture:
                plane += _spots(random, source.side, spots, contrast * _COLOUR)
    half = (source.high - source.low) / 2
    pixels: Pixels = np.clip(source.low + half + half * planes, source.low, source.high)
    return pixels


def _spots(random: np.random.Generator, side: int, spots: int, contrast: float) -> NDArray[np.float32]:
    drawn = random.uniform(-contrast, contrast, (spots, spots)).astype(np.float32)
    return np.asarray(Image.fromarray(drawn).resize((side, side), Image.Resampling.BICUBIC))


def timed(encode: Encode, pixels: Pixels, times: int) -> tuple[float, float]:
    """(wall seconds, CPU seconds of all threads) of one batch.

    Each the minimum of `times` runs after a warm-up run.
    """
    encode(pixels)
    wall = cpu = float("inf")
    for _ in range(times):
        began, busy = time.perf_counter(), time.process_time()
        encode(pixels)
        wall, cpu = min(wall, time.perf_counter() - began), min(cpu, time.process_time() - busy)
    return wall, cpu


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least cosine similarity between corresponding rows; another shape or NaN counts as -1."""
    if one.shape != other.shape:
        return -1.0
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    least = float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-9)).min())
    return least if np.isfinite(least) else -1.0


# --- the stored choice --------------------------------------------------------------------------------------


def _path(source: Source) -> Path:
    return source.onnx.with_suffix(".runtime.json")


def _store(source: Source, choice: Choice) -> None:
    """Best effort: where the folder is read-only, each start measures."""
    path = _path(source)
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            json.dump({"key": _key(source), **asdict(choice)}, file, indent=1)
        Path(file.name).replace(path)


def _key(source: Source) -> dict[str, str]:
    """Everything that the choice depends on."""
    import onnxruntime as runtime
    import openvino as other

    return {
        "model": hashlib.sha256(source.onnx.read_bytes()).hexdigest(),
        "onnxruntime": str(runtime.__version__),
        "openvino": str(other.__version__),
        "cpu": f"{platform.machine()} {other.Core().get_property('CPU', 'FULL_DEVICE_NAME')} {_flags()}",
        "gpu": _gpu(),
        "recipe": RECIPE,
    }


def _flags() -> str:
    """A hash of the CPU's features: on some machines all CPUs have the same name."""
    return hashlib.sha256(flags().encode()).hexdigest()[:16]


def _gpu() -> str:
    """The GPU with the versions of its software, or why there is none."""
    try:
        board = tensorrt_plan.board(*tensorrt_plan.bindings())
    except ModelMissing as error:
        return error.code
    return " ".join(asdict(board).values())
