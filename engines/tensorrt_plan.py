"""Builds a TensorRT plan of an ONNX file for one GPU.

One profile for batches of 1 to 32, rebuilt when an input changes.

Written for release 11 of TensorRT's Python API, where every network is strongly typed: the precision comes
from the file (`export.exported(half=True)`). A plan contains machine code, so a plan of another machine is
never loaded: the key contains the board's uuid, and the plan must have the hash stored beside it.

    model.onnx -> tensorrt-<key>/{plan, key.json}
               -> timings-<board>.cache, which only saves time; TensorRT validates it

This has run on the library of TensorRT for RTX, which builds without a GPU, and against a fake of the
bindings (engines/README.md).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.building import building
from streamsvc.core.errors import ModelMissing, WorkerError

RECIPE = "1"  # increment when the builder's configuration changes
BATCHES = (1, 8, 32)  # minimum, optimum and maximum of the profile
WORKSPACE = 2 << 30  # bytes for the builder while it times kernels
_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # of Linux, and of Windows' Linux
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Board:
    """The target of a plan.

    `capability`: CUDA compute capability, "9.0". `uuid`: of the board. `driver`, `tensorrt`: versions.
    """

    gpu: str
    capability: str
    uuid: str
    driver: str
    tensorrt: str


def bindings() -> tuple[Any, Any]:
    """The modules tensorrt and torch, if both can be used.

    Raises:
        ModelMissing: torch or a CUDA GPU is missing (code "no_gpu"), or TensorRT or its libraries are (code
            "no_tensorrt").
    """
    absent = "TensorRT engines are built and run on a CUDA GPU, and this machine shows none"
    if not any(device.exists() for device in _DEVICES):  # loading torch only to ask takes 2 s and 0.2 GB
        raise ModelMissing(absent, code="no_gpu")
    try:
        import torch
    except ImportError:
        raise ModelMissing(
            "TensorRT engines need torch: pip install 'streamsvc[gpu]'", code="no_gpu"
        ) from None
    if not torch.cuda.is_available():
        raise ModelMissing(absent, code="no_gpu")
    try:
        import tensorrt
    except ImportError as error:  # also if the package is installed without its libraries
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
    """The current GPU of torch."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    driver = _DRIVER.read_text().splitlines()[0] if _DRIVER.is_file() else f"cuda {torch.version.cuda}"
    return Board(
        gpu=properties.name,
        capability=f"{properties.major}.{properties.minor}",
        uuid=str(properties.uuid),
        driver=driver,
        tensorrt=str(tensorrt.__version__),
    )


def key_of(source: Path, made_for: Board) -> dict[str, str]:
    """Everything that a plan depends on. A plan is used only if all of it is equal."""
    return {
        **asdict(made_for),
        "model": _sha256(source.read_bytes()),
        "batches": str(BATCHES),
        "recipe": RECIPE,
    }


def built(tensorrt: Any, torch: Any, source: Path) -> bytes:
    """The plan of an ONNX file; builds it first if necessary (minutes).

    Args:
        tensorrt: of `bindings`.
        torch: of `bindings`.
        source: of `export.exported`; plan and timing cache are stored beside it.

    Raises:
        WorkerError: code "plan_failed": TensorRT cannot read the file or build a plan; the message names the
            node.
    """
    made_for = board(tensorrt, torch)
    key = key_of(source, made_for)
    mark = _sha256(json.dumps(key, sort_keys=True).encode())[:16]
    target = source.parent / f"tensorrt-{mark}"
    if (plan := _stored(target, key)) is not None:
        return plan
    board_mark = _sha256(json.dumps(asdict(made_for), sort_keys=True).encode())[:16]
    timings = source.parent / f"timings-{board_mark}.cache"
    plan, measured = build(tensorrt, source, timings.read_bytes() if timings.is_file() else b"")
    with building(target, "tensorrt-*", lambda: _stored(target, key) is not None) as scratch:
        (scratch / "timings").write_bytes(measured)
        (scratch / "timings").replace(timings)
        (scratch / "plan").write_bytes(plan)
        (scratch / "key.json").write_text(json.dumps({**key, "plan": _sha256(plan)}, indent=1))
    return plan


def build(tensorrt: Any, source: Path, timings: bytes) -> tuple[bytes, bytes]:
    """(plan, timing cache) of an ONNX file whose inputs have a dynamic first dimension.

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
        reasons = "; ".join(
            f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors
        )
        raise WorkerError(f"TensorRT cannot read {source.name}: {reasons}", code="plan_failed")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE)
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):  # of another board or release: start with an empty one
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        network_input = network.get_input(number)
        rest = tuple(network_input.shape)[1:]
        profile.set_shape(network_input.name, *((batch, *rest) for batch in BATCHES))
    if config.add_optimization_profile(profile) < 0:
        raise WorkerError(f"TensorRT refuses batches of {BATCHES} for {source.name}", code="plan_failed")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise WorkerError(f"TensorRT cannot build {source.name}; its log has the reason", code="plan_failed")
    return bytes(memoryview(plan)), bytes(memoryview(config.get_timing_cache().serialize()))


def _stored(folder: Path, key: dict[str, str]) -> bytes | None:
    """The stored plan, if it is intact and has this key."""
    try:
        stored = json.loads((folder / "key.json").read_text())
        plan = (folder / "plan").read_bytes()
    except (OSError, ValueError):
        return None
    return plan if stored == {**key, "plan": _sha256(plan)} else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
