"""The object of a condition is found among its other words."""

from __future__ import annotations

import pytest

from streamsvc.answers.watch_words import thing_in


@pytest.mark.parametrize(
    ("text", "thing", "others"),
    [
        ("a bus appears", "bus", []),
        ("the red traffic light", "traffic light", ["red"]),
        ("somebody walks in", "somebody", ["walks"]),
        ("a second dog barks", "dog", ["barks"]),
        ("many people are shown", "people", []),
    ],
)
def test_the_longest_phrase_that_names_a_label_is_found(text: str, thing: str, others: list[str]) -> None:
    assert thing_in(text) == (thing, others)


def test_words_about_the_stream_name_no_object() -> None:
    assert thing_in("the speaker shows the next page") is None
