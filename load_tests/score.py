"""Events of one run -> figures: pure, so that a stored run can be scored again (`python -m load_tests.scenario --rescore FILE`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamsvc.score import align, norm

Events = Sequence[Mapping[str, Any]]  # as published, with "received": session seconds at which this client had it
QUIET_MARGIN = 0.5  # seconds around the truth's speech that still count as speech


def spread(values: Sequence[float], digits: int = 0) -> dict[str, float]:
    """p50, p95, the largest and the count; empty when there is nothing."""
    if not values:
        return {}
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), digits), "p95": round(float(p95), digits), "max": round(max(values), digits), "n": len(values)}


def of_type(events: Events, kind: str) -> list[Mapping[str, Any]]:
    """The events of one type, in order."""
    return [event for event in events if event["type"] == kind]


def speech(truth: Mapping[str, Any], events: Events) -> dict[str, Any]:
    """WER and coverage of the final captions, and what was captioned where nobody spoke."""
    finals = of_type(events, "caption.final")
    spoken = [word for item in truth["words"] for word in norm(item["w"])]
    ends = [item["end"] for item in truth["words"] for _ in norm(item["w"])]
    heard: list[str] = []
    shown: list[float] = []  # session seconds at which each heard word was stable at this client
    for final, stable in zip(finals, _stable_times(events), strict=True):
        for word, at in zip(final["words"], stable, strict=True):
            pieces = norm(word["text"])
            heard += pieces
            shown += [at] * len(pieces)
    pairs, edits = align(spoken, heard)
    return {
        "wer_percent": round(100 * edits / max(1, len(spoken)), 2),
        "words_spoken": len(spoken),
        "words_published": len(heard),
        "coverage": round(min(1.0, len(heard) / max(1, len(spoken))), 3),
        "words_right": round(len(pairs) / max(1, len(spoken)), 3),
        "stable_after_word_s": spread([shown[there] - ends[here] for here, there in pairs], 2),
        "gaps_s": round(sum(gap["end"] - gap["start"] for gap in of_type(events, "caption.gap")), 2),
        "captions_without_speech": [
            {"start": final["start"], "end": final["end"], "text": final["text"]}
            for final in finals
            if not any(
                part["start"] - QUIET_MARGIN < final["end"] and final["start"] < part["end"] + QUIET_MARGIN for part in truth["speech"]
            )
        ],
    }


def _stable_times(events: Events) -> list[list[float]]:
    """For each final caption: when each of its words was stable at this client."""
    all_times: list[list[float]] = []
    open_times: list[float] = []
    for event in events:
        if event["type"] == "caption.partial":
            open_times += [event["received"]] * (event["stable"] - len(open_times))
        elif event["type"] == "caption.final":
            count = len(event["words"])
            times = open_times[:count]
            all_times.append(times + [event["received"]] * (count - len(times)))
            open_times = open_times[count:]
    return all_times


def ages(events: Events) -> dict[str, dict[str, float]]:
    """`age_ms` as published, p50/p95 per kind; "stable words": of the event that made each word stable."""
    kinds = (
        "caption.partial",
        "caption.final",
        "keyframe.sampled",
        "sight.ready",
        "screen.text",
        "scene.caption",
        "answer.delta",
        "answer.done",
    )
    table = {kind: spread([event["age_ms"] for event in of_type(events, kind)]) for kind in kinds}
    words: list[float] = []
    known = 0
    for event in events:
        if event["type"] == "caption.partial":
            words += [event["age_ms"]] * max(0, event["stable"] - known)
            known = max(known, event["stable"])
        elif event["type"] == "caption.final":
            words += [event["age_ms"]] * max(0, len(event["words"]) - known)
            known = max(0, known - len(event["words"]))
    return {"stable words": spread(words), **{kind: row for kind, row in table.items() if row}}


def slides(truth: Mapping[str, Any], events: Events) -> list[dict[str, Any]]:
    """Each slide of the truth: whether its title was read, and how long after it came up this client had it."""
    rows = []
    for slide in (part for part in truth["intervals"] if part.get("title")):
        wanted = " ".join(norm(slide["title"]))
        row: dict[str, Any] = {"title": slide["title"], "start": slide["start"], "found": False}
        for event in of_type(events, "screen.text"):
            seen = event["first_seen"]
            lines = [event["title"] or "", *(line["text"] for line in event["lines"])]
            if slide["start"] - 1 <= seen <= slide["end"] and any(wanted in " ".join(norm(line)) for line in lines):
                row |= {
                    "found": True,
                    "as_title": wanted in " ".join(norm(event["title"] or "")),
                    "delay_s": round(event["received"] - slide["start"], 2),
                    "age_ms": event["age_ms"],
                }
                break
        rows.append(row)
    return rows


def answers(truth: Mapping[str, Any], events: Events, asked: Mapping[str, float], grader: Any) -> dict[str, Any]:
    """Every question with its answer and verdict, and the counts by kind.

    Args:
        truth: the scenario.
        events: of the run.
        asked: question id -> session seconds at which this client sent it.
        grader: the module shared/bench/grade.py.
    """
    done = {event["question_id"]: event for event in of_type(events, "answer.done")}
    rows = []
    table: dict[str, Counter[str]] = {}
    for question in truth["qa"]:
        event = done.get(question["id"], {"text": "", "evidence": []})
        kind = grader.kind(question)
        row = {
            "id": question["id"],
            "kind": kind,
            "question": question["question"],
            "truth": question["answer"],
            "answer": event["text"],
            "verdict": grader.grade(question, event),
            "cited": grader.cited(question, event),
        }
        if question["id"] in asked:
            deltas = [delta["received"] for delta in of_type(events, "answer.delta") if delta["question_id"] == question["id"]]
            if deltas:
                row["first_delta_s"] = round(deltas[0] - asked[question["id"]], 3)
            if "received" in event:
                row["done_s"] = round(event["received"] - asked[question["id"]], 3)
        rows.append(row)
        table.setdefault(kind, Counter()).update([row["verdict"], "asked", *(["cited"] if row["cited"] else [])])
    main = [row for row in rows if row["kind"] in ("speech", "screen", "time")]
    return {
        "by_kind": {kind: dict(counts) for kind, counts in sorted(table.items())},
        "speech_screen_time_right": f"{sum(row['verdict'] == 'right' for row in main)} of {len(main)}",
        "unanswered": [question["id"] for question in truth["qa"] if question["id"] not in done],
        "first_delta_s": spread([row["first_delta_s"] for row in rows if "first_delta_s" in row], 2),
        "done_s": spread([row["done_s"] for row in rows if "done_s" in row], 2),
        "each": rows,
    }


def report(truth: Mapping[str, Any], events: Events, asked: Mapping[str, float], grader: Any) -> dict[str, Any]:
    """All figures of one run that its events tell."""
    found = slides(truth, events)
    read, soon = sum(row["found"] for row in found), sum(row.get("delay_s", 99) <= 4 for row in found)
    return {
        "events": dict(Counter(event["type"] for event in events)),
        "speech": speech(truth, events),
        "ages_ms": ages(events),
        "slides_found": f"{read} of {len(found)}, within 4 s: {soon}",
        "slides": found,
        "answers": answers(truth, events, asked, grader),
        "errors": [event.get("error") for event in of_type(events, "error")],
        "degraded": [
            {"at": event["at"], "level": event["level"], "reason": event["reason"]} for event in of_type(events, "session.degraded")
        ],
    }
