"""Memory, disk and answers of a long session: what is measured, and which limits are exceeded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load_tests.long_session_figures import (
    SERVING,
    Result,
    Sample,
    anonymous_mb,
    growth,
    sample,
    slope,
    stored_bytes,
    table,
    verdict,
)
from streamsvc.core.malloc import trim


def rows(*verdicts: str) -> list[dict[str, Any]]:
    return [
        {"id": f"q{number}", "verdict": each, "text": "", "seconds": 0.1}
        for number, each in enumerate(verdicts)
    ]


def weights(grown: float, disk: float, model: float = 0.0, minutes: int = 60) -> list[Sample]:
    """Memory that settles for ten minutes, then grows by so many MB an hour; and so many MB of disk."""
    late = [max(0, minute - 10) / 60 for minute in range(minutes + 1)]
    return [
        Sample(
            float(minute),
            100.0 + 10 * min(minute, 10) + grown * more,
            {"asr": 300.0 + model * more},
            disk * minute / 60,
        )
        for minute, more in enumerate(late)
    ]


def test_the_slope_is_fitted_from_the_given_minute_on() -> None:
    points = [(one.minute, one.serving) for one in weights(1.5, 0.0)]
    assert slope(points, 10.0) == pytest.approx(1.5)
    assert (slope(points, 0.0) or 0.0) > 10
    assert slope(points[:11], 9.0) is None


def test_a_process_that_started_later_is_measured_from_then_on() -> None:
    late = [Sample(float(minute), 100.0, {"llm": 200.0} if minute > 20 else {}, 0.0) for minute in range(60)]
    assert growth(Result(weights=late), "llm", 10.0) == pytest.approx(0.0)
    assert growth(Result(weights=late), SERVING, 10.0) == pytest.approx(0.0)


def test_the_serving_process_and_workers_are_measured_separately(tmp_path: Path) -> None:
    (tmp_path / "session.db").write_bytes(b"x" * 2_000_000)
    measured = sample(1.0, {"asr": os.getpid(), "not begun": None}, tmp_path)
    assert measured.models == {"asr": pytest.approx(measured.serving, rel=0.2)}
    assert measured.disk == 2.0


def test_anonymous_memory_is_measured_and_mapped_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "library").write_bytes(b"x" * 50_000_000)
    trim()  # else what is taken may come from what other tests have freed
    before = anonymous_mb(os.getpid())
    mapped = np.memmap(tmp_path / "library", mode="r")
    assert mapped.sum() == 50_000_000 * ord("x")
    assert anonymous_mb(os.getpid()) < before + 10
    taken = np.ones(50_000_000, np.uint8)
    assert anonymous_mb(os.getpid()) > before + 40
    assert len(taken) == len(mapped)


def test_an_hour_within_its_limits_exceeds_none() -> None:
    result = Result(
        60.0,
        weights(1.5, 40.0, 0.5),
        rows("right", "right", "declined"),
        rows("right", "right", "declined"),
        {"sentences": 700},
        known=20.0,
    )
    assert verdict(result) == []
    report = table(result)
    assert "2 of 3" in report
    assert report.count("+1.5 MB an hour") == 2
    assert report.count("+0.5 MB an hour") == 2
    assert "40.0 MB an hour" in report
    assert "700 sentences" in report
    assert "then" not in report


def test_growth_of_memory_and_disk_and_lost_answers_exceed_the_limits() -> None:
    early, late = rows("right", "right", "right"), rows("right", "wrong", "declined")
    wrong = verdict(Result(60.0, weights(9.0, 150.0, 7.0), early, late))
    assert len(wrong) == 4
    assert "3 questions were answered right when just heard, 1 at the end" in wrong[0]
    assert "the memory of serving grew by 9.0 MB" in wrong[1]
    assert "the memory of asr grew by 7.0 MB" in wrong[2]
    assert "150 MB" in wrong[3]
    assert "- q1: right, then wrong" in table(Result(60.0, weights(9.0, 150.0), early, late))


def test_stored_bytes_include_subfolders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "session.db").write_bytes(b"x" * 100)
    (tmp_path / "other").write_bytes(b"x" * 10)
    assert stored_bytes(tmp_path) == 110
