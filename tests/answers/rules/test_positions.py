"""Where things are is told from their boxes.

Declined where boxes are missing, overlap, lie across, or are not sure.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.answers.rules.finding import Finding
from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.positions import above, left_of, next_to, overlap, placed, side, sides
from streamsvc.core.types import Box, Sight, Tag
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import NO_EMBEDDING

CAT = Box("cat", 0.9, 0.05, 0.5, 0.2, 0.3)
DOG = Box("dog", 0.9, 0.7, 0.45, 0.25, 0.4)
CUP = Box("cup", 0.9, 0.45, 0.05, 0.1, 0.1)
LEFT = Box("person", 0.9, 0.1, 0.2, 0.15, 0.6)
RIGHT = Box("person", 0.8, 0.75, 0.2, 0.15, 0.6)
MIDDLE = Box("car", 0.9, 0.4, 0.6, 0.2, 0.2)


def shown(*boxes: Box, tags: tuple[Tag, ...] = (), at: float = 10.0) -> Timeline:
    line = Timeline()
    line.add(Sight("s", "main", at, 0.0, NO_EMBEDDING, tags, boxes))
    line.latest = at + 5.0
    return line


def asked(question: str, *boxes: Box, tags: tuple[Tag, ...] = ()) -> Finding | None:
    found = placed(parse(question), shown(*boxes, tags=tags), 12.0)
    assert found is None or found.supported == bool(found.evidence)
    return found


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is on the left?", "A cat."),
        ("What's on the right side of the picture?", "A dog."),
        ("What can you see on the right now?", "A dog."),
        ("What is at the top?", "A cup."),
        ("What is in the middle?", "A cup."),
        ("What is in the lower left corner?", "A cat."),
        ("Where is the cat?", "At the bottom left."),
        ("Where's the dog now?", "At the bottom right."),
        ("Where is the cup?", "In the middle."),
        ("Is the cat on the left or on the right?", "At the bottom left."),
        ("Is there a cat on the left?", "Yes, a cat is on the left."),
        ("Is the cat on the right?", "No, the cat is at the bottom left."),
        ("Is there a person on the left?", "No, no person is in the picture."),
        ("How many dogs are on the right?", "1 on the right, as far as I can see, at 0:10."),
        ("What is to the left of the dog?", "A cat and a cup."),
        ("Is the cat left of the dog?", "Yes, a cat is left of the dog."),
        ("Is the cat to the right of the dog?", "No, none is right of the dog."),
        ("What was on the left at 0:11?", "A cat."),
        ("What was on the left 1 second ago?", "A cat."),
    ],
)
def test_places_are_told_as_who_looks_at_the_picture_sees_them(question: str, answer: str) -> None:
    found = asked(question, CAT, DOG, CUP)
    assert found is not None
    assert found.text == answer
    assert (found.evidence[0].start, found.evidence[0].frame) == (10.0, 10.0)


def test_people_are_counted_on_a_side_and_told_where_each_is() -> None:
    both = asked("How many people are on the left?", LEFT, RIGHT, MIDDLE)
    assert both is not None
    assert both.values == ("1",)
    assert "person 0.90 (x 0.10 to 0.25" in both.evidence[0].quote
    where = asked("Where are the people?", LEFT, RIGHT)
    assert where is not None
    assert where.text == "1 on the left, 1 on the right."
    around = asked("What is next to the car?", Box("person", 0.9, 0.25, 0.55, 0.12, 0.25), MIDDLE)
    assert around is not None
    assert around.text == "A person."
    assert around.values == ("person",)


@pytest.mark.parametrize(
    ("question", "boxes"),
    [
        ("What is on the left?", ()),  # no boxes: no things, or none that the detector knows
        ("What is on the left?", (MIDDLE,)),
        ("Is the cat on the left?", (Box("cat", 0.9, 0.05, 0.1, 0.6, 0.5),)),  # across the middle
        ("Is the cat on the left?", (Box("cat", 0.9, 0.3, 0.1, 0.2, 0.2),)),  # at the border
        ("Is the cat on the left?", (CAT, Box("cat", 0.4, 0.7, 0.5, 0.2, 0.2))),  # one is not sure
        ("How many people are on the left?", (LEFT, Box("person", 0.9, 0.3, 0.2, 0.2, 0.5))),
        (
            "How many people are on the left?",
            (LEFT, Box("person", 0.9, 0.11, 0.2, 0.15, 0.6)),
        ),  # the same one twice
        ("What is left of the person?", (LEFT, RIGHT, MIDDLE)),  # of which?
        ("Is the cat left of the dog?", (CAT, Box("dog", 0.9, 0.1, 0.4, 0.3, 0.4))),  # they overlap
        ("Is the cup above the cat?", (CUP, CAT)),  # higher up, and elsewhere
        (
            "Is the cat next to the car?",
            (Box("cat", 0.9, 0.1, 0.7, 0.05, 0.05), MIDDLE),
        ),  # much smaller: perhaps far behind
        ("Who is on the left?", (LEFT,)),
        ("Is the red car in the middle?", (MIDDLE,)),
        ("Was the cat on the left?", (CAT,)),  # nobody says when
    ],
)
def test_what_boxes_do_not_tell_is_declined(question: str, boxes: tuple[Box, ...]) -> None:
    found = asked(question, *boxes)
    assert found is not None
    assert not found.supported


def test_a_thing_that_only_a_tag_tells_of_has_no_place() -> None:
    found = asked("Is there a cat on the left?", tags=(Tag("Egyptian cat", 0.9),))
    assert found is not None
    assert not found.supported


@pytest.mark.parametrize(
    "question",
    [
        "What is left to do?",
        "When did the cat leave?",
        "What does the text on the left say?",
        "What did he say is on the left?",
        "What is over there?",
        "Where is the king?",
        "What is under the bridge?",
        "Is it all right?",
        "Where is the cat sleeping?",
        "What is on top of the table?",
        "What is in the middle of the road?",
        "What is the title of the slide on the right?",
    ],
)
def test_other_questions_are_left_to_other_rules(question: str) -> None:
    assert asked(question, CAT, DOG) is None


def test_nothing_is_told_of_a_picture_that_nobody_has_looked_at() -> None:
    assert placed(parse("Where is the cat?"), Timeline(), 1.0) is None
    found = placed(parse("What is on the left?"), Timeline(), 1.0)
    assert found is not None
    assert not found.supported


def test_sides_have_borders_where_nobody_knows() -> None:
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
