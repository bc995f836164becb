"""TensorRT's Python module without TensorRT.

Every name, argument and enum is what the real bindings say, anything else fails.

The specification (tests/fixtures/tensorrt_11.json) is taken from the bindings themselves: `specification()`
loads the real .so of the package tensorrt-cu13-bindings over empty stand-ins for the libraries that no
registry serves, and reads classes, signatures and enums out of it. What a call does stands in `Double`; its
engines compute with ONNX Runtime, at the memory addresses that they are given, when their stream runs.
`Torch` is torch with a GPU made of host memory: copies and engines run only when somebody waits for their
stream, so a missing wait shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import torch

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "tensorrt_11.json"
_CLASSES = "Builder IBuilderConfig IOptimizationProfile INetworkDefinition ITensor OnnxParser"
_CLASSES += " ParserError ITimingCache IHostMemory"
CLASSES = f"{_CLASSES} ILogger Logger Runtime ICudaEngine IExecutionContext".split()
ENUMS = ["MemoryPoolType", "TensorIOMode", "DataType", "BuilderFlag", "NetworkDefinitionCreationFlag"]

# --- what the bindings say ----------------------------------------------------------------------------------

_READ = """
import json, sys
import tensorrt_bindings.tensorrt as trt
import tensorrt_bindings
def signatures(doc):
    lines = [line.strip() for line in (doc or "").splitlines()]
    several = [line.split(". ", 1)[1] for line in lines if line[:3] in ("1. ", "2. ", "3. ", "4. ")]
    return several or lines[:1]
classes, enums = {}, {}
for name in sys.argv[1].split():
    cls, found = getattr(trt, name), {"bases": [], "methods": {}, "properties": {}, "constants": {}}
    found["bases"] = [base.__name__ for base in cls.__mro__[1:] if base.__module__ == cls.__module__]
    for key, value in sorted(vars(cls).items()):
        kind = type(value).__name__
        if kind == "property":
            told = (value.fget.__doc__ or "").strip().splitlines() or [""]
            found["properties"][key] = [told[0].partition("-> ")[2] or "object", value.fset is not None]
        elif kind == "instancemethod" and (not key.startswith("_") or key in ("__init__", "__bool__")):
            found["methods"][key] = signatures(value.__doc__)
        elif hasattr(type(value), "__members__"):
            found["constants"][key] = [type(value).__name__, value.name]
    classes[name] = found
for name in sys.argv[2].split():
    enums[name] = {key: int(value) for key, value in sorted(getattr(trt, name).__members__.items())}
enums["Severity"] = {key: int(value) for key, value in sorted(trt.ILogger.Severity.__members__.items())}
found = {"version": tensorrt_bindings.__version__, "classes": classes, "enums": enums}
json.dump(found, sys.stdout, indent=1, sort_keys=True)
"""
_STAND_IN = """
void *createInferBuilder_INTERNAL(void) { return 0; } void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; } void *getBuilderPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; } void *getPluginRegistry(void) { return 0; }
"""
_NO_PLUGINS = "int initLibNvInferPlugins(void) { return 0; }"


def stand_in(library: Path, functions: str = _NO_PLUGINS) -> None:
    """A library with functions that the bindings look for in TensorRT's, and which do nothing."""
    source = library.with_suffix(".c")
    source.write_text(functions)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)


def specification() -> str:
    """The text of the fixture, from the installed bindings; needs a C compiler, `cc`."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11"):
            stand_in(Path(folder, name), _NO_PLUGINS if "plugin" in name else _STAND_IN)
        command = [sys.executable, "-c", _READ, " ".join(CLASSES), " ".join(ENUMS)]
        environment = {**os.environ, "LD_LIBRARY_PATH": folder}
        return (
            subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True, timeout=60
            ).stdout
            + "\n"
        )


# --- names, arguments and enums are checked -----------------------------------------------------------------


class Wrong(Exception):
    """The bindings would not take this."""


class Dims:
    """A shape as the bindings give it: a sequence, not a tuple."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = tuple(int(value) for value in values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place: int) -> int:
        return self._values[place]


