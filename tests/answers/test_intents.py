"""The example questions as data, and how they vote."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from streamsvc.answers import intents
from streamsvc.answers.example_votes import words_of
from streamsvc.answers.intents import Electorate
from streamsvc.answers.route import Form, Reader

TOOLS = {
    "transcript",
    "topic",
    "summary",
    "slides",
    "screen_text",
    "table",
    "sights",
    "seen",
    "count",
    "relation",
    "colour",
    "occurrences",
    "order",
    "speaker",
    "clock",
}


def one_hot(names: list[str]) -> np.ndarray:
    """A unit vector of its own for each name."""
    kinds = sorted(set(names))
    return np.eye(len(kinds), dtype=np.float32)[[kinds.index(name) for name in names]]


def names() -> list[str]:
    return [intent.name for intent in intents.intents() for _ in intent.questions]


def test_there_are_at_most_400_examples_none_twice() -> None:
    examples = intents.examples()
    assert len(examples) <= 400
    assert len(set(map(str.casefold, examples))) == len(examples)


def test_every_tool_and_reader_has_examples_and_a_description() -> None:
    assert set(names()) == TOOLS | set(get_args(Reader)) == set(intents.about())


def test_every_field_has_a_known_value() -> None:
    for intent in intents.intents():
        assert intent.reader in get_args(Reader)
        assert intent.form in get_args(Form)
        assert intent.tool == "" or intent.reader != "none"


def test_a_tool_has_one_reader() -> None:
    assert len({(intent.name, intent.reader) for intent in intents.intents()}) == len(intents.by_name())


def test_content_is_the_most_varied_kind() -> None:
    counts = {name: names().count(name) for name in set(names())}
    assert max(counts, key=counts.__getitem__) == "text"


def test_words_are_lower_case_and_without_punctuation() -> None:
    assert words_of("What's THAT, a \u201cred\u201d stone-cutter?") == [
        "what's",
        "that",
        "a",
        "red",
        "stone",
        "cutter",
    ]


def test_rare_words_carry_the_subject() -> None:
    assert intents.rarity("the") == 0.0
    assert intents.rarity("xylophonist") == 1.0


@pytest.mark.parametrize("name", sorted(TOOLS | {"text", "sight", "none"}))
def test_a_question_like_the_examples_of_one_kind_goes_there(name: str) -> None:
    vectors = one_hot(names())
    vote = Electorate(vectors).vote("", vectors[names().index(name)])
    assert vote.names[0] == name
    assert vote.margin > 0.4
    assert list(vote.shares) == sorted(vote.shares, reverse=True)


def test_the_form_is_one_that_the_kind_has() -> None:
    vectors = one_hot(names())
    vote = Electorate(vectors).vote("", vectors[names().index("summary")])
    assert vote.form_of("clock") == "how long"
    assert vote.form_of("seen") == "list"
    assert vote.form_of("text") == "open"
    assert vote.present_of("topic")
    assert not vote.present_of("summary")


def test_where_the_vectors_tell_nothing_the_opening_does() -> None:
    vectors = one_hot(names())
    electorate = Electorate(vectors)
    middle = vectors.mean(axis=0)
    for name in ("count", "summary"):
        first = next(intent.questions[0] for intent in intents.intents() if intent.name == name)
        plain, opened = electorate.vote("", middle), electorate.vote(first, middle)
        assert opened.shares[opened.names.index(name)] > plain.shares[plain.names.index(name)]
