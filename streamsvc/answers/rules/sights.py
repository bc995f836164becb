"""What was shown, in words: scene captions, appearances of a thing, counts, what is there now. Composed by rule, pure.

Only what the models saw with these certainties is named: a wrong name costs more than silence.
"""

from __future__ import annotations

from streamsvc.answers.rules.finding import Finding, refusal, timestamp
from streamsvc.answers.rules.parse import Ask
from streamsvc.core.types import Evidence, Sight
from streamsvc.timeline.keyframe_history import Shown
from streamsvc.timeline.text import terms
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels as vision_labels
from streamsvc.vision.scenes import (
    TAG_CONFIDENT,
    TAG_POSSIBLE,
    confident,
    is_shown,
    labelled,
    names,
    phrase,
    quote,
)

JOINED = 4.0  # seconds a thing may be lost from sight between two looks without a new appearance


def appearances(timeline: Timeline, thing: str) -> list[Evidence]:
    """When a thing was shown, by time; looks that miss it for a moment do not end it."""
    return _runs(timeline, lambda sight: is_shown(sight, thing), thing)


def blanks(timeline: Timeline) -> list[Evidence]:
    """When the picture was a single flat colour."""
    return _runs(timeline, lambda sight: sight.blank, "blank picture")


def _runs(timeline: Timeline, holds, name: str) -> list[Evidence]:  # type: ignore[no-untyped-def]
    found: list[Evidence] = []
    for item in timeline.shown:
        if item.sight is None or not holds(item.sight):
            continue
        end = timeline.end_of(item)
        if found and item.start - found[-1].end <= JOINED:
            found[-1] = Evidence(found[-1].start, end, "sight", found[-1].quote, found[-1].frame)
        else:
            found.append(Evidence(item.start, end, "sight", quote(item.sight) or name, item.start))
    return found


def pick(spans: list[Evidence], ordinal: int | None) -> Evidence | None:
    """The n-th of some spans, the first by default."""
    number = ordinal or 1
    if not spans or number > len(spans):
        return None
    return spans[number if number < 0 else number - 1]


def _as_evidence(timeline: Timeline, item: Shown) -> Evidence:
    return Evidence(
        item.start, timeline.end_of(item), "sight", quote(item.sight) if item.sight else "", item.start
    )


def at(timeline: Timeline, when: float, now: bool = False) -> Finding | None:
    """What was shown at a time: the things, else the title on the screen."""
    item = timeline.at(when)
    screen = timeline.screen_at(when)
    told = phrase(item.sight) if item is not None and item.sight is not None else None
    if item is not None and item.sight is not None and item.sight.blank:
        return Finding((f"Nothing, {told}.",), (_as_evidence(timeline, item),))
    if screen is not None:
        title = screen.title or screen.lines[0]
        return Finding(
            (f'A screen with the text "{" ".join(title.split()[:25])}".',),
            (Evidence(screen.start, timeline.end_of(screen), "screen", title, screen.frame),),
        )
    if told is None or item is None:
        return None
    return Finding(
        (f"{told[0].upper()}{told[1:]}.",),
        (_as_evidence(timeline, item),),
        values=tuple(names(item.sight)) if item.sight else (),
    )


def beside(timeline: Timeline, span: Evidence, later: bool) -> Finding | None:
    """What was shown right after, or right before, a stretch."""
    if later:
        if span.end >= timeline.latest:
            return None
        return at(timeline, span.end + 0.05)
    return at(timeline, span.start - 0.05) if span.start > 0.05 else None


def nth(timeline: Timeline, number: int) -> Finding | None:
    """The n-th picture that differs from the one before it."""
    changes: list[Shown] = []
    for item in timeline.shown:
        told = phrase(item.sight) if item.sight is not None else None
        if told is not None and (
            not changes or changes[-1].sight is None or phrase(changes[-1].sight) != told
        ):
            changes.append(item)
    if number > len(changes) or not changes:
        return None
    return at(timeline, changes[number if number < 0 else number - 1].start)


