"""The runtime of an encoder is measured once a machine, and one with other vectors is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from engines import encoder, tensorrt_plan
from engines.build_vision import compiled
from engines.encoder import Choice, Source
from streamsvc.core.errors import ModelMissing, WorkerError
from tests.builders.onnx_model import save_onnx
from tests.engines.tensorrt_double import Double, Torch


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(save_onnx(tmp_path / "model.onnx"), 4)


@pytest.fixture
def pixels() -> encoder.Pixels:
    return np.random.default_rng(1).random((5, 3, 4, 4), dtype=np.float32)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was timed; every runtime is as fast as any."""
    found: list[str] = []

    def timed(encode: encoder.Encode, pixels: encoder.Pixels, times: int) -> tuple[float, float]:
        found.append("timed")
        return 1.0, 1.0

    monkeypatch.setattr(encoder, "timed", timed)
    return found


def wrong(source: Source) -> encoder.Encode:
    """A runtime that computes something else."""
    return lambda pixels: np.random.default_rng(0).standard_normal((len(pixels), 3), dtype=np.float32)


def using(monkeypatch: pytest.MonkeyPatch, **runtimes: Callable[[Source], encoder.Encode]) -> None:
    monkeypatch.setattr(encoder, "RUNTIMES", {"onnxruntime": encoder.onnxruntime, **runtimes})


def test_the_runtimes_agree_and_the_cheaper_one_is_stored_for_this_machine(
    source: Source, pixels: encoder.Pixels, runs: list[str]
) -> None:
    loaded = encoder.load(source)
    assert set(loaded.choice.ms) == {"openvino", "onnxruntime"}
    assert loaded.choice.refused == {}
    np.testing.assert_allclose(loaded.encode(pixels), pixels.mean((2, 3)) * 2, rtol=2e-2)
    runs.clear()
    assert encoder.load(source).choice == encoder.stored(source) == loaded.choice
    assert runs == []


