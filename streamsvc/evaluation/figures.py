"""Events of one run, against the truth -> figures. Pure, so that a stored run can be scored again.

Events are as published, with "received": session seconds at which the asker had each. Ages are milliseconds, all else seconds;
None or nothing: there is nothing to measure. A word never published counts in the coverage that stands beside every age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamsvc.evaluation import grade_answers
from streamsvc.evaluation.score_captions import align, norm, percentile
from streamsvc.vision import labels

Events = Sequence[Mapping[str, Any]]
Truth = Mapping[str, Any]
Table = dict[str, Any]

QUIET_MARGIN = 0.5  # seconds around the truth's speech that still count as speech
SOON = 1.0  # seconds after a change within which its keyframe must come
IN_TIME = 4.0  # seconds after a slide came up within which its title must be read
STILL = ("slide", "photo")  # kinds of intervals in which nothing moves
DECIDED = ("right", "declined", "wrong", "hallucinated", "unanswered")
KINDS = ("speech", "screen", "time", "object", "attribute", "sound", "unknown", "never", "absent")


def spread(values: Iterable[float], digits: int = 0) -> Table:
    """p50, p95, the largest and the count; empty when there is nothing."""
    known = list(values)
    if not known:
        return {}
    told = {
        name: round(percentile(known, share) or 0.0, digits)
        for name, share in (("p50", 50), ("p95", 95), ("max", 100))
    }
    return {**told, "n": len(known)}


def of_type(events: Events, kind: str) -> list[Mapping[str, Any]]:
    """The events of one type, in order."""
    return [event for event in events if event["type"] == kind]


# --- speech -------------------------------------------------------------------------------------------------------


def speech(truth: Truth, events: Events, until: float | None = None) -> Table:
    """Word errors and coverage of the final captions, and what was captioned where nobody spoke.

    Args:
        truth: with "words" (and their times) or "transcript"; neither: only what was captioned in silence is told.
        events: of the run.
        until: seconds that were played; words that end later were not said.
    """
    finals = of_type(events, "caption.final")
    timed = [item for item in truth.get("words") or () if until is None or item["end"] <= until]
    spoken = [word for item in timed for word in said(item["w"])]
    ends = [item["end"] for item in timed for _ in said(item["w"])]
    if not truth.get("words"):
        spoken = said(truth.get("transcript") or "")
    heard: list[str] = []
    shown: list[float] = []  # session seconds at which each heard word was stable at the asker
    for final, stable in zip(finals, _stable_times(events), strict=True):
        for word, at in zip(final["words"], stable, strict=True):
            pieces = said(word["text"])
            heard += pieces
            shown += [at] * len(pieces)
    pairs, edits = align(spoken, heard)
    spans = truth.get("speech")
    told: Table = {
        "words_published": len(heard),
        "gaps_s": round(sum(gap["end"] - gap["start"] for gap in of_type(events, "caption.gap")), 2),
        "captions_without_speech": sum(
            spans is not None
            and not any(
                part["start"] - QUIET_MARGIN < final["end"] and final["start"] < part["end"] + QUIET_MARGIN
                for part in spans
            )
            for final in finals
        ),
    }
    if not spoken:
        return told
    told |= {
        "edits": edits,
        "words_spoken": len(spoken),
        "wer_percent": round(100 * edits / len(spoken), 2),
        "coverage": round(min(1.0, len(heard) / len(spoken)), 3),
        "words_right": round(len(pairs) / len(spoken), 3),
    }
    if ends:
        told["stable_after_word_s"] = spread((shown[there] - ends[here] for here, there in pairs), 2)
    return told


def said(text: str) -> list[str]:
    """The words of a text as they are compared: without fillers, numbers in words."""
    return grade_answers.spoken(norm(text))


def _stable_times(events: Events) -> list[list[float]]:
    """For each final caption: when each of its words was stable at the asker."""
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


# --- ages ---------------------------------------------------------------------------------------------------------

_AGED = {
    "caption.partial": "partial",
    "caption.final": "final",
    "keyframe.sampled": "keyframe",
    "sight.ready": "sight",
    "screen.text": "screen",
    "scene.caption": "scene",
}


def ages(events: Events) -> Table:
    """`age_ms` as published, by kind, named as in the budget; "stable": of the event that made each word stable."""
    words: list[float] = []
    known = 0
    for event in events:
        if event["type"] == "caption.partial":
            words += [event["age_ms"]] * max(0, event["stable"] - known)
            known = max(known, event["stable"])
        elif event["type"] == "caption.final":
            words += [event["age_ms"]] * max(0, len(event["words"]) - known)
            known = max(0, known - len(event["words"]))
    table = {"stable": spread(words)}
    mine = [
        event for event in events if event.get("by") != "model"
    ]  # what a model says of a scene is in no budget
    table |= {name: spread(event["age_ms"] for event in of_type(mine, kind)) for kind, name in _AGED.items()}
    return {name: row for name, row in table.items() if row}


def kept(report: Mapping[str, Any], budget: Mapping[str, float]) -> dict[str, bool]:
    """Whether each p95 of a report that `budget` (seconds) names is within it."""
    late = {name: row["p95"] / 1000 for name, row in report["ages_ms"].items()}
    answers = report.get("answers") or {}
    late |= {
        name: answers[key]["p95"]
        for name, key in (("first_clause", "first_delta_s"), ("answer", "done_s"))
        if answers.get(key)
    }
    return {name: seconds <= budget[name] for name, seconds in late.items() if name in budget}


# --- pictures -----------------------------------------------------------------------------------------------------


def keyframes(truth: Truth, events: Events, until: float | None = None) -> Table:
    """Changes that a keyframe followed within SOON, and keyframes of still pictures that followed a change."""
    spans = [part for part in truth.get("intervals") or () if until is None or part["start"] < until]
    if not spans:
        return {}
    at = [event["at"] for event in of_type(events, "keyframe.sampled")]
    starts = [part["start"] for part in spans]
    waits = [
        min((t - start for t in at if start - 0.1 <= t <= start + SOON), default=None) for start in starts
    ]
    still = [
        t for t in at if any(part["start"] <= t < part["end"] and part["kind"] in STILL for part in spans)
    ]
    due = sum(any(start - 0.1 <= t <= start + SOON for start in starts) for t in still)
    return {
        "changes": len(starts),
        "found": sum(wait is not None for wait in waits),
        "recall": round(sum(wait is not None for wait in waits) / len(starts), 3),
        "of_still": len(still),
        "due": due,
        "precision": round(due / len(still), 3) if still else None,
        "delay_s": spread((max(0.0, wait) for wait in waits if wait is not None), 2),
    }


def screens(truth: Truth, events: Events, until: float | None = None) -> list[Table]:
    """Each interval with a text: whether its title was read and how long after it came up, and the characters wrong of its last reading.

    "cer": edits / characters of the truth, blanks counted once; 1 where nothing was read.
    """
    rows = []
    for slide in truth.get("intervals") or ():
        if not (slide.get("text") or slide.get("title")) or (until is not None and slide["start"] >= until):
            continue
        readings = [
            event
            for event in of_type(events, "screen.text")
            if slide["start"] - 1 <= event["first_seen"] < slide["end"]
        ]
        row: Table = {"title": slide.get("title"), "start": slide["start"], "found": False, "cer": 1.0}
        wanted = " ".join(norm(slide.get("title") or ""))
        for event in readings:
            lines = [event["title"] or "", *(line["text"] for line in event["lines"])]
            if wanted and any(wanted in " ".join(norm(line)) for line in lines):
                row |= {"found": True, "as_title": wanted in " ".join(norm(event["title"] or ""))}
                row |= {"delay_s": round(event["received"] - slide["start"], 2), "age_ms": event["age_ms"]}
                break
        if readings and slide.get("text"):
            text, read = (
                " ".join(slide["text"].split()),
                " ".join(" ".join(line["text"] for line in readings[-1]["lines"]).split()),
            )
            row["cer"] = round(align(text, read)[1] / len(text), 4)
        rows.append(row)
    return rows


def read(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The same as counts."""
    if not rows:
        return {}
    titled = [row for row in rows if row["title"]]
    return {
        "titles": len(titled),
        "found": sum(row["found"] for row in titled),
        "in_time": sum(row.get("delay_s", IN_TIME + 1) <= IN_TIME for row in titled),
        "cer_mean": round(sum(row["cer"] for row in rows) / len(rows), 4),
        "cer_worst": max(row["cer"] for row in rows),
    }


