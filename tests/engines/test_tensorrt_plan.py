"""A plan is built by calls that the real bindings accept, and used only on the same board and versions.

No GPU and no TensorRT here: all but the last tests run against tests/engines/tensorrt_double.py, which knows
the real signatures and enums.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch

from engines import export, tagger, tensorrt_context, tensorrt_plan
from streamsvc.core.config import Models, See
from streamsvc.core.errors import ModelMissing, WorkerError
from tests.builders.mutant import executed
from tests.builders.onnx_model import save_onnx
from tests.engines.tensorrt_double import FIXTURE, Double, Torch, Wrong, on_gpu, specification, stand_in


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_onnx(tmp_path / "model.onnx")


@pytest.mark.skipif(
    shutil.which("cc") is None or importlib.util.find_spec("tensorrt_bindings") is None,
    reason="needs a C compiler and the bindings",
)
def test_the_specification_is_what_the_bindings_say() -> None:
    assert specification() == FIXTURE.read_text(), (
        "write specification() into the fixture, and look at what has changed"
    )


def test_a_plan_is_built_once_and_stored(source: Path) -> None:
    first, second = Double(), Double()
    plan = tensorrt_plan.built(first, Torch(), source)
    assert "Builder.build_serialized_network" in first.calls
    assert tensorrt_plan.built(second, Torch(), source) == plan
    assert second.calls == []
    (folder,) = source.parent.glob("tensorrt-*")
    told = json.loads((folder / "key.json").read_text())
    assert (told["gpu"], told["capability"]) == ("NVIDIA Test", "9.0")
    assert told["tensorrt"] == "11.4.0.106"
    assert not list(source.parent.glob(".building-*"))


@pytest.mark.parametrize("changed", ["gpu", "board", "driver", "release", "model", "recipe"])
def test_a_plan_is_rebuilt_when_anything_differs(
    source: Path, changed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "driver"
    driver.write_text("NVRM version: 580\n")
    monkeypatch.setattr(tensorrt_plan, "_DRIVER", driver)
    before = tensorrt_plan.built(Double(), Torch(), source)
    double, machine = (
        Double(),
        Torch(gpu="NVIDIA Other")
        if changed == "gpu"
        else Torch(uuid="board-2")
        if changed == "board"
        else Torch(),
    )
    if changed == "driver":
        driver.write_text("NVRM version: 590\n")
    elif changed == "release":
        double.spec = {**double.spec, "version": "11.5.0.0"}
    elif changed == "model":
        save_onnx(source, factor=3.0)
    elif changed == "recipe":
        monkeypatch.setattr(tensorrt_plan, "RECIPE", "other")
    after = tensorrt_plan.built(double, machine, source)
    assert "Builder.build_serialized_network" in double.calls
    assert (after == before) == (changed != "model")
    assert len(list(source.parent.glob("tensorrt-*"))) == 1, "the old one is gone"


@pytest.mark.parametrize("harm", ["other plan", "other key", "no key", "cut"])
def test_a_plan_that_is_not_what_was_written_is_built_again(source: Path, harm: str) -> None:
    plan = tensorrt_plan.built(Double(), Torch(), source)
    (folder,) = source.parent.glob("tensorrt-*")
    if harm == "other plan":
        (folder / "plan").write_bytes(b"machine code of somebody else")
    elif harm == "other key":
        told = json.loads((folder / "key.json").read_text())
        (folder / "key.json").write_text(json.dumps({**told, "uuid": "board-2"}))
    elif harm == "no key":
        (folder / "key.json").unlink()
    else:
        (folder / "plan").write_bytes(plan[:-1])
    double = Double()
    assert tensorrt_plan.built(double, Torch(), source) == plan
    assert "Builder.build_serialized_network" in double.calls
    assert tensorrt_plan.built(Double(), Torch(), source) == plan


def test_timings_are_reused_by_the_next_build_but_not_for_another_board(source: Path) -> None:
    plan, timings = tensorrt_plan.build(Double("a"), source, b"")
    assert plan
    same, other = Double("a"), Double("b")
    assert tensorrt_plan.build(same, source, timings)[1] == timings
    assert same.calls.count("IBuilderConfig.create_timing_cache") == 1
    assert tensorrt_plan.build(other, source, timings)[1] != timings
    assert other.calls.count("IBuilderConfig.create_timing_cache") == 2
    tensorrt_plan.built(Double(), Torch(), source)
    (kept,) = source.parent.glob("timings-*.cache")
    assert kept.read_bytes() == b"timings of board"


@pytest.mark.parametrize(
    ("at", "told"),
    [("parse", "NonZero node_7: not supported"), ("profile", "batches"), ("build", "cannot build")],
)
def test_a_refusal_by_tensorrt_is_an_error_and_leaves_nothing(source: Path, at: str, told: str) -> None:
    double = Double()
    double.refuses = at
    with pytest.raises(WorkerError, match=told) as caught:
        tensorrt_plan.built(double, Torch(), source)
    assert caught.value.code == "plan_failed"
    assert [path.name for path in source.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/no such device"])
def test_without_a_gpu_that_is_what_is_said(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(device))
    monkeypatch.setattr(tensorrt_plan, "_DEVICES", (Path(device),))
    with pytest.raises(ModelMissing, match="CUDA GPU") as caught:
        tensorrt_plan.bindings()
    assert caught.value.code == "no_gpu"
    assert bool(asked) == Path(device).exists(), "torch is loaded only where there is a device"


def test_without_the_builder_library_that_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_plan, "_DEVICES", (Path("/dev/null"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ModelMissing, match="builder library") as caught:
        tensorrt_plan.bindings()
    assert caught.value.code == "no_tensorrt"
    lean, old = ModelType(), ModelType()
    lean.__version__ = "11.4"  # the lean runtime has no Builder
    old.__version__, old.Builder = "10.9", object
    for module in (lean, old):
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        with pytest.raises(ModelMissing, match="TensorRT 11 with its builder"):
            tensorrt_plan.bindings()


class ModelType(ModuleType):
    """A module with attributes of ours."""

    __version__: str
    Builder: Any

    def __init__(self) -> None:
        super().__init__("tensorrt")


# --- a wrong name, argument or enum fails -------------------------------------------------------------------


def walk(plan: Any, context: Any, source: Path) -> None:
    """Everything that both files ask of TensorRT, and what must come of it."""
    double = Double("a")
    built, timings = plan.build(double, source, b"")
    assert timings == b"timings of a"
    again = Double("b")
    plan.build(again, source, timings)
    assert again.calls.count("IBuilderConfig.set_timing_cache") == 2
    double.refuses = "parse"
    try:
        plan.build(double, source, b"")
    except WorkerError as error:
        assert "NonZero node_7: not supported" in error.message
    else:
        raise AssertionError("a file that cannot be read was taken")
    machine = Torch()
    encoder = context.Context(Double("a"), machine, built)
    for pictures in (torch.rand(32, 3, 4, 4), on_gpu(torch.rand(1, 3, 4, 4)), torch.rand(5, 3, 4, 4)):
        told = encoder.host(encoder.encode(pictures))
        assert torch.allclose(
            told.as_subclass(torch.Tensor), pictures.as_subclass(torch.Tensor).mean((2, 3)) * 2, atol=1e-5
        )


def _specified() -> tuple[set[str], set[str]]:
    spec = json.loads(FIXTURE.read_text())
    names = {
        name
        for kind in spec["classes"].values()
        for group in ("methods", "properties", "constants")
        for name in kind[group]
    }
    enums = {*spec["enums"], *(name for members in spec["enums"].values() for name in members)}
    return names | enums | set(spec["classes"]), {
        name for kind in spec["classes"].values() for name in kind["methods"]
    } | set(spec["classes"])


OURS = {
    "name",
    "shape",
    "dtype",
}  # of torch's tensors and the board too, so that not every place of them is TensorRT's


def mutants() -> list[Any]:
    """(file, its changed tree).

    Each name of TensorRT misspelt, each call with one argument more, and with one less.
    """
    names, methods = _specified()
    found = []
    for module in (tensorrt_plan, tensorrt_context):
        source = inspect.getsource(module)
        for place, node in enumerate(ast.walk(ast.parse(source))):
            changes: list[str] = []
            if isinstance(node, ast.Attribute) and node.attr in names - OURS:
                changes = ["name"]
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in methods
            ):
                changes = ["more", "less"] if node.args else ["more"]
            for change in changes:
                tree = ast.parse(source)
                spoilt: Any = list(ast.walk(tree))[place]
                if change == "name":
                    spoilt.attr += "s"
                elif change == "more":
                    spoilt.args.append(ast.Constant("one more"))
                else:
                    spoilt.args.pop()
                what = ast.unparse(spoilt)[:60].replace("\n", " ")
                found.append(
                    pytest.param(
                        module,
                        tree,
                        id=f"{module.__name__.rpartition('.')[2]}:{spoilt.lineno} {change} {what}",
                    )
                )
    return found


def test_the_walk_without_a_change_succeeds(source: Path) -> None:
    walk(tensorrt_plan, tensorrt_context, source)


@pytest.mark.parametrize(("module", "tree"), mutants())
def test_a_wrong_name_or_argument_fails(module: ModuleType, tree: ast.Module, source: Path) -> None:
    changed = executed(module, tree)
    with pytest.raises((Wrong, AssertionError, WorkerError, TypeError, AttributeError, ValueError)):
        walk(
            changed if module is tensorrt_plan else tensorrt_plan,
            changed if module is tensorrt_context else tensorrt_context,
            source,
        )


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        (tensorrt_plan, "MemoryPoolType.WORKSPACE", "MemoryPoolType.TACTIC_DRAM"),
        (tensorrt_plan, "MemoryPoolType.WORKSPACE", "BuilderFlag.TF32"),
        (tensorrt_plan, "(1, 8, 32)", "(8, 1, 32)"),
        (tensorrt_plan, "(1, 8, 32)", "(1, 8, 16)"),
        (tensorrt_plan, "(batch, *rest)", "rest"),
        (tensorrt_plan, "set_timing_cache(cache, False)", "set_timing_cache(cache, True)"),
        (tensorrt_plan, "str(source)", "source"),
        (tensorrt_context, "DataType.FLOAT", "DataType.HALF"),
        (tensorrt_context, "TensorIOMode.INPUT: []", "TensorIOMode.NONE: []"),
        (tensorrt_context, "self._in, pixels.data_ptr()", "self._in, embedding.data_ptr()"),
        (tensorrt_context, "self._out, embedding.data_ptr()", "self._out, pixels.data_ptr()"),
        (tensorrt_context, "self._stream.cuda_stream", "caller.cuda_stream"),
        (tensorrt_context, "self._stream.cuda_stream", "self._stream"),
        (tensorrt_context, "tuple(pixels.shape)", "(1, *self.shape)"),
    ],
)
def test_a_wrong_value_or_order_fails(module: ModuleType, right: str, wrong: str, source: Path) -> None:
    text = inspect.getsource(module)
    assert right in text
    changed = executed(module, ast.parse(text.replace(right, wrong)))
    with pytest.raises((Wrong, AssertionError, WorkerError, TypeError, ValueError, KeyError, RuntimeError)):
        walk(
            changed if module is tensorrt_plan else tensorrt_plan,
            changed if module is tensorrt_context else tensorrt_context,
            source,
        )


# --- the real builder -----------------------------------------------------------------------------------
# The bindings of TensorRT 11 on the library of TensorRT for RTX (1.7, a wheel), which builds without a GPU
# and exports the same functions, parser and builder included. Its plans run only on RTX cards. What is shown
# here is that the calls are right, that a TensorRT parser accepts our files, and what a refusal says.

LIBRARIES = {
    "libnvinfer.so.11": "libtensorrt_rtx.so.1.*",
    "libnvonnxparser.so.11": "libtensorrt_onnxparser_rtx.so.1.*",
}
_RUN = """
import json, sys
from pathlib import Path
import tensorrt_bindings.tensorrt as tensorrt
from engines import tensorrt_plan
from streamsvc.core.errors import WorkerError
told = []
for name in sys.argv[1:]:
    try:
        plan, timings = tensorrt_plan.build(tensorrt, Path(name), b"")
        again, _ = tensorrt_plan.build(tensorrt, Path(name), timings)
        told.append([len(plan), len(again), len(timings)])
    except WorkerError as error:
        told.append(str(error))
