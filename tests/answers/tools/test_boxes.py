"""Boxes have places and relations; what lies across, overlaps, or is not sure has none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.answers.tools.boxes import (
    above,
    boxes_of,
    left_of,
    next_to,
    overlap,
    place_of,
    relation_of,
    side,
    sides,
)
from streamsvc.core.types import Box, Sight
from tests.builders.units import NO_EMBEDDING

CAT = Box("cat", 0.9, 0.05, 0.5, 0.2, 0.3)
DOG = Box("dog", 0.9, 0.7, 0.45, 0.25, 0.4)
CUP = Box("cup", 0.9, 0.45, 0.05, 0.1, 0.1)


def sight(*boxes: Box) -> Sight:
    return Sight("s", "main", 1.0, 0.0, NO_EMBEDDING, (), boxes)


def test_sides_have_borders_where_nothing_is_decided() -> None:
    assert [side(start, 0.1) for start in (0.0, 0.3, 0.34, 0.45, 0.56, 0.62, 0.9)] == [
        "low",
        "low",
        None,
        "middle",
        None,
        "high",
        "high",
    ]
    assert side(0.0, 1.0) == "middle"
    assert side(0.05, 0.6) is None
    assert sides(CAT) == {"left": True, "right": False, "top": False, "bottom": True, "middle": False}


def test_places_and_relations_are_named() -> None:
    assert [place_of(box) for box in (CAT, DOG, CUP)] == [
        "at the bottom left",
        "at the bottom right",
        "in the middle",
    ]
    assert place_of(Box("cat", 0.9, 0.05, 0.1, 0.6, 0.5)) is None
    assert relation_of(CAT, DOG) == "left of"
    assert relation_of(DOG, CAT) == "right of"
    assert relation_of(CAT, Box("dog", 0.9, 0.1, 0.5, 0.3, 0.3)) is None


def test_boxes_that_are_not_sure_or_may_be_one_thing_are_not_counted() -> None:
    assert boxes_of(sight(CAT, DOG), "cat") == [CAT]
    assert boxes_of(sight(CAT, DOG)) == [CAT, DOG]
    assert boxes_of(sight(CAT, Box("cat", 0.4, 0.7, 0.5, 0.2, 0.2)), "cat") is None
    assert boxes_of(sight(CAT, Box("cat", 0.9, 0.06, 0.5, 0.2, 0.3)), "cat") is None
    assert boxes_of(sight(), "cat") == []


_SHARE = st.floats(0.01, 0.99)


@given(
    st.lists(
        st.builds(Box, st.just("cat"), st.just(0.9), _SHARE, _SHARE, _SHARE, _SHARE), min_size=2, max_size=2
    )
)
def test_of_two_boxes_one_at_most_is_left_of_and_above_the_other(boxes: list[Box]) -> None:
    one, other = boxes
    assert not (left_of(one, other) and left_of(other, one))
    assert (left_of(one, other) is None) == (left_of(other, one) is None)
    assert not (above(one, other) and above(other, one))
    assert next_to(one, other) == next_to(other, one)
    assert 0.0 <= overlap(one, other) <= 1.0 + 1e-9
    if next_to(one, other):
        assert left_of(one, other) or left_of(other, one)
