"""Where boxes lie in a picture, and how to each other. Pure geometry; left is the left of who looks at it.

A box is never exact, and a picture does not tell what stands in front: what lies across a border or overlaps
is not decided (None).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from streamsvc.core.types import Box, Sight
from streamsvc.vision import labels, scenes

# Shares of the picture, but for LEVEL, SAME_THING and ALIKE.
INNER = 0.37  # a centre up to here is on one side, ...
OUTER = 0.43  # ... from here on in the middle; between the two it is not decided
ACROSS = 0.58  # what is on one side ends before it
TOUCHING = 0.03  # by which boxes may overlap and still lie beside each other
NEAR = 0.15  # between things that are next to each other
SAME_THING = 0.4  # intersection over union from which two boxes may be of one thing
LEVEL = 0.5  # share of the lower box's height that two things next to each other have in common
ALIKE = 3.0  # times as high as the other one of them may be: much more, and it stands nearer


def side(start: float, size: float) -> str | None:
    """On which side of a picture a box lies along one axis: "low", "middle" or "high"; None: not decided.

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
    """Whether a box lies at the left, the right, the top, the bottom, in the middle; None: not decided."""
    across, down = side(box.x, box.w), side(box.y, box.h)

    def known(found: str | None, wanted: str) -> bool | None:
        return None if found is None else found == wanted

    return {
        "left": known(across, "low"),
        "right": known(across, "high"),
        "top": known(down, "low"),
        "bottom": known(down, "high"),
        "middle": known(across, "middle"),
    }


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    height = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one.w * one.h + other.w * other.h - shared) if shared else 0.0


def _ends_before(one: float, size: float, other: float, room: float) -> bool | None:
    """Whether something ends, along an axis, where something else of size `room` begins.

    False: the other way round; None: they overlap.
    """
    slack = min(TOUCHING, size / 4, room / 4)
    if one + size <= other + slack:
        return True
    return False if other + room <= one + slack else None


def left_of(one: Box, other: Box) -> bool | None:
    """Whether a box lies left of another; None: they overlap there."""
    return _ends_before(one.x, one.w, other.x, other.w)


def above(one: Box, other: Box) -> bool | None:
    """Whether a box lies above another, and not only higher up somewhere else; None: not decided."""
    higher = _ends_before(one.y, one.h, other.y, other.h)
    return None if higher and left_of(one, other) is not None else higher


def next_to(one: Box, other: Box) -> bool | None:
    """Whether two boxes lie side by side at one height, near each other; None: not decided."""
    if left_of(one, other) is None or max(one.h, other.h) > ALIKE * min(one.h, other.h):
        return None
    gap = max(other.x - one.x - one.w, one.x - other.x - other.w)
    level = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    if gap <= NEAR and level >= LEVEL * min(one.h, other.h):
        return True
    return False if gap > 2 * NEAR else None


RELATIONS: dict[str, Callable[[Box, Box], bool | None]] = {
    "left": left_of,
    "right": lambda one, other: left_of(other, one),
    "above": above,
    "below": lambda one, other: above(other, one),
    "next to": next_to,
}


def boxes_of(sight: Sight, label: str = "") -> list[Box] | None:
    """The boxes of a label, or of all; None: some are not sure, or two may be of one and the same thing."""
    every = [box for box in sight.boxes if not label or labels.is_a(box.label, label)]
    found = [box for box in every if scenes.confident(box, sight)]
    double = any(
        one.label == other.label and overlap(one, other) > SAME_THING for one, other in combinations(found, 2)
    )
    return None if double or (label and len(found) < len(every)) else found


def place_of(box: Box) -> str | None:
    """Where a box is, as in "on the left", "at the bottom left", "in the middle"; None: not decided."""
    told = sides(box)
    across = next((name for name in ("left", "right", "middle") if told[name]), None)
    down = next((name for name in ("top", "bottom") if told[name]), None)
    if across is None:
        return None
    if across == "middle":
        return "in the middle"
    return f"at the {down} {across}" if down is not None else f"on the {across}"


def relation_of(one: Box, other: Box) -> str | None:
    """How one box lies to another, as in "left of", "above"; None: not decided."""
    for name in ("left", "right", "above", "below"):
        if RELATIONS[name](one, other):
            return f"{name} of" if name in ("left", "right") else name
    return None


def quote_of(boxes: Sequence[Box]) -> str:
    """Boxes with their scores and places, as evidence."""
    return ", ".join(
        f"{box.label} {box.score:.2f} "
        f"(x {box.x:.2f} to {box.x + box.w:.2f}, y {box.y:.2f} to {box.y + box.h:.2f})"
        for box in boxes[:6]
    )
