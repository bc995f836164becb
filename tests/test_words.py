"""Forms, spellings and near synonyms of one word share a stem; words that tell nothing are left out."""

from __future__ import annotations

import pytest

from streamsvc.words import stem, terms, tokens


@pytest.mark.parametrize(
    "one, other",
    [("carry", "carried"), ("saw", "seen"), ("favourite", "favorite"), ("stopped", "stopping"), ("slabs", "slab"), ("began", "beginning")],
)
def test_forms_of_one_word_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_near_synonyms_share_a_stem_and_other_words_do_not() -> None:
    assert stem("commenced") == stem("starting")
    assert stem("house") != stem("horse")


def test_only_content_words_are_terms() -> None:
    assert terms("what is the") == ()
    assert terms("What is the weather?") == (stem("weather"),)


def test_a_compound_is_one_word_and_its_parts() -> None:
    assert tokens("Stone-cutter’s tools at 3:30") == ["stonecutter's", "tools", "at", "3:30"]
    assert set(terms("stone-cutter")) == {stem("stonecutter"), stem("stone"), stem("cutter")}