def test_the_runtime_that_takes_the_least_processor_time_is_chosen(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = iter([3.0, 2.0])
    monkeypatch.setattr(encoder, "timed", lambda encode, pixels, times: (1.0, next(costs)))
    using(monkeypatch, openvino=encoder.openvino)
    assert encoder.measured(source) == Choice("openvino", {"onnxruntime": 375.0, "openvino": 250.0})


@pytest.mark.parametrize("changed", ["model", "openvino", "cpu", "gpu", "recipe", "harm"])
def test_the_choice_is_made_again_when_anything_differs(
    source: Source, changed: str, monkeypatch: pytest.MonkeyPatch, runs: list[str]
) -> None:
    encoder.load(source)
    runs.clear()
    if changed == "model":
        save_onnx(source.onnx, factor=3.0)
    elif changed == "openvino":
        monkeypatch.setattr(openvino, "__version__", "2099.1")
    elif changed in ("cpu", "gpu"):
        monkeypatch.setattr(encoder, {"cpu": "_flags", "gpu": "_gpu"}[changed], lambda: "another")
    elif changed == "recipe":
        monkeypatch.setattr(encoder, "RECIPE", "other")
    else:
        source.onnx.with_suffix(".runtime.json").write_text('{"key"')
    assert encoder.stored(source) is None
    encoder.load(source)
    assert runs == ["timed", "timed"]


def test_a_fast_runtime_with_other_vectors_is_refused_and_said(
    source: Source, pixels: encoder.Pixels, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    using(monkeypatch, openvino=wrong)
    loaded = encoder.load(source)
    assert loaded.choice.runtime == "onnxruntime"
    assert str(loaded.choice).startswith("onnxruntime; openvino refused: cosine -")
    np.testing.assert_allclose(loaded.encode(pixels), pixels.mean((2, 3)) * 2, rtol=1e-5)
    assert json.loads(source.onnx.with_suffix(".runtime.json").read_text())["runtime"] == "onnxruntime"


def test_a_runtime_that_fails_is_refused_with_its_reason(
    source: Source, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Source) -> encoder.Encode:
        raise WorkerError("no plan", code="plan_failed")

    def breaks(source: Source) -> encoder.Encode:
        raise RuntimeError("of a library")

    def absent(source: Source) -> encoder.Encode:
        raise ModelMissing("not here")

    using(monkeypatch, tensorrt=fails, openvino=breaks, other=absent)
    choice = encoder.measured(source)
    assert choice.runtime == "onnxruntime"
    assert choice.refused == {"tensorrt": "plan_failed", "openvino": "RuntimeError"}


def test_without_any_right_vector_nothing_is_served_or_stored(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.full((encoder.TRIAL_BATCH, 3), np.nan, np.float32)
    monkeypatch.setattr(encoder, "onnxruntime", lambda source: lambda pixels: nothing)
    with pytest.raises(WorkerError) as caught:
        encoder.load(source)
    assert caught.value.code == "no_runtime"
    assert not source.onnx.with_suffix(".runtime.json").exists()


def test_a_stored_runtime_that_can_no_longer_be_had_is_measured_again(
    source: Source, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: Source) -> encoder.Encode:
        raise RuntimeError("out of memory")

    using(monkeypatch, openvino=encoder.openvino)
    monkeypatch.setattr(encoder, "measured", lambda source: Choice("openvino"))
    encoder.load(source)
    monkeypatch.undo()
    using(monkeypatch, openvino=broken)
    loaded = encoder.load(source)
    assert loaded.choice.runtime == "onnxruntime"
    assert loaded.choice.refused == {"openvino": "RuntimeError"}


def test_where_the_choice_cannot_be_stored_the_encoder_serves_all_the_same(
    source: Source, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_path", lambda source: source.onnx.parent / "absent" / "choice.json")
    assert encoder.load(source).choice.runtime in ("openvino", "onnxruntime")
    assert [path.name for path in source.onnx.parent.glob("*.json*")] == []


# --- TensorRT, by the fake bindings ---


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Double:
    machine: Any = Torch()
    machine.from_numpy = torch.from_numpy
    double = Double()
    monkeypatch.setattr(tensorrt_plan, "bindings", lambda: (double, machine))
    return double


def test_with_a_gpu_and_tensorrt_the_plan_serves(
    source: Source, pixels: encoder.Pixels, gpu: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = iter([3.0, 2.0, 1.0])  # the plan's host thread waits by spinning
    monkeypatch.setattr(encoder, "timed", lambda encode, pixels, times: (1.0, next(costs)))
    loaded = encoder.load(source)
    assert loaded.choice.runtime == "tensorrt"
    assert set(loaded.choice.ms) == {"tensorrt", "openvino", "onnxruntime"}
    np.testing.assert_allclose(loaded.encode(pixels), pixels.mean((2, 3)) * 2, rtol=1e-5)
    assert list(source.onnx.parent.glob("tensorrt-*/plan"))


def test_a_plan_with_wrong_vectors_does_not_serve(
    source: Source, pixels: encoder.Pixels, runs: list[str], gpu: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = encoder.tensorrt(source)
    using(monkeypatch, tensorrt=lambda source: lambda pixels: right(-pixels[::-1]))
    loaded = encoder.load(source)
    assert loaded.choice.runtime == "onnxruntime"
    assert loaded.choice.refused["tensorrt"].startswith("cosine ")
    np.testing.assert_allclose(loaded.encode(pixels), pixels.mean((2, 3)) * 2, rtol=1e-5)


@pytest.mark.parametrize("at", ["parse", "profile", "build"])
def test_where_no_plan_can_be_built_the_processor_serves(
    source: Source, runs: list[str], gpu: Double, at: str
) -> None:
    gpu.refuses = at
    choice = encoder.load(source).choice
    assert choice.runtime in ("openvino", "onnxruntime")
    assert choice.refused == {"tensorrt": "plan_failed"}


# --- batches ---


def test_pictures_in_bytes_are_taken_too(source: Source) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    loaded = encoder.Encoder(encoder.onnxruntime(source), Choice("onnxruntime"), 4)
    np.testing.assert_allclose(loaded.encode(pixels), pixels.mean((2, 3)) * 2, rtol=1e-5)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 3, 4, 4), np.float32),
        np.zeros((encoder.MAX_BATCH + 1, 3, 4, 4), np.float32),
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((3, 4, 4), np.float32),
        np.zeros((1, 3, 4, 4), np.float64),
    ],
)
def test_other_batches_are_refused(source: Source, pixels: Any) -> None:
    loaded = encoder.Encoder(encoder.onnxruntime(source), Choice("onnxruntime"), 4)
    with pytest.raises(WorkerError, match="not a batch") as caught:
        loaded.encode(pixels)
    assert caught.value.code == "bad_batch"


def test_a_graph_that_was_published_in_eight_bits_is_a_runtime_of_its_own(source: Source) -> None:
    with pytest.raises(ModelMissing):
        encoder.openvino_int8(source)
    shaped: list[Any] = []
    published = Source(source.onnx, 4, published=source.onnx, shape=shaped.append)
    made = encoder.openvino_int8(published)(np.ones((1, 3, 4, 4), np.float32))
    assert made.tolist() == [[2.0, 2.0, 2.0]]
    assert len(shaped) == 1
    assert compiled(source.onnx, lambda graph: None)


# --- measuring ---


def test_pictures_of_the_trial_differ_and_reach_the_range(tmp_path: Path) -> None:
    made = encoder.trial(Source(tmp_path / "none.onnx", 32, low=0.0, high=255.0), 3)
    assert made.shape == (3, 3, 32, 32)
    assert made.dtype == np.float32
    assert 0.0 <= made.min() < 64.0
    assert 192.0 < made.max() <= 255.0
    assert not np.array_equal(made[0], made[1])


def test_the_time_of_a_batch_is_the_least_of_several_and_the_first_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, cpu = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0]), iter([0.0, 4.0, 4.0, 7.0, 7.0, 8.0])
    calls: list[int] = []
    clocks = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
    monkeypatch.setattr(encoder, "time", clocks)

    def encode(pixels: encoder.Pixels) -> Any:
        calls.append(len(pixels))
        return pixels

    assert encoder.timed(encode, np.zeros((2, 3, 4, 4), np.float32), 3) == (2.0, 1.0)
    assert calls == [2, 2, 2, 2]


def test_the_least_cosine_is_of_rows_in_the_same_place() -> None:
    one = np.array([[1, 0], [0, 2]], np.float32)
    assert encoder.cosine(one, one) == pytest.approx(1.0)
    assert encoder.cosine(one, one[::-1]) == 0.0
    assert encoder.cosine(one, one * np.nan) == -1.0
    assert encoder.cosine(one, one[:1]) == -1.0
