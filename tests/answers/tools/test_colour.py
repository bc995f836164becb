"""A colour is told of what a question is about as a whole, and of nothing else."""

from __future__ import annotations

import pytest

from streamsvc.answers import tools
from streamsvc.answers.route import Arguments, Form
from streamsvc.answers.tools.colour import colour
from streamsvc.core.types import Box, Sight
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import NO_EMBEDDING

RED = Box("car", 0.9, 0.05, 0.5, 0.2, 0.3, ("red",))
CAT = Box("cat", 0.9, 0.7, 0.45, 0.25, 0.4, ("white", "black"))
MIXED = Box("bus", 0.9, 0.4, 0.3, 0.2, 0.3)
PERSON = Box("person", 0.9, 0.4, 0.3, 0.2, 0.3, ("brown",))
LIGHT = Box("traffic light", 0.9, 0.4, 0.3, 0.2, 0.3, ("black",))


def asked(text: str, *boxes: Box, label: str = "", now: float = 12.0, **more: str) -> str | None:
    timeline = Timeline()
    timeline.add(
        Sight(
            "s",
            "main",
            10.0,
            0.0,
            NO_EMBEDDING,
            (),
            boxes,
            colours=("green", "white"),
            background=("blue",),
        )
    )
    timeline.latest = now
    if now > 20.0:
        timeline.add(Sight("s", "main", 20.0, 0.0, NO_EMBEDDING, (), ()))
    form: Form = "yes/no" if more.get("form") else "open"
    found = colour(timeline, Arguments(text=text, label=label, other=more.get("other", ""), form=form), now)
    if found is None:
        return None
    assert (found.evidence[0].start, found.evidence[0].frame) == (10.0, 10.0)
    return found.text


@pytest.mark.parametrize(
    ("text", "label", "answer"),
    [
        ("what colour is the car", "car", "Red."),
        ("which color does the cat have?", "cat", "White and black."),
        ("color of the car on the left, please", "car", "Red."),
        ("What is the background colour?", "", "Blue."),
        ("which colours does the picture have", "", "Green and white."),
    ],
)
def test_a_thing_the_background_and_the_picture_have_colours(text: str, label: str, answer: str) -> None:
    assert asked(text, RED, CAT, label=label) == answer


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("what colour are the cat's eyes", "cat"),
        ("what colour is the dress in the picture", ""),
        ("what colour is the text on the slide", ""),
        ("what colour is it", ""),
        ("what colour is the bus", "bus"),  # mixed
        ("what colour is the dog", "dog"),  # not there
        ("what colour is the car on the right", "car"),
        ("what colour is the man", "person"),
        ("what colour is the traffic light", "traffic light"),
        ("which is red, the car or the cat", "car"),
    ],
)
def test_what_has_no_colour_of_its_own_is_not_found(text: str, label: str) -> None:
    assert asked(text, RED, CAT, MIXED, PERSON, LIGHT, label=label) is None


@pytest.mark.parametrize(
    ("text", "label", "answer"),
    [
        ("is the car red", "car", "Yes, red."),
        ("is the car blue", "car", "No, red."),
        ("is the car orange", "car", None),  # in other light it may be
        ("is the cat black", "cat", "Yes, white and black."),
        ("is the background green or grey", "", None),
        ("is the backdrop violet", "", None),
        ("is the backdrop crimson", "", "No, blue."),
    ],
)
def test_whether_it_is_a_colour_is_told_where_the_measure_is_clear(
    text: str, label: str, answer: str | None
) -> None:
    assert asked(text, RED, CAT, label=label, form="yes/no") == answer


def test_of_several_things_each_is_told_and_of_many_none() -> None:
    other = Box("car", 0.9, 0.6, 0.5, 0.2, 0.3, ("white",))
    assert asked("what colour are the cars", RED, other, label="car") == "One red and one white."
    assert asked("which colour is the car on the right", RED, other, label="car") == "White."
    same = Box("car", 0.9, 0.6, 0.5, 0.2, 0.3, ("red",))
    assert asked("what colour are the cars", RED, same, label="car") == "Red."
    assert asked("are the cars red", RED, other, label="car", form="yes/no") is None
    many = [Box("car", 0.9, 0.2 * n, 0.5, 0.15, 0.3, ("red",)) for n in range(4)]
    assert asked("what colour are the cars", *many, label="car") is None


def test_what_has_gone_is_told_with_its_time() -> None:
    assert asked("what colour was the car we saw", RED, label="car", now=40.0) == "Red, at 0:10."


def test_the_colours_are_a_tool_with_examples() -> None:
    assert tools.TOOLS["colour"] is colour
