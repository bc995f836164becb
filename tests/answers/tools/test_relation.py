"""Where things are is told from their boxes; what boxes do not tell is not found."""

from __future__ import annotations

import pytest

from streamsvc.answers.finding import Finding
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.relation import relation
from streamsvc.core.types import Box, Sight, Tag
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import NO_EMBEDDING

CAT = Box("cat", 0.9, 0.05, 0.5, 0.2, 0.3)
DOG = Box("dog", 0.9, 0.7, 0.45, 0.25, 0.4)
CUP = Box("cup", 0.9, 0.45, 0.05, 0.1, 0.1)
LEFT = Box("person", 0.9, 0.1, 0.2, 0.15, 0.6)
RIGHT = Box("person", 0.8, 0.75, 0.2, 0.15, 0.6)
MIDDLE = Box("car", 0.9, 0.4, 0.6, 0.2, 0.2)


def asked(arguments: Arguments, *boxes: Box, tags: tuple[Tag, ...] = ()) -> Finding | None:
    timeline = Timeline()
    timeline.add(Sight("s", "main", 10.0, 0.0, NO_EMBEDDING, tags, boxes))
    timeline.latest = 15.0
    return relation(timeline, arguments, 12.0)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (Arguments(text="left"), "A cat."),
        (Arguments(text="What is on the left?"), "A cat."),
        (Arguments(text="right"), "A dog."),
        (Arguments(text="top"), "A cup."),
        (Arguments(text="middle", span=(11.0, 11.0)), "A cup."),
        (Arguments(label="cat"), "At the bottom left."),
        (Arguments(label="cup"), "In the middle."),
        (Arguments(label="cat", text="left", form="yes/no"), "Yes, a cat is on the left."),
        (Arguments(label="cat", text="right", form="yes/no"), "No, the cat is at the bottom left."),
        (Arguments(label="person", text="left", form="yes/no"), "No, I see no person."),
        (
            Arguments(label="dogs", text="right", form="how often"),
            "1 on the right, as far as I can see, at 0:10.",
        ),
        (Arguments(other="dog", text="left"), "A cat and a cup."),
        (Arguments(label="cat", other="dog", text="left", form="yes/no"), "Yes, a cat is left of the dog."),
        (Arguments(label="cat", other="dog", text="right", form="yes/no"), "No, none is right of the dog."),
        (Arguments(other="dog", text="what is left of"), "A cat and a cup."),
        (Arguments(label="cat", other="dog"), "The cat is left of the dog."),
    ],
)
def test_places_are_told_as_who_looks_at_the_picture_sees_them(arguments: Arguments, answer: str) -> None:
    found = asked(arguments, CAT, DOG, CUP)
    assert found is not None
    assert found.text == answer
    assert (found.evidence[0].start, found.evidence[0].frame) == (10.0, 10.0)


def test_people_are_counted_on_a_side_and_told_where_each_is() -> None:
    both = asked(Arguments(label="people", text="left", form="how often"), LEFT, RIGHT, MIDDLE)
    assert both is not None
    assert both.values == ("1",)
    assert "person 0.90 (x 0.10 to 0.25" in both.evidence[0].quote
    where = asked(Arguments(label="people"), LEFT, RIGHT)
    assert where is not None
    assert where.text == "1 on the left, 1 on the right."
    around = asked(Arguments(other="car", text="next to"), Box("person", 0.9, 0.25, 0.55, 0.12, 0.25), MIDDLE)
    assert around is not None
    assert (around.text, around.values) == ("A person.", ("person",))


@pytest.mark.parametrize(
    ("arguments", "boxes"),
    [
        (Arguments(text="left"), ()),
        (Arguments(text="left"), (MIDDLE,)),
        (Arguments(label="cat", text="left", form="yes/no"), (Box("cat", 0.9, 0.05, 0.1, 0.6, 0.5),)),
        (Arguments(label="cat", text="left", form="yes/no"), (Box("cat", 0.9, 0.3, 0.1, 0.2, 0.2),)),
        (
            Arguments(label="cat", text="left", form="yes/no"),
            (CAT, Box("cat", 0.4, 0.7, 0.5, 0.2, 0.2)),
        ),  # one is not sure
        (
            Arguments(label="people", text="left", form="how often"),
            (LEFT, Box("person", 0.9, 0.3, 0.2, 0.2, 0.5)),
        ),  # one lies at the border
        (Arguments(other="person", text="left"), (LEFT, RIGHT, MIDDLE)),  # of which?
        (
            Arguments(label="cat", other="dog", text="left", form="yes/no"),
            (CAT, Box("dog", 0.9, 0.1, 0.4, 0.3, 0.4)),
        ),  # they overlap
        (Arguments(label="cup", other="cat", text="above", form="yes/no"), (CUP, CAT)),  # elsewhere
        (
            Arguments(label="cat", other="car", text="next to", form="yes/no"),
            (Box("cat", 0.9, 0.1, 0.7, 0.05, 0.05), MIDDLE),
        ),  # much smaller: perhaps far behind
        (Arguments(), (CAT,)),
    ],
)
def test_what_boxes_do_not_tell_is_not_found(arguments: Arguments, boxes: tuple[Box, ...]) -> None:
    assert asked(arguments, *boxes) is None


def test_a_thing_that_only_a_tag_tells_of_has_no_place() -> None:
    tags = (Tag("Egyptian cat", 0.9),)
    assert asked(Arguments(label="cat", text="left", form="yes/no"), tags=tags) is None


def test_nothing_is_told_of_a_picture_that_nobody_has_looked_at() -> None:
    assert relation(Timeline(), Arguments(label="cat"), 1.0) is None
