"""What came first is told by the times of pictures, slides and words."""

from __future__ import annotations

import pytest

from streamsvc.answers.rules.order import came
from streamsvc.answers.rules.parse import parse
from tests.answers.rules.ferries import ferries

FIRST = 'The word "shipyard", at 0:09; the word "lighthouse" came at 0:30.'


@pytest.mark.parametrize(
    "question",
    [
        'Which was mentioned first, "shipyard" or "lighthouse"?',
        "What came up first: the shipyard or the lighthouse?",
        "Did they mention the lighthouse or the shipyard first?",
        "Was it the lighthouse or the shipyard that was mentioned first?",
        "Was the lighthouse mentioned before or after the shipyard?",
    ],
)
def test_which_came_first_is_told_however_it_is_asked(question: str) -> None:
    found = came(parse(question), ferries(), 50.0)
    assert found is not None
    assert found.text.lower() == FIRST.lower()


@pytest.mark.parametrize(
    ("question", "begins"),
    [
        ("Which came first, the cat or the car?", "The cat, at 0:00"),
        ("Which came last, the cat or the car?", "The car, at 0:12"),
        ('Did the speaker mention "shipyard" before "lighthouse"?', "Yes, "),
        ('Was the slide "Questions" shown before "The night ferry"?', "No, "),
        ("What was shown after the cat?", "A car, from 0:12"),
    ],
)
def test_order_is_told_by_the_times_of_what_was_shown_and_said(question: str, begins: str) -> None:
    found = came(parse(question), ferries(), 50.0)
    assert found is not None
    assert found.text.startswith(begins)


def test_words_are_compared_by_when_they_were_said_not_by_what_was_shown() -> None:
    known = ferries()
    found = came(parse('Which was mentioned first, "car" or "shipyard"?'), known, 50.0)
    assert found is not None
    assert not found.supported, "a car was shown, and nobody spoke of one"


@pytest.mark.parametrize(
    "question", ['Which was mentioned first, "castle" or "shipyard"?', "Was the dog shown before the cat?"]
)
def test_what_never_came_has_no_place_in_an_order(question: str) -> None:
    found = came(parse(question), ferries(), 50.0)
    assert found is not None
    assert not found.supported
