"""Ages and coverage are counted by kind, and what a model makes in the background apart."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.types import Answer, Delta, Event, Gap, Speech, Word, Words
from streamsvc.core.units import Reply
from streamsvc.service.latency_report import LatencyReport


def published(kind: str, age: float, **body: object) -> Event:
    return Event("0.a", "main", "e", "e.1", kind, 1.0, age, {}, body, 1)


def speech(at: float, *, active: bool) -> Speech:
    return Speech("0.a", "main", at, 5.0, active)


def test_ages_are_told_in_milliseconds_with_coverage() -> None:
    report = LatencyReport()
    assert report.body(0.0, 0)["coverage"] is None
    report.note_unit(speech(0.0, active=True))
    for number, age in enumerate((100.0, 200.0, 300.0)):
        report.note_event(published("caption.final", age, start=number * 3.0, end=number * 3.0 + 3.0))
    report.note_unit(Gap("0.a", "main", 9.0, 5.0, 9.0, 10.0, "overload"))
    body = report.body(2.0, 3)
    assert body["ages"]["final"] == {"p50": 200, "p95": 290, "count": 3}
    assert body["coverage"] == 0.9
    assert body["speech"] == {"captioned_seconds": 9.0, "missing_seconds": 0.0, "gap_seconds": 1.0}
    assert body["backlog"] == 2.0
    assert body["level"] == 3


def test_scene_captions_of_a_model_age_apart_from_those_by_rule() -> None:
    report = LatencyReport()
    for by, age in (("rule", 100.0), ("model", 2500.0)):
        report.note_event(published("scene.caption", age, by=by))
    assert {kind: ages["p95"] for kind, ages in report.body(0.0, 0)["ages"].items()} == {
        "scene": 100,
        "scene_model": 2500,
    }


def observed(kind: str) -> float:
    name = "streamsvc_caption_age_seconds_count"
    return float(metrics.REGISTRY.get_sample_value(name, {"kind": kind}) or 0.0)


def test_the_metric_counts_scene_captions_of_a_model_under_a_kind_of_their_own() -> None:
    before = observed("scene"), observed("scene_model")
    report = LatencyReport()
    for by in ("rule", "model", "model"):
        report.note_event(published("scene.caption", 100.0, by=by))
    assert (observed("scene") - before[0], observed("scene_model") - before[1]) == (1, 2)


def test_a_translation_is_in_the_report_and_not_in_the_metric() -> None:
    report = LatencyReport()
    report.note_event(published("caption.translation", 100.0))
    assert report.body(0.0, 0)["ages"]["translation"]["count"] == 1
    assert observed("translation") == 0.0


def test_stable_words_and_the_first_and_last_part_of_an_answer_have_ages(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        before = observed("answer")
        report = LatencyReport()
        began = clock.now()
        await clock.sleep(0.5)
        words = (Word("la", 0.0, 0.4),)
        report.note_unit(Words("0.a", "main", 0.0, began, words, 1, final=False))
        for part, first in (
            (Delta("q", "Yes"), True),
            (Delta("q", "."), False),
            (Answer("q", "Yes.", True), False),
        ):
            report.note_unit(Reply("q", 0.0, began, part, None, first))
        ages = report.body(0.0, 0)["ages"]
        assert {kind: (age["p50"], age["count"]) for kind, age in ages.items()} == {
            "stable": (pytest.approx(500, abs=1), 1),
            "first_delta": (pytest.approx(500, abs=1), 1),
            "answer": (pytest.approx(500, abs=1), 1),
        }
        assert observed("answer") - before == 1

    virtual.run(main())


def settled(outcome: str) -> float:
    name = "streamsvc_speech_seconds_total"
    return float(metrics.REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0)


def test_speech_without_a_caption_is_missing_and_the_metric_has_it_once() -> None:
    before = {outcome: settled(outcome) for outcome in ("captioned", "missing", "gap")}
    report = LatencyReport()
    report.note_unit(speech(0.0, active=True))
    report.note_event(published("caption.final", 100.0, start=0.0, end=3.5))
    report.note_unit(speech(10.0, active=False))
    assert report.body(0.0, 0)["coverage"] == 0.4
    for ended in (False, True, True):
        report.count_coverage(ended=ended)
    assert {outcome: settled(outcome) - before[outcome] for outcome in before} == {
        "captioned": pytest.approx(4.0),
        "missing": pytest.approx(6.0),
        "gap": 0.0,
    }
    assert report.body(0.0, 0)["coverage"] == 0.4
