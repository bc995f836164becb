"""Overload figures: of all sessions together, over time, and the saving of each level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from load_tests import overload
from load_tests.overload import asking, plot, savings, summary, table
from streamsvc.evaluation.scenario import Scenario
from streamsvc.evaluation.session_run import SessionRun


def final(received: float, age: float) -> dict[str, Any]:
    words = [{"text": "la", "start": received - 1.0, "end": received - 0.5, "probability": 1.0}]
    return {
        "type": "caption.final",
        "received": received,
        "age_ms": age * 1000,
        "text": "la",
        "words": words,
        "start": 0.0,
        "end": 1.0,
    }


def test_a_session_is_asked_its_own_questions_over_and_over() -> None:
    made = asking(
        Scenario("a", Path("a.mp4"), {"qa": [{"question": "who?"}, {"question": "when?"}]}, {}), 17.0, 4.0
    )
    assert [row["question"] for row in made.truth["qa"]] == ["who?", "when?", "who?", "when?"]
    assert [row["ask_at_s"] for row in made.truth["qa"]] == [4.0, 8.0, 12.0, 16.0]
    assert made.seconds == 17.0


def test_what_was_answered_refused_and_late_adds_up_to_what_was_asked() -> None:
    events: list[dict[str, Any]] = [
        final(5.0, 0.5),
        final(15.0, 3.0),
        {"type": "caption.gap", "start": 1.0, "end": 1.5},
    ]
    events += [
        {"type": "answer.delta", "question_id": "q1", "received": 3.0},
        {"type": "answer.done", "question_id": "q1", "received": 4.0},
        {"type": "error", "error": {"code": "capacity"}},
    ]
    events += [{"type": "answer.done", "question_id": "q3", "error": {"code": "deadline"}}]
    run = SessionRun(events, {"q1": 1.0, "q2": 2.0, "q3": 3.0, "q4": 4.0}, 20.0)
    made = summary(
        Scenario("a", Path("a.mp4"), {"transcript": "la la"}, {}), [run, run], [0.0] * 10 + [2.0] * 10, 0.5
    )
    assert (made.sessions, made.answered, made.refused, made.unanswered) == (2, 2, 2, 4)
    assert made.gaps == 1.0
    assert (made.first, made.whole) == ((2.0, 2.0), (3.0, 3.0))
    assert made.series["captions"] == pytest.approx([0.5, 3.0])
    assert made.series["level"] == [0.0, 2.0]
    result = table([made])
    assert "2 / 2 / 4" in result
    assert "<svg" in plot([made, made])


def test_coverage_over_time_is_of_the_words_that_were_spoken_then() -> None:
    truth = {"words": [{"w": "la", "start": end - 0.3, "end": end} for end in (4.5, 6.0, 14.5)]}
    runs = [SessionRun([final(5.0, 0.5), final(15.0, 3.0)], {}, 30.0)] * 2
    assert summary(Scenario("a", Path("a.mp4"), truth, {}), runs, [0.0] * 30, 0.5).series["coverage"] == [
        0.5,
        1.0,
        1.0,
    ]


def test_the_saving_of_a_level_is_relative_to_the_level_below() -> None:
    lines = savings([(1, 0.8, 1.0), (2, 0.3, 0.5)]).splitlines()
    assert [[cell.strip() for cell in line.split("|")[4:6]] for line in lines[2:]] == [
        ["80", "20"],
        ["60", "25"],
    ]


def test_the_budget_line_is_that_of_the_contract() -> None:
    assert overload.budgeted() == 1.6
