"""Figures of the answers of a session run: a row a question, and counts by kind, style, type and half. Pure.

Every count is a sum over rows, so that tables of several recordings can be added up (`added`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamsvc.evaluation import grade_answers
from streamsvc.evaluation.score_captions import percentile

Events = Sequence[Mapping[str, Any]]
Truth = Mapping[str, Any]
Report = dict[str, Any]  # JSON values
Rows = Sequence[Mapping[str, Any]]

VERDICTS = ("right", "pointed", "pointed wrong", "declined", "wrong", "hallucinated", "unanswered")
GROUPS = ("kind", "style", "type")  # keys of a row by which figures are reported
KINDS = ("speech", "screen", "time", "object", "attribute", "sound", "unknown", "never", "absent")
MEASURED = "measure"  # the half whose rows nobody reads one by one


def answers(truth: Truth, events: Events, asked: Mapping[str, float]) -> Report:
    """Every question with its answer and verdict, and the figures of all.

    Args:
        truth: its "qa".
        events: of the run, as published, with "received".
        asked: question id -> session seconds at which it was sent.

    Returns:
        See `figures_of`, and "each": the rows. {}: no questions.
    """
    questions = truth.get("qa") or ()
    if not questions:
        return {}
    done = {event["question_id"]: event for event in events if event["type"] == "answer.done"}
    deltas: dict[str, float] = {}
    for event in events:
        if event["type"] == "answer.delta":
            deltas.setdefault(event["question_id"], event["received"])
    rows = [_row(question, done.get(question["id"])) for question in questions]
    for row in rows:
        if row["id"] in asked and row["id"] in done:
            row["done_s"] = round(done[row["id"]]["received"] - asked[row["id"]], 3)
            row["first_part_s"] = row["done_s"]
            if row["id"] in deltas:
                row["first_part_s"] = round(deltas[row["id"]] - asked[row["id"]], 3)
    return {**figures_of(rows), "each": rows}


def _row(question: Mapping[str, Any], event: Mapping[str, Any] | None) -> Report:
    """One question, its answer, and what it counts as. `event`: answer.done; None: unanswered."""
    answerable = question.get("answerable") is not False
    row: Report = {
        "id": question["id"],
        "kind": question.get("kind") or grade_answers.kind(question),
        "style": question.get("style"),
        "type": question["type"],
        "half": question.get("half"),
        "answerable": answerable,
        "question": question["question"],
        "truth": question["answer"],
    }
    if event is None:
        unanswered: Report = dict.fromkeys(("cited", "honest", "told", "among_first"), False)
        return row | {"answer": "", "verdict": "unanswered", "points": None} | unanswered
    return row | {
        "answer": event["text"],
        "outcome": event.get("outcome"),
        "reason": event.get("reason"),
        "by": event.get("by"),
        "supported": event.get("supported"),
        "error": event.get("error", {}).get("code"),
        "evidence": list(event.get("evidence") or ()),
        "verdict": grade_answers.verdict(question, event),
        "cited": grade_answers.cited(question, event),
        "honest": grade_answers.honest(question, event),
        "told": grade_answers.is_told(event),
        "among_first": grade_answers.among_first(question, event),
        "points": grade_answers.points_share(question, event),
    }


def figures_of(rows: Rows) -> Report:
    """The figures of rows of one or more recordings.

    Returns:
        "total", "by_kind", "by_style", "by_type": see `counts`; "halves": half -> the same four; "sources":
        `by` of the answer -> counts; "first_part_s", "done_s": p50, p95, max, n in seconds.
    """
    halves = sorted({row["half"] for row in rows if row["half"]})
    return {
        **_tables(rows),
        "halves": {half: _tables([row for row in rows if row["half"] == half]) for half in halves},
        "sources": _grouped(rows, "by"),
        "first_part_s": _seconds(rows, "first_part_s"),
        "done_s": _seconds(rows, "done_s"),
    }


def _tables(rows: Rows) -> Report:
    return {"total": counts(rows), **{f"by_{key}": _grouped(rows, key) for key in GROUPS}}


def _grouped(rows: Rows, key: str) -> Report:
    """Counts by a key of the rows; kinds in the order of KINDS, others by name."""
    order = {name: index for index, name in enumerate(KINDS)}
    names = sorted(
        {row[key] for row in rows if row.get(key)}, key=lambda name: (order.get(name, len(order)), name)
    )
    return {name: counts([row for row in rows if row.get(key) == name]) for name in names}


def counts(rows: Rows) -> Report:
    """Counts of graded questions; those that are 0 are left out.

    "asked", "answerable", and each of VERDICTS; "citable": right and answerable; "cited": citable and cited;
    "failed": an error instead of an answer; "honest": nothing false was claimed; "told": stated as an answer;
    "told_near_misses": of those that are not answerable; "among_first": answerable and right or pointed at in
    the first passages; "lists": questions with points; "points": the sum of their shares.
    """
    table: Counter[str] = Counter()
    for row in rows:
        right = row["verdict"] == "right" and row["answerable"]
        table.update(["asked", row["verdict"]])
        table.update(
            {
                "answerable": row["answerable"],
                "citable": right,
                "cited": right and row["cited"],
                "failed": bool(row.get("error")),
                "honest": row["honest"],
                "told": row["told"],
                "told_near_misses": row["told"] and not row["answerable"],
                "among_first": row["among_first"],
                "lists": row["points"] is not None,
            }
        )
        table["points"] += row["points"] or 0  # a share
    return {name: round(value, 3) for name, value in table.items() if value}


def added(tables: Iterable[Mapping[str, float]]) -> Report:
    """The sum of tables of counts."""
    total: Counter[str] = Counter()
    for table in tables:
        total.update(table)  # shares are added too
    return dict(total)


def shares(table: Mapping[str, float]) -> Report:
    """What counts amount to, in percent of the answerable questions unless said otherwise; None: of nothing.

    "right"; "reached": right or pointed; "among_first"; "precision": right of what is told; "points": mean of
    the questions with points; "cited": of the right ones.
    """

    def percent(part: float, whole: float) -> float | None:
        return round(100 * part / whole, 1) if whole else None

    def count(name: str) -> float:
        return table.get(name, 0)

    answerable = count("answerable")
    return {
        "right": percent(count("citable"), answerable),
        "reached": percent(count("citable") + count("pointed"), answerable),
        "among_first": percent(count("among_first"), answerable),
        "precision": percent(count("citable"), count("told")),
        "points": percent(count("points"), count("lists")),
        "cited": percent(count("cited"), count("citable")),
    }


def without_measured(report: Report) -> Report:
    """A report of `evaluate.run` without the rows of the half that is measured with."""
    scenarios = {
        name: scenario
        | (
            {
                "answers": scenario["answers"]
                | {"each": [row for row in scenario["answers"]["each"] if row["half"] != MEASURED]}
            }
            if scenario["answers"]
            else {}
        )
        for name, scenario in report["scenarios"].items()
    }
    return report | {"scenarios": scenarios}


def _seconds(rows: Rows, key: str) -> Report:
    values = [row[key] for row in rows if key in row]
    if not values:
        return {}
    of = {name: round(percentile(values, share) or 0.0, 2) for name, share in (("p50", 50), ("p95", 95))}
    return of | {"max": round(max(values), 2), "n": len(values)}