def sights(truth: Truth, events: Events, until: float | None = None) -> Table:
    """Intervals that name what they show ("things", or else "label"), and how many of them a tag or a box named so, by `things.is_a`."""
    wanted, named, missed = 0, Counter[str](), []
    for part in truth.get("intervals") or ():
        names = part.get("things") or (
            [part["label"]] if part.get("label") and part["kind"] not in ("slide",) else []
        )
        if not names or (until is not None and part["start"] >= until):
            continue
        looks = [
            event
            for event in of_type(events, "sight.ready")
            if part["start"] - 0.1 <= event["at"] < part["end"]
        ]
        by = {
            kind: any(
                labels.is_a(found["label"], name)
                for event in looks
                for found in event[kind]
                for name in names
            )
            for kind in ("tags", "boxes")
        }
        wanted += 1
        named.update([kind for kind, good in by.items() if good] + (["either"] if any(by.values()) else []))
        missed += [] if any(by.values()) else [names[0]]
    if not wanted:
        return {}
    return {
        "shown": wanted,
        "named": named["either"],
        "by_tag": named["tags"],
        "by_box": named["boxes"],
        "missed": missed,
    }


# --- answers ------------------------------------------------------------------------------------------------------


def answers(truth: Truth, events: Events, asked: Mapping[str, float]) -> Table:
    """Every question with its answer and verdict, and the counts by kind.

    Args:
        truth: its "qa".
        events: of the run.
        asked: question id -> session seconds at which it was sent.
    """
    questions = truth.get("qa") or ()
    if not questions:
        return {}
    done = {event["question_id"]: event for event in of_type(events, "answer.done")}
    rows: list[Table] = []
    for question in questions:
        event = done.get(question["id"], {"text": "", "evidence": []})
        row: Table = {
            "id": question["id"],
            "kind": question.get("kind") or grade_answers.kind(question),
            "half": question.get("half"),
            "question": question["question"],
            "truth": question["answer"],
            "answer": event["text"],
            "verdict": grade_answers.verdict(question, event) if question["id"] in done else "unanswered",
            "cited": question["id"] in done and grade_answers.cited(question, event),
            "honest": question["id"] in done and grade_answers.honest(question, event),
            "answerable": question.get("answerable") is not False,
        }
        if question["id"] in asked and "received" in event:
            deltas = [
                each["received"]
                for each in of_type(events, "answer.delta")
                if each["question_id"] == question["id"]
            ]
            row |= {"first_delta_s": round(deltas[0] - asked[question["id"]], 3)} if deltas else {}
            row["done_s"] = round(event["received"] - asked[question["id"]], 3)
        rows.append(row)
    return {
        "by_kind": by_kind(rows),
        "first_delta_s": spread((row["first_delta_s"] for row in rows if "first_delta_s" in row), 2),
        "done_s": spread((row["done_s"] for row in rows if "done_s" in row), 2),
        "each": rows,
    }


