"""The exported tower matches its source for any number and shape of pictures; other graphs are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")
onnx = pytest.importorskip("onnx", reason="needs the extra `gpu`")

from engines import export_vlm  # noqa: E402
from engines.export import OPSET  # noqa: E402
from engines.export_vlm import TOLERANCE, exported, parity  # noqa: E402
from engines.vlm_tower import run, session  # noqa: E402
from streamsvc.core.errors import ModelMissing  # noqa: E402
from tests.engines.tiny_vlm import Bench, picture  # noqa: E402


@pytest.fixture(scope="module", params=["qwen2_5_vl", "smolvlm"])
def bench(request: pytest.FixtureRequest, tiny_vlm: Callable[[str], Path]) -> Bench:
    return Bench(tiny_vlm(request.param))


def test_the_graph_is_dynamic_and_of_the_stated_opset_and_has_its_sources_numbers(bench: Bench) -> None:
    graph = onnx.load(str(bench.graph))
    onnx.checker.check_model(graph, full_check=True)
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == OPSET
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert parity(bench.graph, bench.tower) < TOLERANCE
    for shape in ((40, 88), (24, 24)):  # none that the export has seen
        one = [picture(7, *shape)]
        (theirs, *_), (ours,) = (
            bench.tower.encode(one)[0],
            run(session(bench.graph), bench.tower.inputs(one), bench.tower.merge),
        )
        assert np.abs(np.asarray(theirs) - ours).max() < 1e-4


def test_it_is_made_once_and_anew_when_the_weights_change(
    tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    made = Bench(tiny_vlm("smolvlm")).graph
    bench = Bench(shutil.copytree(made.parent, tmp_path / "copy"))
    first = exported(bench.model, bench.tower, bench.folder)
    assert first.read_bytes() == made.read_bytes()
    assert first.stat().st_mtime_ns == made.stat().st_mtime_ns  # it was there
    first.write_bytes(bytes(4096))
    exported(bench.model, bench.tower, bench.folder)
    assert first.read_bytes() == made.read_bytes()  # a damaged graph is made again
    next(bench.model.model.vision_model.parameters()).data[0] += 0.5
    assert parity(first, bench.tower) > TOLERANCE  # the old graph is not this tower
    second = exported(bench.model, bench.tower, bench.folder)
    assert second != first
    assert not first.exists()
    assert parity(second, bench.tower) < TOLERANCE


def test_a_graph_that_differs_from_its_source_is_refused_and_not_left_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_vlm, "parity", lambda *_: float("nan"))
    monkeypatch.setattr(export_vlm, "_write", lambda *arguments: arguments[-1].write_bytes(b"graph"))
    monkeypatch.setattr(export_vlm, "RECIPE", "other")
    before = sorted(bench.folder.iterdir())
    with pytest.raises(ModelMissing, match="differs"):
        exported(bench.model, bench.tower, bench.folder)
    assert sorted(bench.folder.iterdir()) == before


def test_a_class_that_is_not_known_is_refused(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_vlm, "_PARTS", {})
    with pytest.raises(ModelMissing, match="cannot be exported"):
        exported(bench.model, bench.tower, tmp_path)