print(json.dumps(told))
"""
Build = Callable[..., list[Any]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Files -> of each, the sizes of plan, plan by known timings, and timings; or what was refused."""
    wheel = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if wheel is None or not wheel.submodule_search_locations or shutil.which("cc") is None:
        pytest.skip("needs a C compiler and the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13")
    folder = tmp_path / "libraries"
    folder.mkdir()
    for name, pattern in LIBRARIES.items():
        (folder / name).symlink_to(next(Path(wheel.submodule_search_locations[0]).glob(pattern)))
    stand_in(folder / "libnvinfer_plugin.so.11")

    def run(*sources: Path) -> list[Any]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        command = [sys.executable, "-c", _RUN, *map(str, sources)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        told: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    return run


def test_the_real_builder_makes_plans_of_what_is_exported(build: Build, tmp_path: Path) -> None:
    import transformers

    t: Any = transformers
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    siglip, clip = (
        t.SiglipVisionModel(t.SiglipVisionConfig(**small)),
        t.CLIPVisionModel(t.CLIPVisionConfig(**small)),
    )
    sources: list[Path] = []
    for tower, half in ((siglip, False), (siglip, True), (clip, False)):
        sources.append(tmp_path / f"{len(sources)}.onnx")
        export.exported(export.pooled(tower), 32, sources[-1], half=half)
    made = build(*sources)
    assert all(plan > 10_000 and again > 10_000 and timings for plan, again, timings in made)


@pytest.mark.models
@pytest.mark.timeout(400)
def test_the_real_builder_makes_a_plan_of_the_encoder_of_sessions(build: Build) -> None:
    folder = Models().dir / "models" / See().tagger
    tagger.Tagger(folder)  # writes its ONNX file where there is none
    ((plan, again, timings),) = build(tagger.source_of(folder / tagger.MODEL).onnx)
    assert plan > 5_000_000 and again > 5_000_000 and timings


def test_what_the_real_parser_cannot_read_is_named(build: Build, tmp_path: Path) -> None:
    model = onnx.load(str(save_onnx(tmp_path / "good.onnx")))
    model.graph.node[1].op_type, model.graph.node[1].name = "Frobnicate", "middle"
    onnx.save(model, str(tmp_path / "bad.onnx"))
    good, bad = build(tmp_path / "good.onnx", tmp_path / "bad.onnx")
    assert good[0]
    assert "bad.onnx" in bad and "Frobnicate" in bad and "middle" in bad and "plan_failed" in bad
