"""What was seen: the scene in words, everything so far, how many of a thing. Pure.

Only what the models saw with confidence is named, and a thing is said to be absent only where the detector
would have found it and saw nothing like it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.speech import is_speaking
from streamsvc.answers.tools.wording import contents, fitting, sentence
from streamsvc.core.types import Evidence, Sight
from streamsvc.timeline.keyframe_history import Shown
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels
from streamsvc.vision.scenes import (
    TAG_POSSIBLE,
    confident,
    count_shown,
    is_shown,
    labelled,
    names,
    phrase,
    quote,
)

JOINED = 4.0  # seconds for which a thing may be lost from sight without a new appearance
BLANK = ("black", "blank")  # labels of a picture that shows nothing
NAMED = 30  # words of a list of things
SCREEN_WORDS = 16  # of a screen's lines beside its title


# --- appearances ---


def appearances(timeline: Timeline, label: str) -> list[Evidence]:
    """When a label was shown, by time; a look that misses it for a moment does not end an appearance."""
    if label in BLANK:
        return _runs(timeline, lambda sight: sight.blank, "blank picture")
    return _runs(timeline, lambda sight: is_shown(sight, label), label)


def _runs(timeline: Timeline, holds: Callable[[Sight], bool], name: str) -> list[Evidence]:
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


def as_evidence(timeline: Timeline, item: Shown) -> Evidence:
    """A keyframe as evidence, quoted by its labels with their scores."""
    told = quote(item.sight) if item.sight is not None else ""
    return Evidence(item.start, timeline.end_of(item), "sight", told, item.start)


def seen_at(timeline: Timeline, when: float) -> Shown | None:
    """The newest keyframe up to a time of which it is known what it shows."""
    items = (item for item in reversed(timeline.shown) if item.start <= when)
    return next((item for item in items if item.sight is not None), None)


def seen_between(timeline: Timeline, span: tuple[float, float]) -> list[Shown]:
    """The keyframes shown in a span, of which it is known what they show; of a moment at most one."""
    start, end = span
    if start == end:
        item = seen_at(timeline, start)
        return [item] if item is not None else []
    return [
        item
        for item in timeline.shown
        if item.sight is not None and item.start <= end and timeline.end_of(item) > start
    ]


def surely_absent(items: Sequence[Shown], label: str) -> bool:
    """Whether pictures surely do not show a label: the detector knows it, and saw nothing like it."""
    sights = [item.sight for item in items if item.sight is not None]
    possible = any(
        labels.is_a(entry.label, label)
        for sight in sights
        for entry in labelled(sight)
        if entry in sight.boxes or entry.score >= TAG_POSSIBLE
    )
    return bool(sights) and labels.detectable(label) and not possible


# --- tools ---


def sights(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The scene, now or at a time: what is seen, the title on the screen, whether somebody speaks."""
    span = arguments.span or (now, now)
    items = seen_between(timeline, span)
    if arguments.label and arguments.form == "yes/no":
        return _is_there(timeline, arguments.label, items)
    parts, spans, values = _described(timeline, items)
    screen = timeline.screen_at(span[1])
    if screen is not None and not any(item.sight and item.sight.blank for item in items[-1:]):
        name = screen.title or screen.lines[0]
        kind = "titled" if screen.title else "that begins with"
        text = f'I see a screen of text {kind} "{quoted(name, 12)}"'
        parts = [text] if not values else [*parts, f'The screen says "{quoted(name, 12)}"']
        if shown := contents([line for line in screen.lines if line != name], SCREEN_WORDS):
            parts[-1] += f': "{shown}"'
        spans.append(Evidence(screen.start, timeline.end_of(screen), "screen", name, screen.frame))
    is_now = span[1] >= now - JOINED
    if is_now and is_speaking(timeline, now):
        heard = timeline.sentences[-1].evidence()
        told = "" if parts else f': "{quoted(heard.quote, 30)}"'
        parts, spans = [*parts, f"Somebody is speaking{told}"], [*spans, heard]
    if not parts:
        return None
    if arguments.form == "yes/no":
        blank = bool(items) and items[-1].sight is not None and items[-1].sight.blank
        parts[0] = f"{'No' if blank else 'Yes'}, {parts[0]}"
    elif not is_now:
        parts[0] = f"at {timestamp(span[0])} {parts[0].replace('I see', 'I saw')}"
    return Finding(" ".join(map(sentence, parts)), tuple(spans), values)


def _described(
    timeline: Timeline, items: Sequence[Shown]
) -> tuple[list[str], list[Evidence], tuple[str, ...]]:
    """What pictures show, in words; [] where no picture is known. The last of several that are equal."""
    told: dict[str, Shown] = {}
    found: list[str] = []
    for item in items:
        if item.sight is not None and (text := phrase(item.sight)):
            told.setdefault(text, item)
            found += names(item.sight)
    if not told:
        spans = [as_evidence(timeline, item) for item in items[-1:]]
        if guess := _guess(items):
            return [f"it may be {labels.article(guess)}"], spans, (guess,)
        return (["I see nothing that I can name"] if items else []), spans, ()
    text, count = fitting(told, 24, "; then ")
    spans = [as_evidence(timeline, item) for item in list(told.values())[:count]]
    return [text if text.startswith("the picture") else f"I see {text}"], spans, tuple(dict.fromkeys(found))


