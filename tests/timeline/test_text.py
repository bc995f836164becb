"""Forms and spellings of one word share a stem; function words are no terms."""

from __future__ import annotations

import pytest

from streamsvc.timeline.text import stem, stems, terms, tokens


@pytest.mark.parametrize(
    "one, other",
    [
        ("carry", "carried"),
        ("saw", "seen"),
        ("favourite", "favorite"),
        ("stopped", "stopping"),
        ("slabs", "slab"),
        ("began", "beginning"),
    ],
)
def test_forms_of_one_word_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_words_that_only_look_or_mean_alike_keep_their_stems() -> None:
    assert stem("house") != stem("horse")
    assert stem("begin") != stem("start")


def test_only_content_words_are_terms() -> None:
    assert terms("what is the") == ()
    assert terms("What is the weather?") == (stem("weather"),)


def test_a_compound_is_one_word_and_its_parts() -> None:
    assert tokens("Stone-cutter’s tools at 3:30") == ["stonecutter's", "tools", "at", "3:30"]
    assert set(terms("stone-cutter")) == {stem("stonecutter"), stem("stone"), stem("cutter")}


@pytest.mark.parametrize(
    ("form", "base"),
    [("shone", "shine"), ("hidden", "hide"), ("going", "go"), ("sank", "sink"), ("woke", "wake")],
)
def test_irregular_verbs_share_a_stem(form: str, base: str) -> None:
    assert stem(form) == stem(base)
    assert stems(f"{form} {base}") == {stem(base)}
