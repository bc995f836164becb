"""What colour a thing, the background or the picture is, as it was measured. Pure.

A colour is told only of what the question is about as a whole: where a word is left that names something else
("the cat's eyes"), nothing is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamsvc.answers import intents
from streamsvc.answers.finding import Finding, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools import boxes as geometry
from streamsvc.answers.tools.sights import JOINED, seen_at
from streamsvc.answers.tools.wording import listed, sentence
from streamsvc.core.types import Box, Evidence, Sight
from streamsvc.timeline.keyframe_history import Shown
from streamsvc.timeline.text import terms
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels
from streamsvc.vision.colour import NAMES, NEIGHBOURS
from streamsvc.vision.scenes import is_shown

ZONES = ("left", "right", "top", "bottom", "middle")
UNTOLD = (
    "person",
    "traffic light",
)  # of the one clothes, hair or skin is asked for, of the other which lamp is lit
MANY = 3  # things of one label, beyond which their colours are not told


def colour(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The colour of a thing, now or when it was last shown; of the background or the picture.

    `text`: the whole question. `label`: the thing; without one, the background or the picture if the text
    names it. `form` "yes/no" and a colour in the text: whether it is that colour.
    """
    when = arguments.span[1] if arguments.span else now
    asked = tuple(dict.fromkeys(name for word in terms(arguments.text) if (name := _colours().get(word))))
    if len(asked) > (arguments.form == "yes/no") or _names_more(arguments):
        return None
    if arguments.label:
        return _of_thing(timeline, arguments, when, asked)
    item = seen_at(timeline, when)
    if item is None or item.sight is None:
        return None
    words = set(terms(arguments.text))
    names: tuple[str, ...] = ()
    if words & set(terms(" ".join(intents.colour_words().background))):
        names = item.sight.background
    elif words & set(terms(" ".join(intents.colour_words().picture))):
        names = item.sight.colours
    quote = f"measured: {listed(names)}" if names else ""
    span = Evidence(item.start, timeline.end_of(item), "sight", quote, item.start)
    return _told([names], asked, span, now)


def _colours() -> dict[str, str]:
    """Stem of a word for a colour -> its name."""
    same = intents.colour_words().same
    return {
        stem: name
        for word, name in [*((name, name) for name in NAMES), *same.items()]
        for stem in terms(word)
    }


def _names_more(arguments: Arguments) -> bool:
    """Whether the question names something beside the thing, its place and its colour."""
    words = intents.colour_words()
    told = (arguments.label, arguments.other, *ZONES, *words.background, *words.picture, *words.idle)
    return not {*terms(arguments.text)} <= {*terms(" ".join(told)), *_colours()}


def _of_thing(timeline: Timeline, arguments: Arguments, when: float, asked: Sequence[str]) -> Finding | None:
    item = _shows(timeline, arguments.label, when)
    if item is None or item.sight is None or any(labels.is_a(name, arguments.label) for name in UNTOLD):
        return None
    found = _meant(item.sight, arguments)
    if not 0 < len(found) <= MANY:
        return None
    names = [box.colours for box in found]
    quote = f"{geometry.quote_of(found)}, measured: {', '.join(map(listed, filter(None, names)))}"
    return _told(names, asked, Evidence(item.start, timeline.end_of(item), "sight", quote, item.start), when)


def _shows(timeline: Timeline, label: str, when: float) -> Shown | None:
    """The newest keyframe up to a time that shows a label."""
    items = (item for item in reversed(timeline.shown) if item.start <= when and item.sight is not None)
    return next((item for item in items if item.sight is not None and is_shown(item.sight, label)), None)


def _meant(sight: Sight, arguments: Arguments) -> list[Box]:
    """The boxes of the thing that is asked for, on the side of the picture that is named."""
    found = geometry.boxes_of(sight, arguments.label) or []
    words = set(terms(arguments.text))
    zone = next((zone for zone in ZONES if words & set(terms(zone))), None)
    return [box for box in found if zone is None or geometry.sides(box)[zone]]


def _told(
    names: Sequence[tuple[str, ...]], asked: Sequence[str], span: Evidence, now: float
) -> Finding | None:
    """The colours of one or several things, or whether they are the one asked for. None: one is mixed."""
    if not all(names):
        return None
    each = list(dict.fromkeys(listed(item) for item in names))
    at = "" if span.end >= now - JOINED else f", at {timestamp(span.start)}"
    values = tuple(dict.fromkeys(name for item in names for name in item))
    if not asked:
        text = each[0] if len(each) == 1 else listed([f"one {text}" for text in map(listed, names)])
        return Finding(sentence(text + at), (span,), values)
    if len(each) > 1:
        return None
    if asked[0] in values:
        return Finding(sentence(f"Yes, {each[0]}{at}"), (span,), values)
    if any(asked[0] in NEIGHBOURS[name] for name in values):  # by other light it may be
        return None
    return Finding(sentence(f"No, {each[0]}{at}"), (span,), values)
