"""A graph is built once, whole or not at all, and again when its source changes.

The runtime of an ONNX file is chosen by measuring.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engines import build_vision, tensorrt_plan
from engines.build_vision import GRAPH, compiled
from streamsvc.core.errors import ModelMissing, WorkerError
from tests.builders.onnx_model import save_onnx
from tests.engines.tensorrt_double import Double, Torch


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


# --- ONNX files ---------------------------------------------------------------------------------------------


class Stopwatch:
    """Counts what is timed, and finds all alike."""

    def __init__(self) -> None:
        self.used = 0

    def __call__(
        self, encode: build_vision.Encode, pixels: build_vision.Pixels, times: int
    ) -> tuple[float, float]:
        self.used += 1
        return 1.0, 1.0


def nothing(pixels: build_vision.Pixels) -> Any:
    return np.full((len(pixels), 3), np.nan, np.float32)


def test_the_runtimes_agree_and_the_faster_one_is_stored_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_onnx(tmp_path / "model.onnx")
    pixels = np.random.default_rng(1).random((5, 3, 4, 4), dtype=np.float32)
    encode, choice = build_vision.encoder(source)
    assert set(choice.ms) == {"openvino", "onnxruntime"}
    assert choice.ms[choice.runtime] == min(choice.ms.values())
    np.testing.assert_allclose(encode(pixels), pixels.mean((2, 3)) * 2, rtol=2e-2)
    watch = Stopwatch()
    monkeypatch.setattr(build_vision, "timed", watch)
    assert build_vision.encoder(source)[1] == choice
    assert watch.used == 0


@pytest.mark.parametrize("changed", ["model", "openvino", "cpu", "harm"])
def test_the_choice_is_made_again_when_anything_differs(
    tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_onnx(tmp_path / "model.onnx")
    build_vision.encoder(source)
    if changed == "model":
        save_onnx(source, factor=3.0)
    elif changed == "openvino":
        monkeypatch.setattr(openvino, "__version__", "2099.1")
    elif changed == "cpu":
        monkeypatch.setattr(build_vision, "_flags", lambda: "another")
    else:
        source.with_suffix(".runtime.json").write_text('{"key"')
    watch = Stopwatch()
    monkeypatch.setattr(build_vision, "timed", watch)
    build_vision.encoder(source)
    assert watch.used == 2


def test_a_fast_runtime_with_different_results_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_onnx(tmp_path / "model.onnx")
    monkeypatch.setattr(
        build_vision,
        "RUNTIMES",
        {"openvino": lambda source: nothing, "onnxruntime": build_vision.onnxruntime},
    )
    assert build_vision.encoder(source)[1].runtime == "onnxruntime"
    monkeypatch.setattr(build_vision, "RUNTIMES", {"onnxruntime": lambda source: nothing})
    with pytest.raises(WorkerError) as caught:
        build_vision.encoder(save_onnx(tmp_path / "other.onnx"))
    assert caught.value.code == "no_runtime"
    assert not (tmp_path / "other.runtime.json").exists()


def test_with_a_gpu_and_tensorrt_the_plan_is_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine: Any = Torch()
    machine.from_numpy = torch.from_numpy
    monkeypatch.setattr(tensorrt_plan, "bindings", lambda: (Double(), machine))
    encode, choice = build_vision.encoder(save_onnx(tmp_path / "model.onnx"))
    pixels = np.random.default_rng(1).random((5, 3, 4, 4), dtype=np.float32)
    assert choice.runtime == "tensorrt"
    np.testing.assert_allclose(encode(pixels), pixels.mean((2, 3)) * 2, rtol=1e-5)
    assert list(tmp_path.glob("tensorrt-*/plan"))


def test_the_time_of_a_batch_is_the_least_of_several_and_the_first_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, cpu = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0]), iter([0.0, 4.0, 4.0, 7.0, 7.0, 8.0])
    calls: list[int] = []
    monkeypatch.setattr(
        build_vision, "time", SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
    )

    def encode(pixels: build_vision.Pixels) -> Any:
        calls.append(len(pixels))
        return pixels

    assert build_vision.timed(encode, np.zeros((2, 3, 4, 4), np.float32), 3) == (2.0, 1.0)
    assert calls == [2, 2, 2, 2]


def test_the_least_cosine_is_of_rows_in_the_same_place() -> None:
    one = np.array([[1, 0], [0, 2]], np.float32)
    assert build_vision.cosine(one, one) == pytest.approx(1.0)
    assert build_vision.cosine(one, one[::-1]) == 0.0
    assert build_vision.cosine(one, one * np.nan) == -1.0
