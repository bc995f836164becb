"""The vision benchmark: figures match their names, and runtimes that were not run say why."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from engines import bench_vision, encoder, tagger
from engines.bench_vision import Report, Row, as_json, measured, plot, share, table
from streamsvc.core.config import Models, See
from streamsvc.core.errors import ModelMissing

MODELS = Models().dir / "models"
ROWS = (
    Row("onnxruntime", 1, 20.0, 19.0, 20.0, 1.0),
    Row("onnxruntime", 8, 10.0, 9.0, 80.0, 1.0),
    Row("openvino", 1, 4.0, 3.0, 4.0, 0.9991),
    Row("openvino", 8, 2.0, 1.5, 16.0, 0.9985),
    Row("tensorrt", 1, why="no GPU"),
    Row("tensorrt", 8, why="no GPU"),
)
REPORT = Report("a model", "openvino", ROWS, 0.0624)


def test_the_table_has_a_line_for_each_batch_and_one_for_what_was_not_run() -> None:
    lines = table(REPORT).splitlines()
    assert "openvino              8      2.00      1.50     500.0      16.0   0.99850" in lines
    assert [line for line in lines if "tensorrt" in line] == ["tensorrt      not run: no GPU"]
    assert lines[-1].startswith("a session at one keyframe a second: 6.2% of one core")


def test_json_has_figures_or_a_reason_and_never_both() -> None:
    told = as_json(REPORT)
    assert told["rows"][3] == {
        "runtime": "openvino",
        "batch": 8,
        "ms": 2.0,
        "cpu_ms": 1.5,
        "latency_ms": 16.0,
        "frames_per_second": 500.0,
        "cosine": 0.9985,
    }
    assert told["rows"][-1] == {"runtime": "tensorrt", "batch": 8, "why": "no GPU"}
    assert (told["chosen"], told["share"]) == ("openvino", 0.0624)


def test_the_plot_draws_a_line_for_each_runtime_that_ran_in_both_panels() -> None:
    root = ElementTree.fromstring(plot(REPORT))
    lines = [element.attrib["points"].split() for element in root if element.tag.endswith("polyline")]
    assert [len(line) for line in lines] == [2, 2, 2, 2]
    heights = [[float(point.split(",")[1]) for point in line] for line in lines]
    top, bottom = 40.0, 280.0
    assert heights[1] == [pytest.approx(bottom - 240 * 250 / 500), pytest.approx(top)], (
        "the most frames a second, OpenVINO at 8, are at the top"
    )
    assert heights[2][1] == pytest.approx(top), "and the longest batch, ONNX Runtime at 8"
    words = {element.text for element in root if element.tag.endswith("text")}
    assert {"onnxruntime", "openvino", "batch 1", "batch 8"} <= words
    assert "tensorrt" not in words


def test_names_are_escaped_in_the_plot() -> None:
    ElementTree.fromstring(plot(Report("a <b> & c", "", ROWS, 0.0)))


def test_without_the_weights_it_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="models pull"):
        measured(tmp_path, {}, lambda line: None)


@pytest.mark.models
@pytest.mark.timeout(400)  # the first run makes the ONNX file
def test_every_runtime_is_measured_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_vision, "TIMES", 1)
    monkeypatch.setattr(bench_vision, "LOOKS", 2)
    heard: list[str] = []
    report = measured(MODELS, {"models": str(MODELS), **See().model_dump()}, heard.append, batches=(1, 2))
    assert [(row.runtime, row.batch) for row in report.rows] == [
        (name, batch) for name in ("tensorrt", "openvino int8", "openvino", "onnxruntime") for batch in (1, 2)
    ]
    assert all(
        row.ms > 0 and row.latency_ms == pytest.approx(row.ms * row.batch)
        for row in report.rows
        if not row.why
    )
    assert all(
        ("CUDA GPU" in row.why) != torch.cuda.is_available()
        for row in report.rows
        if row.runtime == "tensorrt"
    )
    assert all(row.cosine >= encoder.MIN_COSINE for row in report.rows if not row.why)
    assert report.chosen == str(tagger.choice_of(MODELS, See().tagger))
    assert 0.005 < report.share < 1.0
    assert heard[-1] == "timing the op look"


@pytest.mark.models
def test_a_failed_look_is_an_error_and_not_a_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from streamsvc.core.errors import WorkerError

    monkeypatch.setattr(bench_vision, "jpeg", lambda random: np.frombuffer(b"no picture", np.uint8))
    with pytest.raises(WorkerError):
        share({"models": str(MODELS), **See().model_dump()})
