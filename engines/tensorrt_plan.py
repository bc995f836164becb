"""An ONNX file -> a TensorRT plan for this very GPU: one profile for batches of 1 to 32, timings kept, rebuilt when anything changes.

Written against release 11 of TensorRT's Python API. There every network is strongly typed: precision comes from the file
(`export.exported(half=True)`), so there is no flag for it. A plan holds machine code, so one that another machine made is never
loaded: the key names the board itself, and what lies in the folder must hash to what was written down beside it.

    model.onnx -> tensorrt-<key>/{plan, key.json}    and timings-<board>.cache, which only saves time and which TensorRT itself checks

This has run on the library of TensorRT for RTX, which builds without a GPU, and against a double of the bindings (engines/README.md).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.building import building
from streamsvc.core.errors import ModelMissing, WorkerError

RECIPE = "1"  # raise it when what is asked of the builder changes
BATCHES = (1, 8, 32)  # least, most usual, most
WORKSPACE = 2 << 30  # bytes that the builder may use while it tries kernels
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Board:
    """What a plan is made for. `capability`: of CUDA, "9.0". `uuid`: of this one board. `driver`, `tensorrt`: versions."""

    gpu: str
    capability: str
    uuid: str
    driver: str
    tensorrt: str


def bindings() -> tuple[Any, Any]:
    """TensorRT's and torch's modules, where both can be used.

    Raises:
        ModelMissing: torch or a CUDA GPU is missing (code "no_gpu"), or TensorRT or its libraries (code "no_tensorrt").
    """
    try:
        import torch
    except ImportError:
        raise ModelMissing(
            "TensorRT engines need torch: pip install 'streamsvc[gpu]'", code="no_gpu"
        ) from None
    if not torch.cuda.is_available():
        raise ModelMissing(
            "TensorRT engines are built and run on a CUDA GPU, and this machine shows none to torch",
            code="no_gpu",
        )
    try:
        import tensorrt
    except ImportError as error:  # also where the package is there and its libraries are not
        raise ModelMissing(
            f"TensorRT 11 with its builder library is needed and cannot be loaded: {error}",
            code="no_tensorrt",
        ) from None
    if not hasattr(tensorrt, "Builder") or not str(tensorrt.__version__).startswith("11."):
        raise ModelMissing(
            f"TensorRT 11 with its builder is needed; this is {tensorrt.__version__}", code="no_tensorrt"
        )
    return tensorrt, torch


def board(tensorrt: Any, torch: Any) -> Board:
    """The GPU that torch uses now."""
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    driver = _DRIVER.read_text().splitlines()[0] if _DRIVER.is_file() else f"cuda {torch.version.cuda}"
    return Board(
        found.name, f"{found.major}.{found.minor}", str(found.uuid), driver, str(tensorrt.__version__)
    )


def key_of(source: Path, made_for: Board) -> dict[str, str]:
    """Everything that a plan depends on; a plan is used only where all of it is the same."""
    return {
        **asdict(made_for),
        "model": _sha256(source.read_bytes()),
        "batches": str(BATCHES),
        "recipe": RECIPE,
    }


def built(tensorrt: Any, torch: Any, source: Path) -> bytes:
    """The plan of an ONNX file: the one that was built here before, or a new one (minutes).

    Args:
        tensorrt: of `bindings`.
        torch: of `bindings`.
        source: of `export.exported`; plan and timings are kept beside it.

    Raises:
        WorkerError: code "plan_failed": TensorRT cannot read the file or build from it; the message says which node.
    """
    made_for = board(tensorrt, torch)
    key = key_of(source, made_for)
    mark = _sha256(json.dumps(key, sort_keys=True).encode())[:16]
    target = source.parent / f"tensorrt-{mark}"
    if (plan := _kept(target, key)) is not None:
        return plan
    timings = (
        source.parent / f"timings-{_sha256(json.dumps(asdict(made_for), sort_keys=True).encode())[:16]}.cache"
    )
    plan, learnt = build(tensorrt, source, timings.read_bytes() if timings.is_file() else b"")
    with building(target, "tensorrt-*", lambda: _kept(target, key) is not None) as scratch:
        (scratch / "timings").write_bytes(learnt)
        (scratch / "timings").replace(timings)
        (scratch / "plan").write_bytes(plan)
        (scratch / "key.json").write_text(json.dumps({**key, "plan": _sha256(plan)}, indent=1))
    return plan


def build(tensorrt: Any, source: Path, timings: bytes) -> tuple[bytes, bytes]:
    """Plan and timing cache of an ONNX file whose inputs have a dynamic first dimension.

    Args:
        tensorrt: the module.
        source: the ONNX file.
        timings: a timing cache of this board, or b"".

    Raises:
        WorkerError: as `built`.
    """
    log = tensorrt.Logger()  # warnings and errors, on stderr
    builder = tensorrt.Builder(log)
    network = builder.create_network()
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(source)):
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
        raise WorkerError(f"TensorRT cannot read {source.name}: {told}", code="plan_failed")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE)
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):  # of another board or release: begin anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        given = network.get_input(number)
        rest = tuple(given.shape)[1:]
        profile.set_shape(given.name, *((batch, *rest) for batch in BATCHES))
    if config.add_optimization_profile(profile) < 0:
        raise WorkerError(f"TensorRT refuses batches of {BATCHES} for {source.name}", code="plan_failed")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise WorkerError(f"TensorRT cannot build {source.name}; its log says why", code="plan_failed")
    return bytes(memoryview(plan)), bytes(memoryview(config.get_timing_cache().serialize()))


def _kept(folder: Path, key: dict[str, str]) -> bytes | None:
    """A plan that is whole, and of this very key."""
    try:
        told = json.loads((folder / "key.json").read_text())
        plan = (folder / "plan").read_bytes()
    except (OSError, ValueError):
        return None
    return plan if told == {**key, "plan": _sha256(plan)} else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