def by_kind(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Counts of graded questions by kind, in the order of KINDS.

    "asked", and of these "right", "declined", "wrong", "hallucinated", "unanswered"; "cited": right ones that can be cited and are.
    "honest": of those about what never was, those that are not affirmed.
    """
    table: dict[str, Counter[str]] = {}
    for row in rows:
        good = row["verdict"] == "right" and row["answerable"]
        counts = table.setdefault(row["kind"], Counter())
        counts.update(
            [
                "asked",
                row["verdict"],
                *(["citable"] if good else []),
                *(["cited"] if good and row["cited"] else []),
            ]
        )
        counts.update(["honest"] if row["honest"] else [])
    order = {name: place for place, name in enumerate(KINDS)}
    return {
        name: dict(table[name])
        for name in sorted(table, key=lambda name: (order.get(name, len(order)), name))
    }


# --- all ----------------------------------------------------------------------------------------------------------


def report(truth: Truth, events: Events, asked: Mapping[str, float], until: float | None = None) -> Table:
    """All figures of one run that its events tell. `until`: seconds of the recording that were played, None: all."""
    rows = screens(truth, events, until)
    return {
        "speech": speech(truth, events, until),
        "ages_ms": ages(events),
        "keyframes": keyframes(truth, events, until),
        "screens": read(rows),
        "sights": sights(truth, events, until),
        "answers": answers(truth, events, asked),
        "slides": rows,
        "events": dict(Counter(event["type"] for event in events)),
        "errors": [event.get("error", {}).get("code") for event in of_type(events, "error")],
        "degraded": [
            {name: event.get(name) for name in ("at", "level", "reason")}
            for event in of_type(events, "session.degraded")
        ],
    }
