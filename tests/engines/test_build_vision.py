"""A graph is built once, whole or not at all, and again when its source or the recipe changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from engines.build_vision import GRAPH, compiled
from streamsvc.core.errors import ModelMissing


def save_openvino(path: Path, factor: float) -> Path:
    given = ops.parameter([-1, 3], np.float32)
    model = openvino.Model([ops.multiply(given, ops.constant(np.float32(factor)))], [given])
    openvino.save_model(model, str(path.with_suffix(".xml")), compress_to_fp16=False)
    return path.with_suffix(".xml")


def run(model: Any) -> list[float]:
    result: list[float] = model(np.ones((1, 3), np.float32))[0].reshape(-1).tolist()
    return result


def test_a_graph_is_built_once_until_its_source_changes(tmp_path: Path) -> None:
    source = save_openvino(tmp_path / "m", 2.0)
    shaped = []

    def shape(graph: Any) -> None:
        shaped.append(1)
        graph.reshape([1, 3])

    assert run(compiled(source, shape)) == [2.0, 2.0, 2.0]
    assert run(compiled(source, shape)) == [2.0, 2.0, 2.0]
    assert len(shaped) == 1
    save_openvino(tmp_path / "m", 2.0)  # the same content
    source.write_text(source.read_text() + "\n<!-- another version -->\n")
    assert run(compiled(source, shape)) == [2.0, 2.0, 2.0]
    assert len(shaped) == 2
    assert run(compiled(source, shape, "another recipe")) == [2.0, 2.0, 2.0]
    assert len(shaped) == 3
    assert len(list(tmp_path.glob(f"openvino-*/{GRAPH}"))) == 1, "the old one is gone"
    assert not list(tmp_path.glob(".building-*"))


def test_a_damaged_graph_is_built_again(tmp_path: Path) -> None:
    source = save_openvino(tmp_path / "m", 2.0)
    compiled(source, lambda graph: graph.reshape([1, 3]))
    (weights,) = tmp_path.glob("openvino-*/graph.bin")
    weights.write_bytes(bytes(weights.stat().st_size))
    assert run(compiled(source, lambda graph: graph.reshape([1, 3]))) == [2.0, 2.0, 2.0]
    assert any(weights.read_bytes())


def test_a_file_that_is_not_a_model_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("no model")
    with pytest.raises(ModelMissing, match="models pull"):
        compiled(broken, lambda graph: None)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.xml"]
