"""Stages never overlap, and add up to the age whatever was marked."""

from __future__ import annotations

import pytest

from streamsvc.core.latency import WorkLog, seconds_by_stage


@pytest.mark.parametrize(
    ("marks", "stages"),
    [
        ((), {"publish": 1.0}),
        ((("wait", 10.4), ("asr", 10.9)), {"wait": 0.4, "asr": 0.5, "publish": 0.1}),
        ((("wait", 9.0), ("vad", 9.5), ("wait", 10.6), ("asr", 11.0)), {"wait": 0.6, "asr": 0.4}),
        ((("asr", 10.2), ("wait", 10.7), ("asr", 11.0)), {"asr": 0.5, "wait": 0.5}),
        ((("asr", 10.6), ("vad", 10.2), ("asr", 12.0)), {"asr": 1.0}),
    ],
    ids=[
        "no marks",
        "plain",
        "older work is other evidence's",
        "a stage twice",
        "out of order, in the future",
    ],
)
def test_the_stages_are_the_age(marks: tuple[tuple[str, float], ...], stages: dict[str, float]) -> None:
    found = seconds_by_stage(marks, 10.0, 11.0)
    assert found == pytest.approx(stages)
    assert sum(found.values()) == pytest.approx(1.0)


def test_what_arrives_after_its_publication_has_no_stages() -> None:
    assert seconds_by_stage((("asr", 10.0),), 11.0, 10.5) == {}


def test_a_work_log_names_work_and_the_waits_between_and_forgets_the_oldest() -> None:
    work = WorkLog()
    for second in range(500):
        work.add("vad", second + 0.5, second + 0.6)
    assert work.since(498.0) == (("wait", 498.5), ("vad", 498.6), ("wait", 499.5), ("vad", 499.6))
    oldest = work.since(0.0)
    assert len(oldest) == 256
    assert oldest[0] == ("wait", 372.5), "what was forgotten counts as waiting"
