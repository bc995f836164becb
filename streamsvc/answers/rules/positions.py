"""Where things are in a picture: left, right, above, below, next to, in the middle; from the boxes of the detector. Pure.

Left is the left of who looks at the picture. What has no box, lies across a border, overlaps, or is not surely seen is declined:
a box is never exact, and a picture tells nothing of what stands in front.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from streamsvc.answers.rules import sights
from streamsvc.answers.rules.finding import Finding, refusal, timestamp
from streamsvc.answers.rules.parse import Ask, thing_in
from streamsvc.core.types import Box, Evidence, Sight
from streamsvc.timeline.keyframe_history import Shown
from streamsvc.timeline.text import STOP, stem, tokens
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels, scenes

INNER, OUTER = (
    0.37,
    0.43,
)  # shares of the picture: a centre up to INNER is on one side, from OUTER on in the middle; between, nobody knows
ACROSS = 0.58  # ... and what is on one side ends before it
SAME = 0.4  # overlap (intersection over union) from which two boxes may be of one thing
TOUCHING = 0.03  # shares of the picture by which boxes may overlap and still lie beside each other
NEAR = 0.15  # ... and between which they are next to each other
LEVEL = 0.5  # share of the lower box's height that both have in common, of things next to each other
ALIKE = 3.0  # how many times as high as the other one of them may be: much more, and it stands nearer

_PICTURE = r"(?: (?:of|in) (?:the |this )?(?:picture|image|screen|frame|scene|video|view|shot|photo))?"
_SIDES = r"left|right|middle|cent(?:er|re)|top|bottom"
_ZONE = re.compile(
    rf"\b(?:on|at|in|to) (?:the |your |my )?(?:(?:very|far) )?(?:(upper|top|lower|bottom)[ -])?({_SIDES})(?:[ -]hand)?"
    rf"(?: (?:side|half|part|edge|corner|third))?{_PICTURE}(?! of\b)(?= *$| now\b| right now\b| at the moment\b| currently\b| at \d| \d)"
)
_RELATION = re.compile(
    r"\b(?:(?:on|to|at) the )?(left|right)(?:[ -]hand)?(?: side)? of (.+)$|"
    r"\b(?:directly |right |just )?(above|over|below|under|underneath|beneath|next to|beside|besides|alongside) (.+)$"
)
_TEXT = re.compile(
    r"\b(text|texts|slides?|titles?|words?|written|writing|lines?|columns?|rows?|points?|bullets?|letters?|numbers?|says?|reads?)\b"
)
_PAST = re.compile(
    r"\b(was|were|did|had|has been|have been|ever|first|last|before|after|so far|yet|until|while|when)\b"
)
_TAIL = re.compile(
    rf" ?(?:\b(?:right )?now|at the moment|currently|at [\d:]+(?: seconds?| minutes?| s)?|{_PICTURE.strip()})$"
)
_WHERE = re.compile(r"where(?:'s| is| are) (?:the |an? )?(.+)")
_EITHER = re.compile(
    rf"(?:is|are) the (.+?) (?:on|at|in) the (?:{_SIDES})(?: side)? or (?:(?:on|at|in) )?(?:the )?(?:{_SIDES})(?: side)?{_PICTURE}"
)
_NAMES = {"centre": "middle", "center": "middle", "upper": "top", "lower": "bottom"}
_ANYTHING = frozenset(
    [
        "anything",
        "something",
        "thing",
        "things",
        "object",
        "objects",
        "else",
        "many",
        "see",
        "seen",
        "visible",
        "shown",
        "show",
    ]
)


def placed(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Where things are, or what is somewhere, now or at a second that is named; None: the question is about no place of the picture."""
    if ask.quoted or ask.spoken or _TEXT.search(ask.text) or ask.form in ("when", "how long"):
        return None
    where = _WHERE.fullmatch(ask.text) or _EITHER.fullmatch(ask.text)
    zone, relation = _ZONE.search(ask.text), _RELATION.search(ask.text)
    if where is None and zone is None and relation is None:
        return None
    past = not ask.times and ask.ago is None and (ask.last is not None or _PAST.search(ask.text) is not None)
    item = timeline.at(ask.times[0] if ask.times else now - (ask.ago or 0.0))
    if item is None or item.sight is None or past:
        return refusal() if zone is not None else None
    look = _Look(ask, item, item.sight, timeline)
    if where is not None:
        return _where(_TAIL.sub("", where[1]), look)
    if zone is not None:
        return _in_zone(
            ask.text[: zone.start()], {_NAMES.get(name, name) for name in zone.groups() if name}, look
        )
    assert relation is not None
    name, rest = (part for part in relation.groups() if part)
    return _related(ask.text[: relation.start()], name, _TAIL.sub("", rest), look)


# --- boxes ----------------------------------------------------------------------------------------------------------


