"""The builder's path on the real thing: the bindings of TensorRT 11 over the library of TensorRT for RTX, which builds without a GPU.

That library (1.7, a wheel of the registry) exports what TensorRT's own do, parser and builder included. Its plans run on RTX cards alone;
what is shown here is that the calls are right, that a TensorRT parser takes our files whole, and what a refusal says.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines import export  # noqa: E402
from tests.engines.tensorrt_double import stand_in  # noqa: E402
from tests.engines.test_tensorrt_plan import a_model  # noqa: E402

LIBRARIES = {"libnvinfer.so.11": "libtensorrt_rtx.so.1.*", "libnvonnxparser.so.11": "libtensorrt_onnxparser_rtx.so.1.*"}
_RUN = """
import json, sys
from pathlib import Path
import tensorrt_bindings.tensorrt as tensorrt
from engines import tensorrt_plan
from streamsvc.errors import WorkerError
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
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
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
    siglip, clip = t.SiglipVisionModel(t.SiglipVisionConfig(**small)), t.CLIPVisionModel(t.CLIPVisionConfig(**small))
    sources: list[Path] = []
    for tower, half in ((siglip, False), (siglip, True), (clip, False)):
        sources.append(tmp_path / f"{len(sources)}.onnx")
        export.exported(export.pooled(tower), 32, sources[-1], half=half)
    made = build(*sources)
    assert all(plan > 10_000 and again > 10_000 and timings for plan, again, timings in made)


def test_what_the_real_parser_cannot_read_is_named(build: Build, tmp_path: Path) -> None:
    model = onnx.load(str(a_model(tmp_path / "good.onnx")))
    model.graph.node[1].op_type, model.graph.node[1].name = "Frobnicate", "middle"
    onnx.save(model, str(tmp_path / "bad.onnx"))
    good, bad = build(tmp_path / "good.onnx", tmp_path / "bad.onnx")
    assert good[0]
    assert "bad.onnx" in bad and "Frobnicate" in bad and "middle" in bad and "plan_failed" in bad
