"""Answers become rows and counts."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.evaluation.answer_figures import added, answers, counts, figures_of, shares, without_measured

QA = [
    {
        "id": "a",
        "type": "open",
        "question": "What?",
        "answer": "cat",
        "keywords": ["cat"],
        "evidence_s": [20, 30],
        "modality": "vision",
    },
    {
        "id": "b",
        "type": "open",
        "question": "Who?",
        "answer": "no one",
        "keywords": ["-"],
        "evidence_s": [0, 9],
        "modality": "speech",
    }
    | {"answerable": False, "kind": "never", "half": "held"},
    {
        "id": "c",
        "type": "open",
        "question": "Why?",
        "answer": "rain",
        "keywords": ["rain"],
        "evidence_s": [0, 9],
        "modality": "speech",
    },
]


def done(number: str, said: str, received: float, **more: Any) -> dict[str, Any]:
    return {
        "type": "answer.done",
        "question_id": number,
        "text": said,
        "received": received,
        "age_ms": 0.0,
        "evidence": [],
        **more,
    }


LISTED = {
    "id": "d",
    "type": "open",
    "question": "Which ones?",
    "answer": "nets and oil",
    "keywords": ["nets"],
    "points": [["nets"], ["oil"]],
    "evidence_s": [0, 9],
    "modality": "speech",
    "half": "measure",
    "kind": "list",
    "style": "plain",
}


def test_every_question_has_a_verdict_and_its_times() -> None:
    delta = {"type": "answer.delta", "question_id": "a", "received": 30.5, "text": "A cat"}
    events = [
        delta,
        done("a", "A cat.", 31.0, evidence=[{"start": 21, "end": 22, "quote": "cat"}], by="tool"),
        done("b", "A king.", 33.0),
    ]
    table = answers({"qa": QA}, events, {"a": 30.0, "b": 32.0, "c": 33.0})
    assert [row["verdict"] for row in table["each"]] == ["right", "hallucinated", "unanswered"]
    assert table["each"][0]["evidence"] == [{"start": 21, "end": 22, "quote": "cat"}]
    assert [row.get("first_part_s") for row in table["each"]] == [0.5, 1.0, None]
    assert (table["first_part_s"]["max"], table["done_s"]["max"]) == (1.0, 1.0)
    assert list(table["by_kind"]) == ["speech", "object", "never"]
    assert table["by_kind"]["object"] == {
        "asked": 1,
        "answerable": 1,
        "right": 1,
        "citable": 1,
        "cited": 1,
        "honest": 1,
        "told": 1,
        "among_first": 1,
    }
    assert table["by_kind"]["never"]["told_near_misses"] == 1
    assert table["sources"]["tool"]["right"] == 1
    assert answers({}, events, {}) == {}


def test_an_error_instead_of_an_answer_is_counted() -> None:
    failed = done("c", "", 1.0, supported=False, error={"code": "late"})
    table = answers({"qa": QA[2:]}, [failed], {})
    assert table["each"][0]["error"] == "late"
    assert table["total"] == {"asked": 1, "answerable": 1, "declined": 1, "failed": 1, "honest": 1}


def test_a_refusal_that_is_right_needs_no_citation() -> None:
    (row,) = answers({"qa": QA[1:2]}, [done("b", "I have not heard that.", 33.0, supported=False)], {})[
        "each"
    ]
    assert counts([row]) == {"asked": 1, "right": 1, "honest": 1}


def test_what_is_pointed_at_and_the_points_of_a_list_are_counted() -> None:
    passages = [{"start": 0, "end": 1, "quote": quote} for quote in ("sun", "much rain")]
    events = [
        done("c", "The closest:", 1.0, outcome="closest", evidence=passages),
        done("d", "Nets.", 2.0, outcome="answer", by="model"),
    ]
    table = answers({"qa": [QA[2], LISTED]}, events, {})
    total = table["total"]
    assert total == {
        "asked": 2,
        "answerable": 2,
        "pointed wrong": 1,
        "right": 1,
        "citable": 1,
        "honest": 2,
        "told": 1,
        "among_first": 2,
        "lists": 1,
        "points": 0.5,
    }
    assert shares(total) == {
        "right": 50.0,
        "reached": 50.0,
        "among_first": 100.0,
        "precision": 100.0,
        "points": 50.0,
        "cited": 0.0,
    }
    assert shares({})["right"] is None
    assert table["halves"]["measure"]["by_style"]["plain"]["asked"] == 1
    assert added([total, total])["points"] == 1.0
    assert figures_of([])["total"] == {}


@pytest.mark.parametrize(("half", "kept"), [("measure", 0), ("develop", 1), (None, 1)])
def test_the_rows_of_the_half_that_is_measured_with_are_left_out(half: str | None, kept: int) -> None:
    of = answers({"qa": [LISTED | {"half": half}]}, [done("d", "Nets.", 2.0)], {})
    report = without_measured({"scenarios": {"one": {"answers": of}, "two": {"answers": {}}}})
    assert len(report["scenarios"]["one"]["answers"]["each"]) == kept
    assert report["scenarios"]["one"]["answers"]["total"]["asked"] == 1
    assert len(of["each"]) == 1