def side(start: float, size: float) -> str | None:
    """On which side of a picture a box lies along one axis: "low", "middle" or "high"; None: across a border, or too near to one.

    Args:
        start: where it begins, as a share of the picture's width or height.
        size: of it, likewise.
    """
    centre, end = start + size / 2, start + size
    if centre <= INNER and end <= ACROSS:
        return "low"
    if centre >= 1 - INNER and start >= 1 - ACROSS:
        return "high"
    return "middle" if OUTER <= centre <= 1 - OUTER else None


def sides(box: Box) -> dict[str, bool | None]:
    """Whether a box lies at the left, the right, the top, the bottom and in the middle; None: nobody knows."""
    across, down = side(box.x, box.w), side(box.y, box.h)

    def known(found: str | None, wanted: str) -> bool | None:
        return None if found is None else found == wanted

    told = {
        "left": known(across, "low"),
        "right": known(across, "high"),
        "top": known(down, "low"),
        "bottom": known(down, "high"),
    }
    return told | {"middle": known(across, "middle")}


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    height = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one.w * one.h + other.w * other.h - shared) if shared else 0.0


def _before(one: float, size: float, other: float, room: float) -> bool | None:
    """Whether something ends, along an axis, where something else of size `room` begins; False: the other way round; None: they overlap."""
    slack = min(TOUCHING, size / 4, room / 4)
    if one + size <= other + slack:
        return True
    return False if other + room <= one + slack else None


def left_of(one: Box, other: Box) -> bool | None:
    """Whether a box lies left of another; None: they overlap there, so nobody knows."""
    return _before(one.x, one.w, other.x, other.w)


def above(one: Box, other: Box) -> bool | None:
    """Whether a box lies above another, and not only higher up somewhere else; None: nobody knows."""
    higher = _before(one.y, one.h, other.y, other.h)
    return None if higher and left_of(one, other) is not None else higher


def next_to(one: Box, other: Box) -> bool | None:
    """Whether two boxes lie side by side at one height, near each other; None: nobody knows."""
    if left_of(one, other) is None or max(one.h, other.h) > ALIKE * min(one.h, other.h):
        return None
    gap = max(other.x - one.x - one.w, one.x - other.x - other.w)
    level = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    if gap <= NEAR and level >= LEVEL * min(one.h, other.h):
        return True
    return False if gap > 2 * NEAR else None


_RELATIONS: dict[str, Callable[[Box, Box], bool | None]] = {
    "left": left_of,
    "right": lambda one, other: left_of(other, one),
    **dict.fromkeys(("above", "over"), above),
    **dict.fromkeys(("below", "under", "underneath", "beneath"), lambda one, other: above(other, one)),
    **dict.fromkeys(("next to", "beside", "besides", "alongside"), next_to),
}


@dataclass(frozen=True, slots=True)
class _Look:
    """A question, and the picture that it is about."""

    ask: Ask
    item: Shown
    sight: Sight
    timeline: Timeline

    def boxes(self, thing: str | None) -> list[Box] | None:
        """Of a thing, or of all things; None: some are not sure, or may be of one and the same thing."""
        every = [box for box in self.sight.boxes if thing is None or labels.is_a(box.label, thing)]
        found = [box for box in every if scenes.confident(box, self.sight)]
        double = any(
            one.label == other.label and overlap(one, other) > SAME for one, other in combinations(found, 2)
        )
        return None if double or (thing is not None and len(found) < len(every)) else found

    def told(self, clauses: tuple[str, ...], boxes: Sequence[Box], *values: str) -> Finding:
        """An answer with the boxes that it rests on."""
        quote = ", ".join(
            f"{box.label} {box.score:.2f} (x {box.x:.2f} to {box.x + box.w:.2f}, y {box.y:.2f} to {box.y + box.h:.2f})"
            for box in boxes[:6]
        )
        place = Evidence(self.item.start, self.timeline.end_of(self.item), "sight", quote, self.item.start)
        return Finding(clauses, (place,), values=values)

    def listed(self, boxes: Sequence[Box], others: Sequence[Box] = ()) -> Finding:
        """Which things these are."""
        return self.told(
            (f"{_list(boxes, capital=True)}.",),
            [*boxes, *others],
            *dict.fromkeys(labels.plain(box.label) for box in boxes),
        )

    def counted(self, boxes: Sequence[Box], place: str) -> Finding:
        """How many there are of them."""
        return self.told(
            (f"{len(boxes)} {place}, ", f"as far as I can see, at {timestamp(self.item.start)}."),
            boxes,
            str(len(boxes)),
        )

    def affirmed(self, boxes: Sequence[Box], place: str, others: Sequence[Box] = ()) -> Finding:
        """That they are there."""
        return self.told(
            ("Yes, ", f"{_list(boxes)} {'is' if len(boxes) == 1 else 'are'} {place}."), [*boxes, *others]
        )


