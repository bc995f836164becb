"""The time line answers what it can, and declines the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Box, Gap
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from tests.answers.rules.ferries import LURES, WAYS, ferries
from tests.builders.questions import find
from tests.builders.units import cue, screen, sight


def line() -> Timeline:
    found = Timeline()
    found.add(sight(0.0, "cat"))
    found.add(cue("Anna carried the lantern to the harbour.", 2.0))
    found.add(sight(10.0, "car"))
    found.add(screen(12.0, "The night ferry", "Slide 2 of 5"))
    return found


@pytest.mark.parametrize(
    "question, begins",
    [
        ("Has a cat been shown?", "Yes"),
        ("Has a dog been shown?", "No"),
        ("When did the car appear?", "At 0:10 (10.0 s)."),
        ("How many slides are there?", "5"),
        ("What is the title of the slide?", '"The night ferry"'),
        ("Was a lantern mentioned?", "Yes"),
        ("Did Anna carry the lantern?", "Yes"),
        ("Which came first, the cat or the car?", "The cat"),
    ],
)
def test_what_is_known_is_answered_with_evidence(question: str, begins: str) -> None:
    found = find(question, line(), 20.0)
    assert found.text.startswith(begins)
    assert found.supported and found.evidence


@pytest.mark.parametrize(
    "question",
    [
        "What colour is the car?",
        "Who is speaking?",
        "Is music playing?",
        "Did Anna marry the captain?",
        "Is there an astronaut in the picture?",
        "What did the king carry?",
        "Is the car red?",
    ],
)
def test_what_no_model_sees_or_hears_is_declined(question: str) -> None:
    found = find(question, line(), 20.0)
    assert (found.text, found.supported, found.evidence) == ("I have not seen or heard that.", False, ())


def test_silence_is_not_claimed_over_a_gap() -> None:
    lost = line()
    lost.add(Gap("s", "main", 14.0, 0.0, 14.0, 16.0, "packet_loss"))
    assert not find("Did anybody speak between 13 s and 17 s?", lost, 20.0).supported
    assert find("Did anybody speak between 13 s and 17 s?", line(), 20.0).text.startswith("No")


@given(st.text(max_size=120))
def test_no_question_makes_it_fail_and_no_answer_comes_without_evidence(question: str) -> None:
    found = find(question, line(), 20.0)
    assert found.supported == bool(found.evidence)
    assert found.text


def test_places_are_told_from_boxes_and_what_is_still_shown_has_not_disappeared() -> None:
    known = Timeline()
    for at, box in ((1.0, Box("dog", 0.9, 0.7, 0.4, 0.2, 0.3)), (9.0, Box("cat", 0.9, 0.1, 0.4, 0.2, 0.3))):
        known.add(replace(sight(at), boxes=(box,)))
    known.latest = 20.0
    assert find("What is on the left?", known, 20.0).text == "A cat."
    assert find("Where is the cat?", known, 20.0).text == "On the left."
    assert find("How many cats are on the right?", known, 20.0).supported is False
    assert find("When did the dog disappear?", known, 20.0).text.startswith("At 0:09")
    assert find("When did the cat disappear?", known, 20.0).supported is False


def test_where_talk_has_been_forgotten_it_is_not_said_that_nobody_spoke() -> None:
    whole, short = Timeline(), Timeline(limits=TimelineLimits(sentences=2))
    for found in (whole, short):
        for n in range(8):
            found.add(cue("Anna carried the lantern.", 20.0 * n))
    assert find("Did anybody speak between 5 s and 15 s?", whole, 160.0).text.startswith("No, nobody spoke")
    assert not find("Did anybody speak between 5 s and 15 s?", short, 160.0).supported
    assert find("Did anybody speak between 125 s and 135 s?", short, 160.0).text.startswith(
        "No, nobody spoke"
    )


@pytest.mark.parametrize(
    ("begins", "asked"),
    [(begins, question) for begins, asked in WAYS.items() for question in asked.split("\n") if question],
)
def test_however_it_is_asked_the_answer_is_the_same(begins: tuple[str, ...], asked: str) -> None:
    found = find(asked, ferries(), 50.0)
    assert found.supported
    assert found.text.startswith(begins)


@pytest.mark.parametrize("asked", [question for question in LURES.split("\n") if question])
def test_what_never_was_is_not_affirmed(asked: str) -> None:
    found = find(asked, ferries(), 50.0)
    assert not found.supported or found.text.startswith("No, ")


def test_that_nothing_mentions_something_is_said_only_of_what_nothing_mentions() -> None:
    assert find("Did they discuss the shipyard?", ferries(), 50.0).text.startswith("Yes, ")
    assert not find("Did they mention the grand shipyard?", ferries(), 50.0).supported
    assert find("Did they mention the grand casino?", ferries(), 50.0).text.startswith(
        "No, nothing said or written so far mentions grand casino"
    )