def parameters(signature: str) -> tuple[list[tuple[str, str, bool]], str]:
    """(name, type, whether it may be left out) of each parameter but self, and the type of the result."""
    inside, result = re.fullmatch(r"\w+\((.*)\) -> (.*)", signature).groups()  # type: ignore[union-attr]
    parts = [part for part in re.split(r", (?=\w+: )", inside) if part]
    found = []
    for part in parts:
        name, kind = part.split(": ", 1)
        if name not in ("self", "arg0") or parts.index(part) > 0:
            kind, *default = kind.split(" = ")
            found.append((name, kind, bool(default)))
    return found, result


class Thing:
    """An object of the bindings: it has the attributes of its class, and no others."""

    def __init__(self, double: Double, kind: str, state: Any = None) -> None:
        object.__setattr__(self, "_double", double)
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_state", state if state is not None else SimpleNamespace())

    def __getattribute__(self, name: str) -> Any:
        if name in ("_double", "_kind", "_state", "__class__"):
            return object.__getattribute__(self, name)
        double: Double = object.__getattribute__(self, "_double")
        kind: str = object.__getattribute__(self, "_kind")
        for spec in double.lineage(kind):
            if name in spec["properties"]:
                return double.given(
                    f"{kind}.{name}",
                    getattr(double, f"{kind}_{name}")(self._state),
                    spec["properties"][name][0],
                )
            if name in spec["methods"]:
                return lambda *args, **named: double.called(
                    self, kind, name, spec["methods"][name], args, named
                )
            if name in spec["constants"]:
                return double.enum(*spec["constants"][name])
        raise Wrong(f"{kind} has no {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise Wrong(f"nothing here sets {self._kind}.{name}")

    def __bool__(self) -> bool:
        return True


class Maker:
    """A class of the bindings."""

    def __init__(self, double: Double, kind: str) -> None:
        self._double, self._kind = double, kind

    def __call__(self, *args: Any, **named: Any) -> Thing:
        spec = self._double.spec["classes"][self._kind]
        if "__init__" not in spec["methods"]:
            raise Wrong(f"no {self._kind} can be made by hand")
        thing = Thing(self._double, self._kind)
        self._double.called(thing, self._kind, "__init__", spec["methods"]["__init__"], args, named)
        return thing

    def __getattr__(self, name: str) -> Any:
        for spec in self._double.lineage(self._kind):
            if name in spec["constants"]:
                return self._double.enum(*spec["constants"][name])
        raise Wrong(f"{self._kind} has no {name}")


class Double:
    """The module `tensorrt`.

    `calls`: what was asked of it, in order. `board`: a timing cache of another board is refused.
    """

    def __init__(self, board: str = "board") -> None:
        self.spec: Mapping[str, Any] = json.loads(FIXTURE.read_text())
        self.calls: list[str] = []
        self.board = board
        self.refuses = ""  # "parse" or "build": fails at that
        self._enums: dict[str, Any] = {
            name: enum.IntEnum(name, members) for name, members in self.spec["enums"].items()
        }

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return self.spec["version"]
        if name in self.spec["classes"]:
            return Maker(self, name)
        if name in self.spec["enums"]:
            return self._enums[name]
        raise Wrong(f"tensorrt has no {name}")

    def lineage(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """A class and its bases."""
        yield self.spec["classes"][kind]
        yield from (self.spec["classes"][base] for base in self.spec["classes"][kind]["bases"])

    def enum(self, kind: str, name: str) -> Any:
        """A member."""
        return self._enums[kind][name]

    def called(
        self,
        thing: Thing,
        kind: str,
        name: str,
        signatures: Sequence[str],
        args: Sequence[Any],
        named: Mapping[str, Any],
    ) -> Any:
        """Check the arguments against each signature, do it, and check the result."""
        reasons = []
        for signature in signatures:
            wanted, result = parameters(signature)
            try:
                values = self.bound(wanted, args, named)
            except Wrong as reason:
                reasons.append(str(reason))
                continue
            self.calls.append(f"{kind}.{name}")
            return self.given(
                f"{kind}.{name}", getattr(self, f"{kind}_{name}")(thing._state, *values), result
            )
        raise Wrong(f"{kind}.{name}: {'; '.join(reasons)}")

    def bound(
        self, wanted: Sequence[tuple[str, str, bool]], args: Sequence[Any], named: Mapping[str, Any]
    ) -> list[Any]:
        """The values of a call in the order of the signature, as far as they are given."""
        if len(args) > len(wanted) or set(named) - {name for name, _, _ in wanted[len(args) :]}:
            raise Wrong(f"takes {[name for name, _, _ in wanted]}, not {len(args)} and {sorted(named)}")
        values = []
        for place, (name, kind, optional) in enumerate(wanted):
            if place < len(args) or name in named:
                value = args[place] if place < len(args) else named[name]
                if not self.fits(value, kind):
                    raise Wrong(f"{name} is a {kind}, not {value!r}")
                values.append(value)
            elif not optional:
                raise Wrong(f"{name} is missing")
        return values

    def fits(self, value: Any, kind: str) -> bool:
        """Whether pybind11 takes a value for a parameter of this type."""
        bare = re.split(r"[.:]+", kind)[-1]
        if bare == "Dims":
            return isinstance(value, tuple | list | Dims) and all(
                isinstance(value[n], int) for n in range(len(value))
            )
        if bare in self._enums:
            return isinstance(value, self._enums[bare])
        if bare in self.spec["classes"]:
            return isinstance(value, Thing) and (
                value._kind == bare or bare in self.spec["classes"][value._kind]["bases"]
            )
        plain: Mapping[str, Any] = {
            "str": str,
            "bool": bool,
            "int": int,
            "SupportsInt": int,
            "tuple": tuple,
            "list": list,
        }
        if bare == "Buffer":
            return isinstance(value, bytes | bytearray | memoryview)
        if bare in ("None", "object"):
            return value is None or bare == "object"
        return bare in plain and isinstance(value, plain[bare])

    def given(self, what: str, value: Any, kind: str) -> Any:
        """A result, which the double itself must get right."""
        bare = re.split(r"[.:]+", kind)[-1]
        nothing = value is None and bare in ("IHostMemory", "ICudaEngine", "None")
        memory = bare == "IHostMemory" and isinstance(value, np.ndarray)
        named = {"IParserError": "ParserError"}.get(bare, bare)
        assert nothing or memory or self.fits(value, named), (
            f"the double gives {value!r} for {what}, which is {kind}"
        )
        return value

    # --- behaviour of the calls -------------------------------------------------------------------------

    def Logger___init__(self, state: Any, severity: Any = None) -> None: ...

    def Builder___init__(self, state: Any, log: Thing) -> None: ...

    def Builder_create_network(self, state: Any, flags: int = 0) -> Thing:
        return Thing(self, "INetworkDefinition", SimpleNamespace(model=None))

    def OnnxParser___init__(self, state: Any, network: Thing, log: Thing) -> None:
        state.network = network._state

    def OnnxParser_parse_from_file(self, state: Any, path: str) -> bool:
        if self.refuses == "parse":
            return False
        state.network.model = Path(path).read_bytes()
        graph = onnx.load_from_string(state.network.model).graph
        state.network.inputs = [
            (one.name, [dim.dim_value or -1 for dim in one.type.tensor_type.shape.dim]) for one in graph.input
        ]
        return True

    def OnnxParser_num_errors(self, state: Any) -> int:
        return 1

    def OnnxParser_get_error(self, state: Any, index: int) -> Thing:
        return Thing(self, "ParserError")

    def ParserError_node_operator(self, state: Any) -> str:
        return "NonZero"

    def ParserError_node_name(self, state: Any) -> str:
        return "node_7"

    def ParserError_desc(self, state: Any) -> str:
        return "not supported"

    def INetworkDefinition_num_inputs(self, state: Any) -> int:
        return len(state.inputs)

    def INetworkDefinition_get_input(self, state: Any, index: int) -> Thing:
        return Thing(self, "ITensor", state.inputs[index])

    def ITensor_name(self, state: Any) -> str:
        return str(state[0])

    def ITensor_shape(self, state: Any) -> Dims:
        return Dims(state[1])

    def Builder_create_builder_config(self, state: Any) -> Thing:
        return Thing(self, "IBuilderConfig", SimpleNamespace(profiles=[], cache=None))

    def IBuilderConfig_set_memory_pool_limit(self, state: Any, pool: Any, size: int) -> None:
        assert pool.name == "WORKSPACE", "the only pool of a GPU"
        assert size > 1 << 20

    def IBuilderConfig_create_timing_cache(self, state: Any, data: bytes) -> Thing:
        return Thing(self, "ITimingCache", SimpleNamespace(data=bytes(data)))

    def IBuilderConfig_set_timing_cache(self, state: Any, cache: Thing, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch, "timings of another board are worth nothing"
        if cache._state.data not in (b"", f"timings of {self.board}".encode()):
            return False
        state.cache = cache
        return True

    def IBuilderConfig_get_timing_cache(self, state: Any) -> Thing:
        assert isinstance(state.cache, Thing), "no timing cache was set"
        return state.cache

    def ITimingCache_serialize(self, state: Any) -> Any:
        return np.frombuffer(f"timings of {self.board}".encode(), np.uint8)

    def Builder_create_optimization_profile(self, state: Any) -> Thing:
        return Thing(self, "IOptimizationProfile", SimpleNamespace(shapes={}))

    def IOptimizationProfile_set_shape(
        self, state: Any, name: str, least: Any, usual: Any, most: Any
    ) -> None:
        shapes = [tuple(least), tuple(usual), tuple(most)]
        if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError(f"{name}: {shapes}")
        state.shapes[name] = shapes

    def IBuilderConfig_add_optimization_profile(self, state: Any, profile: Thing) -> int:
        if self.refuses == "profile":
            return -1
        state.profiles.append(profile._state.shapes)
        return len(state.profiles) - 1

    def Builder_build_serialized_network(self, state: Any, network: Thing, config: Thing) -> Any:
        (shapes,) = config._state.profiles
        for name, shape in network._state.inputs:  # in full only now, as the real one does
            given = shapes[name]
            assert all(len(one) == len(shape) for one in given)
            assert all(size == -1 or {one[n] for one in given} == {size} for n, size in enumerate(shape)), (
                f"{given} does not fit {shape}"
            )
        if self.refuses == "build":
            return None
        plan = json.dumps({"board": self.board, "shapes": shapes}).encode() + b"\n" + network._state.model
        return np.frombuffer(plan, np.uint8)

    def Runtime___init__(self, state: Any, log: Thing) -> None: ...

    def Runtime_deserialize_cuda_engine(self, state: Any, plan: bytes) -> Thing | None:
        head, _, model = bytes(plan).partition(b"\n")
        if not head.startswith(b"{") or json.loads(head)["board"] != self.board:
            return None
        graph = onnx.load_from_string(model).graph
        tensors = {
            one.name: ("INPUT", [dim.dim_value or -1 for dim in one.type.tensor_type.shape.dim])
            for one in graph.input
        }
        tensors |= {
            one.name: ("OUTPUT", [dim.dim_value or -1 for dim in one.type.tensor_type.shape.dim])
            for one in graph.output
        }
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return Thing(
            self,
            "ICudaEngine",
            SimpleNamespace(tensors=tensors, shapes=json.loads(head)["shapes"], session=session),
        )

    def ICudaEngine_num_io_tensors(self, state: Any) -> int:
        return len(state.tensors)

    def ICudaEngine_get_tensor_name(self, state: Any, index: int) -> str:
        return str(list(state.tensors)[index])

    def ICudaEngine_get_tensor_mode(self, state: Any, name: str) -> Any:
        return self.enum("TensorIOMode", state.tensors[name][0])

    def ICudaEngine_get_tensor_shape(self, state: Any, name: str) -> Dims:
        return Dims(state.tensors[name][1])

    def ICudaEngine_get_tensor_dtype(self, state: Any, name: str) -> Any:
        return self.enum("DataType", "FLOAT")

    def ICudaEngine_create_execution_context(self, state: Any) -> Thing:
        return Thing(self, "IExecutionContext", SimpleNamespace(engine=state, shape=None, addresses={}))

    def IExecutionContext_set_input_shape(self, state: Any, name: str, shape: Any) -> bool:
        least, _, most = state.engine.shapes[name]
        state.shape = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def IExecutionContext_set_tensor_address(self, state: Any, name: str, memory: int) -> bool:
        state.addresses[name] = memory
        return name in state.engine.tensors

    def IExecutionContext_execute_async_v3(self, state: Any, handle: int) -> bool:
        stream = Stream.by_handle.get(handle)
        assert stream is not None and stream.handle, "the work belongs on a stream of its own"
        names = {mode: name for name, (mode, _) in state.engine.tensors.items()}
        shape, given, made = state.shape, state.addresses[names["INPUT"]], state.addresses[names["OUTPUT"]]
        width = (shape[0], *state.engine.tensors[names["OUTPUT"]][1][1:])

        def run() -> None:
            (result,) = state.engine.session.run(
                [names["OUTPUT"]], {names["INPUT"]: _memory(given, shape).copy()}
            )
            _memory(made, width)[:] = result

        stream.later.append(run)
        return True


def _memory(address: int, shape: Sequence[int]) -> Any:
    """Float32 memory as an array."""
    return np.ctypeslib.as_array((ctypes.c_float * int(np.prod(shape))).from_address(address)).reshape(shape)


# --- a GPU made of host memory ------------------------------------------------------------------------------


class Stream:
    """torch.cuda.Stream: work piles up until somebody waits.

    `kept`: tensors whose memory must stay until the work so far is done.
    """

    by_handle: ClassVar[dict[int, Stream]] = {}
    current: ClassVar[Stream]

    def __init__(self) -> None:
        self.later: list[Callable[[], object]] = []
        self.done = 0
        self.kept: list[Any] = []
        self.handle = self.cuda_stream = len(Stream.by_handle)  # 0: the default one
        Stream.by_handle[self.handle] = self

    def until(self, count: int) -> None:
        """Do the first so many of all that was ever asked."""
        while self.done < count:
            work = self.later.pop(0)
            work()
            self.done += 1

    def synchronize(self) -> None:
        self.until(self.done + len(self.later))
        self.kept.clear()

    def wait_stream(self, other: Stream) -> None:
        count = other.done + len(other.later)
        self.later.append(lambda: other.until(count))


class OnGpu(torch.Tensor):
    """A tensor in the memory of the GPU."""

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def record_stream(self, stream: Any) -> None:
        stream.kept.append(self)

    def copy_(self, source: Any, non_blocking: bool = False) -> Any:
        return _copied(self, source, non_blocking)


class Pinned(torch.Tensor):
    """A tensor in pinned memory of the host."""

    def copy_(self, source: Any, non_blocking: bool = False) -> Any:
        return _copied(self, source, non_blocking)


def _copied(target: Any, source: Any, non_blocking: bool) -> Any:
    """Copies run on the current stream, and only pinned memory is copied without blocking the host."""
    plain_target, plain_source = (
        target.as_subclass(torch.Tensor),
        source.as_subclass(torch.Tensor),
    )  # the same memory
    crossing = isinstance(target, OnGpu) != isinstance(source, OnGpu)
    if crossing and non_blocking:
        assert isinstance(target, Pinned) or isinstance(source, Pinned), (
            "a copy from pageable memory is no asynchronous copy"
        )
        Stream.current.later.append(lambda: plain_target.copy_(plain_source))
    else:
        plain_target.copy_(plain_source)
    return target


class Torch:
    """torch, with a GPU."""

    float32 = torch.float32
    version = SimpleNamespace(cuda="13.0")

    def __init__(self, gpu: str = "NVIDIA Test", uuid: str = "board-1") -> None:
        Stream.by_handle = {}
        Stream.current = Stream()
        properties = SimpleNamespace(name=gpu, major=9, minor=0, uuid=uuid)
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            current_device=lambda: 0,
            get_device_properties=lambda device: properties,
            Stream=Stream,
            current_stream=lambda: Stream.current,
            stream=self._stream,
        )
        for name in vars(self.cuda):
            assert hasattr(torch.cuda, name), f"torch.cuda has no {name}"
        for name in (
            "synchronize",
            "wait_stream",
        ):  # cuda_stream is only there where torch is built with CUDA
            assert hasattr(torch.cuda.Stream, name)

    @staticmethod
    @contextlib.contextmanager
    def _stream(stream: Stream) -> Iterator[None]:
        before, Stream.current = Stream.current, stream
        try:
            yield
        finally:
            Stream.current = before

    def empty(
        self, shape: Sequence[int], *, dtype: Any, pin_memory: bool = False, device: str = "cpu"
    ) -> Any:
        made: Any = torch.full(tuple(shape), float("nan"), dtype=dtype)  # so that what is never written shows
        if device == "cuda":
            made = made.as_subclass(OnGpu)
            made.record_stream(Stream.current)
            return made
        return made.as_subclass(Pinned if pin_memory else torch.Tensor)


def on_gpu(values: Any) -> Any:
    """A tensor of `Torch`'s GPU."""
    return values.clone().as_subclass(OnGpu)
