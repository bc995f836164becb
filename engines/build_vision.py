"""Vision models in the fastest form for this machine.

`compiled`: a published model -> an OpenVINO graph that loads fast on this CPU (tagger and detector of every
session). `encoder`: an ONNX file of `export` -> a TensorRT plan if there are a GPU and TensorRT, else the
faster CPU runtime.

Reading the detector's TensorFlow graph takes 10 s of one core; the same graph in OpenVINO's format takes 0.1
s. The graph is in `openvino-<hash>/` beside its source; the hash covers the source's content, OpenVINO's
version and RECIPE. OpenVINO caches its compiled form in the same folder and checks that it fits this CPU.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import tensorrt_plan
from engines.building import building
from engines.files import as_made, note_made
from engines.processor import flags
from streamsvc.core.errors import ModelMissing, WorkerError

Pixels = NDArray[np.float32]  # (n, 3, side, side), normalised as the model wants it; n from 1 to 32
Encode = Callable[[Pixels], NDArray[np.float32]]  # -> (n, d)

RECIPE = "1"  # increment when the processing of a graph changes
GRAPH = "graph.xml"
_BUILT = (GRAPH, "graph.bin")
TRIAL_BATCH = 8  # pictures of the batch that is timed to choose a runtime
TRIALS = 5  # of which the fastest counts
MIN_COSINE = (
    0.99  # between a runtime's embedding and ONNX Runtime's in float32; OpenVINO may compute in bfloat16
)
_OPTIONS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compiled(source: Path, shape: Callable[[Any], None]) -> Any:
    """A model file compiled for this CPU, one thread.

    Args:
        source: any format that OpenVINO reads.
        shape: modifies the graph after reading (fixed input size, more outputs); the result is stored.

    Raises:
        ModelMissing: the file cannot be read.
    """
    import openvino

    core = openvino.Core()
    folder = _built(core, source, shape)
    return core.compile_model(str(folder / GRAPH), "CPU", _OPTIONS | {"CACHE_DIR": str(folder / "compiled")})


def _built(core: Any, source: Path, shape: Callable[[Any], None]) -> Path:
    import openvino

    mark = hashlib.sha256(f"{RECIPE} {openvino.__version__} ".encode() + source.read_bytes()).hexdigest()[:16]
    target = source.parent / f"openvino-{mark}"
    if as_made(target, *_BUILT):
        return target
    try:
        graph = core.read_model(str(source))
    except RuntimeError:
        raise ModelMissing(f"the model file {source} is broken: run `streamsvc models pull`") from None
    shape(graph)
    with building(target, "openvino-*", lambda: as_made(target, *_BUILT)) as scratch:
        openvino.save_model(graph, str(scratch / GRAPH), compress_to_fp16=False)
        note_made(scratch, *_BUILT)
    return target


# --- ONNX files, by the fastest runtime ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen runtime. `ms`: CPU milliseconds per picture in a batch of TRIAL_BATCH, by runtime."""

    runtime: str
    ms: Mapping[str, float]


def encoder(source: Path) -> tuple[Encode, Choice]:
    """An ONNX file of `export.exported`, ready to run on this machine. Not thread-safe.

    With a GPU and TensorRT's builder it is a plan. Otherwise the CPU runtimes are timed, one thread each, and
    the choice is stored beside the file until the file, a runtime's version or the CPU changes.

    Raises:
        WorkerError: TensorRT cannot build or run the file (see tensorrt_plan), or no runtime computes it
            correctly.
    """
    try:
        return tensorrt(source), Choice("tensorrt", {})
    except ModelMissing:  # no GPU or no builder; `streamsvc bench vision` shows which
        pass
    path = source.with_suffix(".runtime.json")
    key = _key(source)
    try:
        stored = json.loads(path.read_text())
        if stored["key"] == key and stored["runtime"] in RUNTIMES:
            return RUNTIMES[stored["runtime"]](source), Choice(stored["runtime"], stored["ms"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not stored yet, or incomplete
    choice, chosen = _fastest({name: make(source) for name, make in RUNTIMES.items()}, _trial(source))
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps({"key": key, "runtime": choice.runtime, "ms": choice.ms}, indent=1))
    scratch.replace(path)
    return chosen, choice


def tensorrt(source: Path) -> Encode:
    """The file as a TensorRT plan, with host arrays as input and output.

    For GPU tensors use `tensorrt_context.Context`.

    Raises:
        ModelMissing: no GPU (code "no_gpu") or no TensorRT with its builder (code "no_tensorrt").
        WorkerError: the plan cannot be built.
    """
    module, torch = tensorrt_plan.bindings()
    from engines.tensorrt_context import Context

    context = Context(module, torch, tensorrt_plan.built(module, torch, source))
    return lambda pixels: np.asarray(context.host(context.encode(torch.from_numpy(pixels))).numpy())


def openvino(source: Path) -> Encode:
    """The file in OpenVINO, one thread, in OpenVINO's choice of precision (bfloat16 with matrix units)."""
    model = compiled(source, lambda graph: None)
    request = model.create_infer_request()
    return lambda pixels: np.array(request.infer({0: pixels})[model.outputs[0]])


def onnxruntime(source: Path) -> Encode:
    """The file in ONNX Runtime, one thread, in the file's precision."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


RUNTIMES: Mapping[str, Callable[[Path], Encode]] = {"openvino": openvino, "onnxruntime": onnxruntime}


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


def _fastest(runtimes: Mapping[str, Encode], pixels: Pixels) -> tuple[Choice, Encode]:
    """The fastest of the runtimes whose result matches ONNX Runtime's."""
    expected = runtimes["onnxruntime"](pixels)
    ms = {}
    for name, encode in runtimes.items():
        output = encode(pixels)
        if output.shape == expected.shape and cosine(output, expected) >= MIN_COSINE:
            _, cpu = timed(encode, pixels, TRIALS)  # CPU time: wall time depends on other processes
            ms[name] = round(cpu / len(pixels) * 1000, 3)
    if not ms:
        raise WorkerError(
            "no runtime of this machine computes the vision encoder correctly", code="no_runtime"
        )
    best = min(ms, key=lambda name: ms[name])
    return Choice(best, ms), runtimes[best]


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least cosine similarity between corresponding rows; NaN counts as -1."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    least = float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-9)).min())
    return least if np.isfinite(least) else -1.0


def _trial(source: Path) -> Pixels:
    import onnxruntime as runtime

    session = runtime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    shape = (TRIAL_BATCH, *session.get_inputs()[0].shape[1:])
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _key(source: Path) -> dict[str, str]:
    """Everything that the choice depends on."""
    import onnxruntime as runtime
    import openvino as other

    return {
        "model": hashlib.sha256(source.read_bytes()).hexdigest(),
        "onnxruntime": str(runtime.__version__),
        "openvino": str(other.__version__),
        "cpu": f"{platform.machine()} {other.Core().get_property('CPU', 'FULL_DEVICE_NAME')} {_flags()}",
        "recipe": RECIPE,
    }


def _flags() -> str:
    """A hash of the CPU's features: on some machines all CPUs have the same name."""
    return hashlib.sha256(flags().encode()).hexdigest()[:16]
