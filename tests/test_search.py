"""Retrieval finds a line by its rarest words, whatever their form."""

from __future__ import annotations

import pytest

from streamsvc.search import search, stem, terms
from streamsvc.types import Evidence

LINES = [
    Evidence(float(n), n + 1.0, "speech", text)
    for n, text in enumerate(("The man went home.", "A stone-cutter carried slabs.", "The man liked tacos."))
]


def test_the_line_with_the_rarest_word_comes_first() -> None:
    assert search(LINES, "what did the man say about tacos")[0].text == "The man liked tacos."


@pytest.mark.parametrize(
    "one, other",
    [("carry", "carried"), ("saw", "seen"), ("favourite", "favorite"), ("stopped", "stopping"), ("slabs", "slab"), ("began", "beginning")],
)
def test_forms_of_one_word_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_a_compound_is_found_in_either_spelling() -> None:
    assert search(LINES, "stonecutter")[0].start == 1.0
    assert search(LINES, "cutter")[0].start == 1.0


def test_nothing_is_found_without_a_content_word() -> None:
    assert search(LINES, "what is the") == []
    assert search([], "tacos") == []
    assert terms("what is the") == ()


def test_at_most_limit_hits_come() -> None:
    assert len(search(LINES, "man stone", limit=1)) == 1