def so_far(timeline: Timeline, now: float) -> Finding | None:
    """Everything named so far, each once, by time."""
    told: dict[str, Evidence] = {}
    for item in timeline.shown:
        for name in names(item.sight) if item.sight is not None else ():
            told.setdefault(name, _as_evidence(timeline, item))
    for screen in timeline.screens:
        told.setdefault(
            f'"{screen.title or screen.lines[0]}"',
            Evidence(
                screen.start, timeline.end_of(screen), "screen", screen.title or screen.lines[0], screen.frame
            ),
        )
    ordered = sorted(told.items(), key=lambda entry: entry[1].start)[:8]
    if not ordered:
        return None
    text = ", ".join(name if name.startswith('"') else vision_labels.article(name) for name, _ in ordered)
    while len(text.split()) > 34:
        ordered = ordered[:-1]
        text = ", ".join(name if name.startswith('"') else vision_labels.article(name) for name, _ in ordered)
    return Finding(
        ("So far: ", f"{text}."),
        tuple(span for _, span in ordered),
        values=tuple(name.strip('"') for name, _ in ordered),
    )


def of_kind(timeline: Timeline, kind: str, now: float, present: bool, nth: int | None) -> Finding:
    """Which things of a kind ("drink", "animal") are shown: now, else, for what was, ever."""
    item = timeline.at(now)
    if present and item is not None and item.sight is not None:
        found = _of(item.sight, kind)
        if found:
            return Finding(
                (f"{vision_labels.article(found[0]).capitalize()}.",),
                (_as_evidence(timeline, item),),
                values=(found[0],),
            )
        return refusal()
    hits: dict[str, Evidence] = {}
    for shown in timeline.shown:
        for name in _of(shown.sight, kind) if shown.sight is not None else ():
            hits.setdefault(name, _as_evidence(timeline, shown))
    chosen = list(hits.items())[:6]
    if nth is not None:
        chosen = [] if nth > len(chosen) else [chosen[nth if nth < 0 else nth - 1]]
    if not chosen:
        return refusal()
    text = ", ".join(vision_labels.article(name) for name, _ in chosen)
    return Finding(
        (f"{text[0].upper()}{text[1:]}.",),
        tuple(span for _, span in chosen),
        values=tuple(name for name, _ in chosen),
    )


MOVERS = {
    "walk": "person animal",
    "driv": "vehicle",
    "fl": "bird airplane kite",
}  # what may do so, by the stem of the verb; else any of all


def movers(timeline: Timeline, verb: str) -> Finding:
    """What was shown that can move as the question says; that it did so nobody here sees."""
    kinds = MOVERS.get(verb, "person animal vehicle").split()
    told = [
        found
        for kind in kinds
        if (found := of_kind(timeline, kind, timeline.latest, present=False, nth=None)).supported
    ]
    if not told:
        return refusal()
    names = list(dict.fromkeys(name for found in told for name in found.values))[:4]
    text = ", ".join(vision_labels.article(name) for name in names)
    return Finding((f"In the picture: {text}.",), told[0].evidence[:2], values=tuple(names))


def _of(sight: Sight, kind: str) -> list[str]:
    labels = [box.label for box in sight.boxes if confident(box, sight)] + [
        tag.label for tag in sight.tags if tag.score >= TAG_CONFIDENT
    ]
    return (
        []
        if sight.blank
        else list(
            dict.fromkeys(vision_labels.plain(label) for label in labels if vision_labels.is_a(label, kind))
        )
    )


def at_place(timeline: Timeline, place: str, now: float) -> Finding:
    """What is on the road, the table: only where a thing of the picture fits such a place."""
    item = timeline.at(now)
    if item is None or item.sight is None:
        return refusal()
    expected = vision_labels.at_place(place)
    found = [
        name
        for name in names(item.sight)
        if any(vision_labels.is_a(name, thing) or name == thing for thing in expected)
        and not vision_labels.is_a(name, place)
    ]
    if not found:
        return refusal()
    counts = names(item.sight)
    text = " and ".join(vision_labels.counted(name, counts[name]) for name in found[:4])
    return Finding(
        (f"{text[0].upper()}{text[1:]}.",), (_as_evidence(timeline, item),), values=tuple(found[:4])
    )


def count(timeline: Timeline, thing: str, now: float, present: bool) -> Finding | None:
    """How many of a thing the detector counts now, or at most at one time."""
    if not vision_labels.detectable(thing):
        return None
    items = [timeline.at(now)] if present else list(timeline.shown)
    best: tuple[int, Shown] | None = None
    for item in items:
        if item is not None and item.sight is not None:
            number = sum(
                confident(box, item.sight) and vision_labels.is_a(box.label, thing)
                for box in item.sight.boxes
            )
            if number and (best is None or number > best[0]):
                best = number, item
    return (
        None
        if best is None
        else Finding(
            (f"{best[0]}, ", f"as far as I can see, at {timestamp(best[1].start)}."),
            (_as_evidence(timeline, best[1]),),
            values=(str(best[0]),),
        )
    )


