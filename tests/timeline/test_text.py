"""Forms, spellings and near synonyms share a stem; function words are no terms."""

from __future__ import annotations

import pytest

from streamsvc.timeline.text import homophones, related, stem, stems, terms, tokens


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


def test_near_synonyms_share_a_stem_and_other_words_do_not() -> None:
    assert stem("commenced") == stem("starting")
    assert stem("house") != stem("horse")


def test_only_content_words_are_terms() -> None:
    assert terms("what is the") == ()
    assert terms("What is the weather?") == (stem("weather"),)


def test_a_compound_is_one_word_and_its_parts() -> None:
    assert tokens("Stone-cutter’s tools at 3:30") == ["stonecutter's", "tools", "at", "3:30"]
    assert set(terms("stone-cutter")) == {stem("stonecutter"), stem("stone"), stem("cutter")}


def test_related_words_and_homophones_include_the_word_itself() -> None:
    assert stem("rejected") in related(stem("refuse"))
    assert related("lantern") == {"lantern"}
    assert stem("pier") in homophones(stem("peer"))
    assert homophones("lantern") == {"lantern"}


@pytest.mark.parametrize(
    ("form", "base"),
    [("shone", "shine"), ("hidden", "hide"), ("going", "go"), ("sank", "sink"), ("woke", "wake")],
)
def test_irregular_verbs_share_a_stem(form: str, base: str) -> None:
    assert stem(form) == stem(base)
    assert stems(f"{form} {base}") == {stem(base)}
