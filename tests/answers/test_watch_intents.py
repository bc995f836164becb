"""The examples of watches as data, and how conditions are compared with them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from streamsvc.answers import watch_intents
from streamsvc.answers.watch_intents import Kind, Voters


def test_every_kind_has_examples_none_twice() -> None:
    assert {kind for kind, _ in watch_intents.labelled()} == set(get_args(Kind))
    examples = watch_intents.examples()
    assert len(set(map(str.casefold, examples))) == len(examples)
    assert not [text for text in examples if "{" in text or "}" in text]


@pytest.mark.parametrize(
    "when", ["the bus stops", "tell me as soon as the bus stops", "Please let me know, if the bus stops"]
)
def test_a_request_before_a_condition_does_not_count(when: str) -> None:
    assert watch_intents.without_opening(when) == "the bus stops"


def test_things_are_as_good_as_each_other_and_people_are_people() -> None:
    assert watch_intents.compared("when a fire hydrant appears") == "when a dog appears"
    assert watch_intents.compared("somebody comes in") == "when somebody comes in"
    assert watch_intents.compared("two of three") == "when two of three"


def test_words_around_many_subjects_are_none() -> None:
    assert not watch_intents.is_subject("mentions")
    assert not watch_intents.is_subject("the")
    assert watch_intents.is_subject("xylophone")


def test_a_condition_is_of_the_kind_of_its_nearest_examples() -> None:
    kinds = [kind for kind, _ in watch_intents.labelled()]
    names = sorted(set(kinds))
    vectors = np.eye(len(names), dtype=np.float32)[[names.index(kind) for kind in kinds]]
    vote = Voters(vectors).vote("xylophone", np.eye(len(names), dtype=np.float32)[names.index("silence")])
    assert vote.best(get_args(Kind))[0] == "silence"
    assert vote.best(["seen", "gone"])[0] in ("seen", "gone")
