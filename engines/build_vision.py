"""Vision models as this machine runs them fastest.

Two ways lead here. `compiled`: a model as it was published -> an OpenVINO graph that starts fast on this CPU; the eyes of every session.
`encoder`: an ONNX file of `export` -> a TensorRT plan where there are a GPU and TensorRT, else whichever CPU runtime is faster here.

Reading the detector's TensorFlow graph takes ten seconds of one core; the same graph in OpenVINO's own format takes a
tenth of one. The graph lies beside its source in `openvino-<hash>/`, named by the source's content, OpenVINO's version and
RECIPE, written to a temporary folder and renamed, so that a reader sees a whole one or none. OpenVINO keeps the compiled
form in the same folder and checks by itself that it fits this processor.
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
from engines.processor import flags
from streamsvc.core.errors import ModelMissing, WorkerError

Pixels = NDArray[np.float32]  # (n, 3, side, side), normalised as the model wants it; n from 1 to 32
Encode = Callable[[Pixels], NDArray[np.float32]]  # -> (n, d)

RECIPE = "1"  # raise it when what is done to a graph changes
GRAPH = "graph.xml"
TRIAL, TRIALS = 8, 5  # pictures of a batch that is timed to choose a runtime; the fastest of so many
ALIKE = 0.99  # least cosine between a runtime's embedding and that of ONNX Runtime in float32: OpenVINO may compute in bfloat16
_OPTIONS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compiled(source: Path, shape: Callable[[Any], None]) -> Any:
    """The model of a file, compiled for this CPU, one thread.

    Args:
        source: any format that OpenVINO reads.
        shape: changes the graph once it is read (fixed input size, more outputs); done once, then kept.

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
    if (target / GRAPH).is_file():
        return target
    try:
        graph = core.read_model(str(source))
    except RuntimeError:
        raise ModelMissing(f"the model file {source} is broken: run `streamsvc models pull`") from None
    shape(graph)
    with building(target, "openvino-*", (target / GRAPH).is_file) as scratch:
        openvino.save_model(graph, str(scratch / GRAPH), compress_to_fp16=False)
    return target


# --- ONNX files, by the fastest runtime -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for an ONNX file on this machine. `ms`: CPU time of a picture, in a batch of TRIAL, by each runtime tried."""

    runtime: str
    ms: Mapping[str, float]


def encoder(source: Path) -> tuple[Encode, Choice]:
    """An ONNX file of `export.exported`, ready to run on this machine. Not for two threads at once.

    With a GPU and TensorRT's builder it is a plan. Else the CPU runtimes are timed, one thread each, and the choice is kept beside the file
    until the file, a runtime's version or the processor changes.

    Raises:
        WorkerError: TensorRT is there, and cannot build or run the file (see tensorrt_plan), or no runtime computes it right.
    """
    try:
        return tensorrt(source), Choice("tensorrt", {})
    except ModelMissing:  # no GPU, or no builder: said by `streamsvc bench vision`
        pass
    kept, key = source.with_suffix(".runtime.json"), _key(source)
    try:
        told = json.loads(kept.read_text())
        if told["key"] == key and told["runtime"] in RUNTIMES:
            return RUNTIMES[told["runtime"]](source), Choice(told["runtime"], told["ms"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or not a whole one
    choice, chosen = _fastest({name: make(source) for name, make in RUNTIMES.items()}, _trial(source))
    scratch = kept.with_suffix(".part")
    scratch.write_text(json.dumps({"key": key, "runtime": choice.runtime, "ms": choice.ms}, indent=1))
    scratch.replace(kept)
    return chosen, choice


def tensorrt(source: Path) -> Encode:
    """The file as a TensorRT plan. The arrays at both ends share torch's memory; on the GPU path call `tensorrt_context.Context` itself.

    Raises:
        ModelMissing: no GPU (code "no_gpu") or no TensorRT with its builder (code "no_tensorrt").
        WorkerError: the plan cannot be built.
    """
    module, torch = tensorrt_plan.bindings()
    from engines.tensorrt_context import Context

    context = Context(module, torch, tensorrt_plan.built(module, torch, source))
    return lambda pixels: np.asarray(context.host(context.encode(torch.from_numpy(pixels))).numpy())


def openvino(source: Path) -> Encode:
    """The file in OpenVINO, one thread, in the precision that it thinks best for this processor (bfloat16 where there are matrix units)."""
    model = compiled(source, lambda graph: None)
    request = model.create_infer_request()
    return lambda pixels: np.array(request.infer({0: pixels})[model.outputs[0]])


def onnxruntime(source: Path) -> Encode:
    """The file in ONNX Runtime, one thread, in the precision of the file."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


RUNTIMES: Mapping[str, Callable[[Path], Encode]] = {"openvino": openvino, "onnxruntime": onnxruntime}


def timed(encode: Encode, pixels: Pixels, times: int) -> tuple[float, float]:
    """Seconds of one batch, by the wall and of all CPU threads: the least of each over so many, after one that is not counted."""
    encode(pixels)
    wall = cpu = float("inf")
    for _ in range(times):
        began, busy = time.perf_counter(), time.process_time()
        encode(pixels)
        wall, cpu = min(wall, time.perf_counter() - began), min(cpu, time.process_time() - busy)
    return wall, cpu


def _fastest(runtimes: Mapping[str, Encode], pixels: Pixels) -> tuple[Choice, Encode]:
    """The fastest of those that compute what ONNX Runtime does."""
    expected = runtimes["onnxruntime"](pixels)
    ms = {}
    for name, encode in runtimes.items():
        found = encode(pixels)
        if found.shape == expected.shape and cosine(found, expected) >= ALIKE:
            _, cpu = timed(
                encode, pixels, TRIALS
            )  # one thread each, and CPU time does not mind who else uses the machine
            ms[name] = round(cpu / len(pixels) * 1000, 3)
    if not ms:
        raise WorkerError("no runtime of this machine computes the vision encoder right", code="no_runtime")
    best = min(ms, key=lambda name: ms[name])
    return Choice(best, ms), runtimes[best]


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least cosine between rows of the same place; NaN counts as -1."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    least = float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-9)).min())
    return least if np.isfinite(least) else -1.0


def _trial(source: Path) -> Pixels:
    import onnxruntime as runtime

    shape = (
        runtime.InferenceSession(str(source), providers=["CPUExecutionProvider"]).get_inputs()[0].shape[1:]
    )
    return np.random.default_rng(0).standard_normal((TRIAL, *shape), dtype=np.float32)


def _key(source: Path) -> dict[str, str]:
    """What the choice depends on."""
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
    """A hash of what the processor can do: some machines give every processor the same name."""
    return hashlib.sha256(flags().encode()).hexdigest()[:16]