def _thing(text: str) -> tuple[str | None, bool]:
    """The thing that a part of a question names, and whether it names nothing else."""
    found = thing_in(text)
    words = [
        word
        for word in (tokens(text) if found is None else found[1])
        if stem(word) not in STOP and word not in STOP | _ANYTHING
    ]
    if found is None:
        return None, not words
    return "person" if labels.is_a("person", found[0]) else found[0], not words


# --- answers --------------------------------------------------------------------------------------------------------


def _in_zone(subject: str, zone: set[str], look: _Look) -> Finding:
    """What, whether, or how many things are on a side of the picture."""
    thing, alone = _thing(subject)
    boxes = look.boxes(thing)
    if not alone or boxes is None or re.match(r"who\b", subject):
        return refusal()
    if thing is not None and not boxes:  # a tag has no place
        absent = look.ask.form == "yes/no" and not scenes.count_shown(look.sight, thing)
        return sights.there_now(look.timeline, thing, look.item.start) if absent else refusal()
    each = [[sides(box)[name] for name in zone] for box in boxes]
    within = [box for box, told in zip(boxes, each, strict=True) if all(told)]
    unknown = any(None in told and False not in told for told in each)
    place = _called(zone)
    if look.ask.form == "yes/no":
        if within:
            return look.affirmed(within, place)
        if thing is None or unknown:
            return refusal()
        elsewhere = _place(boxes[0]) if len(boxes) == 1 else None
        why = f"the {labels.plain(boxes[0].label)} is {elsewhere}." if elsewhere else f"none is {place}."
        return look.told(("No, ", why), boxes)
    if not within or (unknown and look.ask.form == "how many"):
        return refusal()
    return look.counted(within, place) if look.ask.form == "how many" else look.listed(within)


def _related(subject: str, relation: str, rest: str, look: _Look) -> Finding | None:
    """What is beside, above or below a thing, or whether something is; None: nothing of the kind is seen, it may be told of."""
    (thing, alone), (other, only) = _thing(subject), _thing(rest)
    if other is None or not any(labels.is_a(box.label, other) for box in look.sight.boxes):
        return refusal() if look.ask.seen else None
    anchors, boxes = look.boxes(other), look.boxes(thing)
    if (
        not (alone and only)
        or anchors is None
        or len(anchors) != 1
        or boxes is None
        or re.match(r"who\b", subject)
    ):
        return refusal()  # of several, nobody knows which is meant
    boxes = [box for box in boxes if box is not anchors[0]]
    told = [_RELATIONS[relation](box, anchors[0]) for box in boxes]
    found = [box for box, holds in zip(boxes, told, strict=True) if holds]
    place = f"{relation}{' of' if relation in ('left', 'right') else ''} the {labels.plain(anchors[0].label)}"
    if look.ask.form == "yes/no":
        if found:
            return look.affirmed(found, place, anchors)
        if thing is None or not boxes or None in told:
            return refusal()
        return look.told(("No, ", f"none is {place}."), [*boxes, *anchors])
    if not found or (None in told and look.ask.form == "how many"):
        return refusal()
    return look.counted(found, place) if look.ask.form == "how many" else look.listed(found, anchors)


def _where(rest: str, look: _Look) -> Finding | None:
    """On which side of the picture a thing is; None: none is seen, it may be told of."""
    thing, alone = _thing(rest)
    if thing is None or not alone or not any(labels.is_a(box.label, thing) for box in look.sight.boxes):
        return None
    boxes = look.boxes(thing)
    places = [place for box in boxes or () if (place := _place(box)) is not None]
    if not boxes or len(places) < len(boxes) or len(boxes) > 3:
        return refusal()
    counts = Counter(places)
    if len(counts) == 1:
        return look.told((f"{places[0].capitalize()}.",), boxes, places[0])
    return look.told((", ".join(f"{number} {place}" for place, number in counts.items()) + ".",), boxes)


def _place(box: Box) -> str | None:
    """Where a box is, in words; None: nobody knows."""
    told = sides(box)
    across = next((name for name in ("left", "right", "middle") if told[name]), None)
    down = next((name for name in ("top", "bottom") if told[name]), None)
    if across is None:
        return None
    return _called({across, down} if down is not None and across != "middle" else {across})


def _called(zone: set[str]) -> str:
    """As in "on the left", "at the bottom left", "in the middle"."""
    across = zone & {"left", "right", "middle"}
    down = zone & {"top", "bottom"}
    if not across:
        return f"at the {next(iter(down))}"
    name = next(iter(across))
    if down:
        return f"at the {next(iter(down))} {name}"
    return "in the middle" if name == "middle" else f"on the {name}"


def _list(boxes: Sequence[Box], *, capital: bool = False) -> str:
    counts = Counter(labels.plain(box.label) for box in boxes)
    names = [labels.counted(name, count) for name, count in counts.items()][:5]
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{text[0].upper()}{text[1:]}" if capital else text