def _guess(items: Sequence[Shown]) -> str:
    """The likeliest tag of the newest picture, below the score from which it is named; "": none."""
    sight = items[-1].sight if items else None
    likely = [tag for tag in sight.tags if tag.score >= TAG_POSSIBLE] if sight is not None else []
    return max(likely, key=lambda tag: tag.score).label if likely else ""


def _is_there(timeline: Timeline, label: str, items: Sequence[Shown]) -> Finding | None:
    """Whether a label is in some pictures."""
    if label in BLANK:
        hits = [item for item in items if item.sight is not None and item.sight.blank]
    else:
        hits = [item for item in items if item.sight is not None and is_shown(item.sight, label)]
    if hits:
        told = phrase(hits[0].sight) if hits[0].sight is not None else None
        since = (
            f"since {timestamp(hits[0].start)}" if hits[0].end is None else f"at {timestamp(hits[0].start)}"
        )
        answer = sentence(f"Yes, {told or label}, {since}")
        return Finding(answer, (as_evidence(timeline, hits[0]),), (label,))
    if label in BLANK and items:
        told = phrase(items[-1].sight) if items[-1].sight is not None else None
        return Finding(sentence(f"No, {told or 'something is shown'}"), (as_evidence(timeline, items[-1]),))
    if not surely_absent(items, label):
        return None
    return Finding(f"No, I see no {labels.singular(label)}.", (as_evidence(timeline, items[-1]),))


def seen(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """Everything that has been seen, each once, by time; of a label ("animal") what is one."""
    start, end = arguments.span or (0.0, now)
    items = seen_between(timeline, (start, end) if end > start else (0.0, end))
    told: dict[str, Evidence] = {}
    for item in items:
        for name in names(item.sight) if item.sight is not None else ():
            if not arguments.label or labels.is_a(name, arguments.label):
                told.setdefault(labels.article(name), as_evidence(timeline, item))
    for screen in timeline.screens if not arguments.label else ():
        if screen.start <= end and timeline.end_of(screen) > start and screen.title:
            shown = Evidence(screen.start, timeline.end_of(screen), "screen", screen.title, screen.frame)
            told.setdefault(f'"{quoted(screen.title, 8)}"', shown)
    ordered = sorted(told.items(), key=lambda entry: entry[1].start)
    if not ordered:
        return _none_seen(timeline, items, arguments)
    text, count = fitting([name for name, _ in ordered], NAMED)
    more = f" and {len(ordered) - count} more" if count < len(ordered) else ""
    verdict = "Yes, " if arguments.form == "yes/no" else ""
    values = tuple(name.strip('"').removeprefix("a ").removeprefix("an ") for name, _ in ordered)
    return Finding(sentence(f"{verdict}{text}{more}"), tuple(span for _, span in ordered[:count]), values)


def _none_seen(timeline: Timeline, items: Sequence[Shown], arguments: Arguments) -> Finding | None:
    if not items or (arguments.label and not surely_absent(items, arguments.label)):
        return None
    text = (
        f"I have seen no {labels.singular(arguments.label)}"
        if arguments.label
        else "I have seen nothing that I can name"
    )
    span = Evidence(items[0].start, timeline.end_of(items[-1]), "timeline", text, items[-1].start)
    return Finding(sentence(f"No, {text}" if arguments.form == "yes/no" else text), (span,))


def count(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """How many of a label are seen, now or at a time; at most at once in a span, or if none is seen now."""
    label = arguments.label
    if not label or not labels.detectable(label):
        return None
    items = seen_between(timeline, arguments.span or (now, now))
    best = _most(items, label)
    if best is not None:
        number, item = best
        things = labels.counted(labels.singular(label), number)
        text = f"{things}, as far as I can see, at {timestamp(item.start)}"
        verdict = "Yes, " if arguments.form == "yes/no" else ""
        return Finding(sentence(verdict + text), (as_evidence(timeline, item),), (str(number),))
    if not surely_absent(items, label):
        return None
    text = f"I see no {labels.singular(label)}"
    spans = [as_evidence(timeline, items[-1])]
    earlier = _most(seen_between(timeline, (0.0, now)), label) if arguments.span is None else None
    if earlier is not None:
        text += f" now; at most {earlier[0]} at once, at {timestamp(earlier[1].start)}"
        spans.append(as_evidence(timeline, earlier[1]))
    answer = sentence(f"No, {text}" if arguments.form == "yes/no" else text)
    return Finding(answer, tuple(spans), ("0",))


def _most(items: Sequence[Shown], label: str) -> tuple[int, Shown] | None:
    """The most of a label that one picture shows, and the first such picture; None: none shows any."""
    counted = []
    for item in items:
        sight = item.sight
        if sight is not None and not sight.blank:
            boxes = sum(confident(box, sight) and labels.is_a(box.label, label) for box in sight.boxes)
            counted.append((boxes or count_shown(sight, label), item))
    best = max(counted, key=lambda entry: entry[0], default=None)
    return best if best is not None and best[0] else None
