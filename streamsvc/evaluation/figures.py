"""Figures of one session run: its events against the truth of the scenario. Pure.

A stored run can be scored again. Events are as published, with "received": session seconds at which the asker
got the event. Ages are milliseconds, all else seconds. None, or an absent key: there is nothing to measure.
Words that were never published count in the coverage beside every age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamsvc.evaluation import grade_answers
from streamsvc.evaluation.answer_figures import answers
from streamsvc.evaluation.score_captions import align, norm, percentile
from streamsvc.vision import labels

Events = Sequence[Mapping[str, Any]]
Truth = Mapping[str, Any]
Report = dict[str, Any]  # JSON values: what `streamsvc eval --json` prints

QUIET_MARGIN = 0.5  # seconds around speech that still count as speech
SOON = 1.0  # seconds within which a keyframe must follow a change
IN_TIME = 4.0  # seconds within which the title of a new slide must be read
STILL = ("slide", "photo")  # kinds of intervals in which nothing moves


def percentiles(values: Iterable[float], digits: int = 0) -> Report:
    """p50, p95, maximum and count; {} without values."""
    known = list(values)
    if not known:
        return {}
    shares = (("p50", 50), ("p95", 95), ("max", 100))
    return {name: round(percentile(known, share) or 0.0, digits) for name, share in shares} | {
        "n": len(known)
    }


def of_type(events: Events, kind: str) -> list[Mapping[str, Any]]:
    """The events of one type, in order."""
    return [event for event in events if event["type"] == kind]


# --- speech -------------------------------------------------------------------------------------------------


def speech(truth: Truth, events: Events, until: float | None = None) -> Report:
    """Word errors and coverage of the final captions, and the captions outside of speech.

    Args:
        truth: with "words" (and their times) or "transcript"; with neither, only captions outside of speech
            are counted.
        events: of the run.
        until: seconds that were played; words that end later are left out.
    """
    finals = of_type(events, "caption.final")
    timed = [item for item in truth.get("words") or () if until is None or item["end"] <= until]
    spoken = [word for item in timed for word in spoken_words(item["w"])]
    ends = [item["end"] for item in timed for _ in spoken_words(item["w"])]
    if not truth.get("words"):
        spoken = spoken_words(truth.get("transcript") or "")
    published: list[str] = []
    shown: list[float] = []  # session seconds at which the asker had each published word as stable
    for final, stable in zip(finals, _stable_times(events), strict=True):
        for word, at in zip(final["words"], stable, strict=True):
            pieces = spoken_words(word["text"])
            published += pieces
            shown += [at] * len(pieces)
    pairs, edits = align(spoken, published)
    spans = truth.get("speech")
    table: Report = {
        "words_published": len(published),
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
        return table
    table |= {
        "edits": edits,
        "words_spoken": len(spoken),
        "wer_percent": round(100 * edits / len(spoken), 2),
        "coverage": round(min(1.0, len(published) / len(spoken)), 3),
        "words_right": round(len(pairs) / len(spoken), 3),
    }
    if ends:
        delays = (shown[there] - ends[here] for here, there in pairs)
        table["stable_after_word_s"] = percentiles(delays, 2)
    return table


def spoken_words(text: str) -> list[str]:
    """The words of a text as they are compared: without fillers, numbers in words."""
    return grade_answers.spoken_form(norm(text))


def _stable_times(events: Events) -> list[list[float]]:
    """For each final caption, the session seconds at which the asker had each of its words as stable."""
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


# --- ages ---------------------------------------------------------------------------------------------------

_AGE_NAMES = {
    "caption.partial": "partial",
    "caption.final": "final",
    "keyframe.sampled": "keyframe",
    "sight.ready": "sight",
    "screen.text": "screen",
    "scene.caption": "scene",
}


def ages(events: Events) -> Report:
    """`age_ms` as published, by kind, named as in the budget.

    "stable": for each word, the age of the event that made it stable.
    """
    words: list[float] = []
    known = 0  # stable words of the open utterance
    for event in events:
        if event["type"] == "caption.partial":
            words += [event["age_ms"]] * max(0, event["stable"] - known)
            known = max(known, event["stable"])
        elif event["type"] == "caption.final":
            words += [event["age_ms"]] * max(0, len(event["words"]) - known)
            known = max(0, known - len(event["words"]))
    table = {"stable": percentiles(words)}
    # Scene captions of a VLM have no budget.
    by_rule = [event for event in events if event.get("by") != "model"]
    for kind, name in _AGE_NAMES.items():
        table[name] = percentiles(event["age_ms"] for event in of_type(by_rule, kind))
    return {name: row for name, row in table.items() if row}


def within_budget(report: Mapping[str, Any], budget: Mapping[str, float]) -> dict[str, bool]:
    """Whether each p95 of a report is within `budget` (seconds by name).

    Names without a budget are left out.
    """
    ages_s = {name: row["p95"] / 1000 for name, row in report["ages_ms"].items()}
    answers = report.get("answers") or {}
    ages_s |= {
        name: answers[key]["p95"]
        for name, key in (("first_clause", "first_part_s"), ("answer", "done_s"))
        if answers.get(key)
    }
    return {name: seconds <= budget[name] for name, seconds in ages_s.items() if name in budget}


# --- pictures -----------------------------------------------------------------------------------------------


def keyframes(truth: Truth, events: Events, until: float | None = None) -> Report:
    """Recall and precision of keyframes.

    Recall: changes that a keyframe followed within SOON. Precision: keyframes of still pictures that followed
    a change.
    """
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
        "delay_s": percentiles((max(0.0, wait) for wait in waits if wait is not None), 2),
    }


def screens(truth: Truth, events: Events, until: float | None = None) -> list[Report]:
    """For each interval with a text: whether and when its title was read, and its character error rate.

    "cer": edits / characters of the truth, runs of white space counted once; 1 where nothing was read.
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
        row: Report = {"title": slide.get("title"), "start": slide["start"], "found": False, "cer": 1.0}
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