def there_now(timeline: Timeline, thing: str, now: float) -> Finding:
    """Whether a thing is in the picture now."""
    item = timeline.at(now)
    if item is None or item.sight is None:
        return refusal()
    span = _as_evidence(timeline, item)
    if is_shown(item.sight, thing):
        return Finding(("Yes, ", f"{phrase(item.sight)} is shown since {timestamp(item.start)}."), (span,))
    if any(
        tag.score >= TAG_POSSIBLE and vision_labels.is_a(tag.label, thing) for tag in item.sight.tags
    ) or any(vision_labels.is_a(box.label, thing) for box in item.sight.boxes):
        return refusal()  # perhaps
    if item.sight.blank:
        return Finding(("No, ", f"{phrase(item.sight)}."), (span,))
    return (
        Finding(("No, ", f"no {thing} is in the picture."), (span,))
        if vision_labels.detectable(thing)
        else refusal()
    )


def there_between(timeline: Timeline, thing: str, start: float, end: float) -> Finding:
    """Whether a thing was shown between two times."""
    spans = [span for span in appearances(timeline, thing) if span.start < end and span.end >= start]
    if spans:
        return Finding(
            ("Yes, ", f"from {timestamp(spans[0].start)} to {timestamp(spans[0].end)}."), (spans[0],)
        )
    items = [
        item
        for item in timeline.shown
        if item.start < end and (item.end is None or item.end > start) and item.sight is not None
    ]
    maybe = any(
        entry.score >= TAG_POSSIBLE and vision_labels.is_a(entry.label, thing)
        for item in items
        if item.sight is not None
        for entry in labelled(item.sight)
    )
    if not items or maybe or not vision_labels.detectable(thing) or timeline.dropped["shown"]:
        return refusal()
    return Finding(
        ("No, ", f"no {thing} has been in the picture."),
        (Evidence(start, end, "timeline", f"no {thing} between {timestamp(start)} and {timestamp(end)}"),),
    )


def anything(timeline: Timeline, now: float) -> Finding:
    """Whether the picture shows anything at all now."""
    item = timeline.at(now)
    if item is None or item.sight is None:
        return refusal()
    found = at(timeline, now)
    if item.sight.blank:
        return Finding(("No, ", f"{phrase(item.sight)}."), (_as_evidence(timeline, item),))
    return (
        Finding(("Yes, ", f"{found.text[0].lower()}{found.text[1:]}"), found.evidence)
        if found is not None
        else Finding(("Yes, ", "the picture is not blank."), (_as_evidence(timeline, item),))
    )


def is_blank(ask: Ask, timeline: Timeline, now: float, present: bool) -> Finding:
    """Whether the picture is, or was, one flat colour."""
    item = timeline.at(now)
    if (
        item is None
        or item.sight is None
        or [
            t
            for t in ask.about
            if t not in ("black", "blank", "empty", "dark", "go", "complet", "turn", "whol")
        ]
    ):
        return refusal()
    if present:
        span = _as_evidence(timeline, item)
        return (
            Finding(("Yes, ", f"{phrase(item.sight)}."), (span,))
            if item.sight.blank
            else Finding(("No, ", "something is shown."), (span,))
        )
    spans = blanks(timeline)
    return (
        Finding(("Yes, ", f"from {timestamp(spans[0].start)} to {timestamp(spans[0].end)}."), (spans[0],))
        if spans
        else Finding(
            ("No, ", "the picture was never blank."), (Evidence(0.0, now, "timeline", "no blank picture"),)
        )
    )


def text_shown(ask: Ask, timeline: Timeline, now: float) -> Finding:
    """Whether a slide about something, or any text, is or was shown."""
    wanted = [t for t in ask.about if t not in ("about", "new")]
    screen = timeline.screen_at(now)
    if not wanted:
        return (
            refusal()
            if screen is None
            else Finding(
                ("Yes, ", f'"{screen.title or screen.lines[0]}".'),
                (Evidence(screen.start, timeline.end_of(screen), "screen", screen.lines[0], screen.frame),),
            )
        )
    for candidate in timeline.screens:
        if set(wanted) <= set(terms(candidate.text)):
            return Finding(
                ("Yes, ", f'"{candidate.title or candidate.lines[0]}", from {timestamp(candidate.start)}.'),
                (
                    Evidence(
                        candidate.start,
                        timeline.end_of(candidate),
                        "screen",
                        candidate.lines[0],
                        candidate.frame,
                    ),
                ),
            )
    return refusal()
