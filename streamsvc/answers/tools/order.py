"""What came first, or before or after something: slides, pictures and words by their times. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.matching import mentions
from streamsvc.answers.tools.screen import as_evidence, name_of, slide_with, slides_of
from streamsvc.answers.tools.sights import appearances
from streamsvc.answers.tools.sights import as_evidence as sight_evidence
from streamsvc.answers.tools.wording import fitting, sentence
from streamsvc.core.types import Evidence
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels
from streamsvc.vision.scenes import phrase

TOGETHER = 0.3  # seconds between two things of which neither came first
LISTED = 36  # words of a whole order
Step = tuple[str, Evidence]  # what was shown, and when


def order(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """What came first of two things, what came before or after one, or before what is shown now.

    `label` or `text`, and `other`: two things; yes/no: whether the first came before the second, with
    `ordinal` -1 after it. One thing: its neighbours; `ordinal` -1: the one before, 1: the one after. None:
    the n-th thing shown, the one before the present one, or all of them (form "list").
    """
    first = arguments.label or arguments.text
    if first and arguments.other:
        return _of_two(timeline, first, arguments.other, arguments)
    steps = steps_of(timeline, now)
    if first or arguments.other:
        return _beside(timeline, first or arguments.other, steps, arguments.ordinal)
    if not steps:
        return None
    if arguments.form == "list":
        text, count = fitting((f"{name} ({timestamp(span.start)})" for name, span in steps), LISTED)
        return Finding(
            sentence(text), tuple(span for _, span in steps[:count]), tuple(_bare(name) for name, _ in steps)
        )
    if arguments.ordinal is not None and arguments.ordinal > 0:
        if arguments.ordinal > len(steps):
            return None
        return _told([steps[arguments.ordinal - 1]], [""])
    if len(steps) < 2:
        return None
    return _told([steps[-2], steps[-1]], ["", "after it"])


def steps_of(timeline: Timeline, now: float = float("inf")) -> list[Step]:
    """What was shown, one after the other: slides by title, and what the pictures show without a slide."""
    found: list[Step] = [
        (f'"{quoted(name_of(one), 12)}"', as_evidence(one, timeline)) for one in slides_of(timeline, now)
    ]
    for item in timeline.shown:
        told = phrase(item.sight) if item.sight is not None else None
        is_slide = any(span.start <= item.start < span.end for _, span in found if span.kind == "screen")
        if told is not None and item.start <= now and not is_slide:
            found.append((told, sight_evidence(timeline, item)))
    found.sort(key=lambda step: step[1].start)
    return [step for place, step in enumerate(found) if not place or found[place - 1][0] != step[0]]


def came(timeline: Timeline, name: str) -> tuple[str, Evidence] | None:
    """When a thing was first shown, a slide first seen, or words first said or written."""
    if shown := appearances(timeline, name):
        return f"the {labels.singular(name)}", shown[0]
    titled = slide_with(timeline, name)
    spans = mentions(timeline, name)
    if titled is not None:
        spans = sorted([*spans, as_evidence(titled, timeline)], key=lambda span: span.start)
    return (f'"{quoted(name, 8)}"', spans[0]) if spans else None


def _of_two(timeline: Timeline, first: str, second: str, arguments: Arguments) -> Finding | None:
    one, other = came(timeline, first), came(timeline, second)
    if one is None or other is None or abs(one[1].start - other[1].start) < TOGETHER:
        return None
    early, late = sorted((one, other), key=lambda step: step[1].start)
    text = f"{early[0]} came first, at {timestamp(early[1].start)}; {late[0]} at {timestamp(late[1].start)}"
    if arguments.form == "yes/no":
        holds = (early is one) == (arguments.ordinal != -1)
        text = f"{'Yes' if holds else 'No'}, {text}"
    return Finding(sentence(text), (early[1], late[1]), (_bare(early[0]),))


def _beside(timeline: Timeline, name: str, steps: Sequence[Step], ordinal: int | None) -> Finding | None:
    """The steps before and after a thing."""
    found = came(timeline, name)
    if found is None:
        return None
    anchor = found[1]
    before = [step for step in steps if step[1].end <= anchor.start + TOGETHER]
    after = [step for step in steps if step[1].start >= anchor.end - TOGETHER]
    if ordinal == -1:
        return _told(before[-1:], [""])
    if ordinal == 1:
        return _told(after[:1], [""])
    return _told([*before[-1:], *after[:1]], [*["before it"] * bool(before), *["after it"] * bool(after)])


def _told(steps: Sequence[Step], places: Sequence[str]) -> Finding | None:
    """Steps with their times, each with a word on its place."""
    if not steps:
        return None
    parts = [
        f"{place + ': ' if place else ''}{name}, at {timestamp(span.start)}"
        for (name, span), place in zip(steps, places, strict=True)
    ]
    values = tuple(_bare(name) for name, _ in steps)
    return Finding(sentence("; ".join(parts)), tuple(span for _, span in steps), values)


def _bare(name: str) -> str:
    """A name without its quotation marks or article."""
    return name.strip('"').removeprefix("the ")