def screen_counts(rows: Sequence[Mapping[str, Any]]) -> Report:
    """The rows of `screens` as counts."""
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


def sights(truth: Truth, events: Events, until: float | None = None) -> Report:
    """Intervals with a named object, and how many of the objects a tag or a box named (`labels.is_a`).

    The names are the interval's "things", or else its "label".
    """
    shown = 0
    named: Counter[str] = Counter()
    missed: list[str] = []
    for part in truth.get("intervals") or ():
        names = part.get("things") or (
            [part["label"]] if part.get("label") and part["kind"] != "slide" else []
        )
        if not names or (until is not None and part["start"] >= until):
            continue
        during = [
            event
            for event in of_type(events, "sight.ready")
            if part["start"] - 0.1 <= event["at"] < part["end"]
        ]
        sources = [
            kind
            for kind in ("tags", "boxes")
            if any(
                labels.is_a(item["label"], name) for event in during for item in event[kind] for name in names
            )
        ]
        shown += 1
        named.update(sources)
        if sources:
            named["either"] += 1
        else:
            missed.append(names[0])
    if not shown:
        return {}
    return {
        "shown": shown,
        "named": named["either"],
        "by_tag": named["tags"],
        "by_box": named["boxes"],
        "missed": missed,
    }


# --- all ----------------------------------------------------------------------------------------------------


def report(truth: Truth, events: Events, asked: Mapping[str, float], until: float | None = None) -> Report:
    """All figures of one run. `until`: seconds of the recording that were played, None: all."""
    rows = screens(truth, events, until)
    return {
        "speech": speech(truth, events, until),
        "ages_ms": ages(events),
        "keyframes": keyframes(truth, events, until),
        "screens": screen_counts(rows),
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
