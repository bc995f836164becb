"""Where a thing is in the picture, what is on a side of it, and how two things lie to each other. Pure.

What has no box, or is not surely one thing, has no place: then nothing is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.answers.finding import Finding, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools import boxes as geometry
from streamsvc.answers.tools.sights import seen_at, surely_absent
from streamsvc.answers.tools.wording import listed, sentence
from streamsvc.core.types import Box, Evidence, Sight
from streamsvc.timeline.keyframe_history import Shown
from streamsvc.timeline.text import tokens
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels

ZONES = ("left", "right", "top", "bottom", "middle")  # in `Arguments.text`, without `other`
MANY = 3  # things of one label, beyond which their places are not told one by one


@dataclass(frozen=True, slots=True)
class _Picture:
    """A keyframe that has been looked at, and what is asked of it."""

    item: Shown
    sight: Sight
    timeline: Timeline
    arguments: Arguments

    def told(self, text: str, boxes: Sequence[Box], *values: str) -> Finding:
        """An answer with the boxes that it rests on."""
        end = self.timeline.end_of(self.item)
        quote = geometry.quote_of(boxes)
        span = Evidence(self.item.start, end, "sight", quote, self.item.start)
        return Finding(sentence(text), (span,), values)

    def found(self, boxes: Sequence[Box], place: str, beside: Sequence[Box] = ()) -> Finding:
        """Which things are somewhere, how many, or that they are."""
        names = dict.fromkeys(labels.plain(box.label) for box in boxes)
        match self.arguments.form:
            case "yes/no":
                verb = "is" if len(boxes) == 1 else "are"
                return self.told(f"Yes, {_named(boxes)} {verb} {place}", [*boxes, *beside])
            case "how often":
                at = timestamp(self.item.start)
                return self.told(
                    f"{len(boxes)} {place}, as far as I can see, at {at}", boxes, str(len(boxes))
                )
            case _:
                return self.told(_named(boxes), [*boxes, *beside], *names)


def relation(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """Where things are, now or at a time.

    `label` alone: where it is. `text` alone, a zone ("left", "top" ...): what is there. `label` and a zone:
    whether it is there. `other` with `text` (of `boxes.RELATIONS`): what, or whether `label`, lies so to it.
    `label` and `other` alone: how they lie to each other.
    """
    item = seen_at(timeline, arguments.span[0] if arguments.span else now)
    if item is None or item.sight is None or item.sight.blank:
        return None
    picture = _Picture(item, item.sight, timeline, arguments)
    if arguments.other:
        return _to_other(picture)
    if (zone := _named_in(arguments.text, ZONES)) is not None:
        return _in_zone(picture, zone)
    return _where(picture) if arguments.label else None


def _where(picture: _Picture) -> Finding | None:
    """On which side of the picture a thing is."""
    boxes = geometry.boxes_of(picture.sight, picture.arguments.label)
    if not boxes:
        return None
    places = [place for box in boxes if (place := geometry.place_of(box)) is not None]
    if len(places) < len(boxes) or len(boxes) > MANY:
        return None
    counts = Counter(places)
    if len(counts) == 1:
        return picture.told(places[0], boxes, places[0])
    return picture.told(", ".join(f"{count} {place}" for place, count in counts.items()), boxes)


def _in_zone(picture: _Picture, zone: str) -> Finding | None:
    """What is on a side of the picture, or whether a thing is."""
    label = picture.arguments.label
    boxes = geometry.boxes_of(picture.sight, label)
    if boxes is None:
        return None
    place = {"left": "on the left", "right": "on the right", "middle": "in the middle"}.get(
        zone, f"at the {zone}"
    )
    if label and not boxes:
        if not surely_absent([picture.item], label):
            return None  # a tag has no place
        text = f"I see no {labels.singular(label)}"
        return picture.told(f"No, {text}" if picture.arguments.form == "yes/no" else text, [])
    told = [geometry.sides(box)[zone] for box in boxes]
    within = [box for box, holds in zip(boxes, told, strict=True) if holds]
    if within and not (None in told and picture.arguments.form == "how often"):
        return picture.found(within, place)
    if within or None in told or picture.arguments.form != "yes/no" or not label:
        return None
    elsewhere = geometry.place_of(boxes[0]) if len(boxes) == 1 else None
    name = labels.plain(boxes[0].label)
    return picture.told(f"No, the {name} is {elsewhere}" if elsewhere else f"No, none is {place}", boxes)


def _to_other(picture: _Picture) -> Finding | None:
    """What lies how to a thing; of several such things nobody knows which is meant."""
    arguments = picture.arguments
    anchors = geometry.boxes_of(picture.sight, arguments.other)
    boxes = geometry.boxes_of(picture.sight, arguments.label)
    if anchors is None or len(anchors) != 1 or boxes is None:
        return None
    anchor = anchors[0]
    boxes = [box for box in boxes if box is not anchor]
    name = labels.plain(anchor.label)
    how = _named_in(arguments.text, tuple(geometry.RELATIONS))
    if how is None:
        return _as_they_lie(picture, boxes, anchor) if arguments.label else None
    told = [geometry.RELATIONS[how](box, anchor) for box in boxes]
    found = [box for box, fits in zip(boxes, told, strict=True) if fits]
    place = f"{how}{' of' if how in ('left', 'right') else ''} the {name}"
    if found and not (None in told and arguments.form == "how often"):
        return picture.found(found, place, anchors)
    if found or not boxes or None in told or arguments.form != "yes/no" or not arguments.label:
        return None
    return picture.told(f"No, none is {place}", [*boxes, anchor])


def _named_in(text: str, names: Sequence[str]) -> str | None:
    """The longest of some names that stands in a text."""
    words = f" {' '.join(tokens(text))} "
    return max((name for name in names if f" {name} " in words), key=len, default=None)


def _as_they_lie(picture: _Picture, boxes: Sequence[Box], anchor: Box) -> Finding | None:
    """How one thing lies to another, without a relation that is asked for."""
    if len(boxes) != 1 or (name := geometry.relation_of(boxes[0], anchor)) is None:
        return None
    one, other = labels.plain(boxes[0].label), labels.plain(anchor.label)
    return picture.told(f"the {one} is {name} the {other}", [boxes[0], anchor], name)


def _named(boxes: Sequence[Box]) -> str:
    counts = Counter(labels.plain(box.label) for box in boxes)
    return listed([labels.counted(name, count) for name, count in counts.items()][:5])
