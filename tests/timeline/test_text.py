"""Forms, spellings and near synonyms of one word share a stem; words that tell nothing are left out."""

from __future__ import annotations

import pytest

from streamsvc.timeline.text import _ALIKE, _KIN, STOP, kin, sounds, stem, stems, terms, tokens


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


def test_what_may_be_meant_by_a_word_or_heard_for_it_includes_the_word_itself() -> None:
    assert stem("rejected") in kin(stem("refuse"))
    assert kin("lantern") == {"lantern"}
    assert stem("pier") in sounds(stem("peer"))
    assert sounds("lantern") == {"lantern"}


@pytest.mark.parametrize("groups", [_KIN, _ALIKE])
def test_no_group_of_words_holds_one_that_tells_nothing_or_only_one(groups: str) -> None:
    for group in groups.split(";"):
        assert not set(group.split()) & STOP, group
        assert len(set(group.split())) > 1, group


@pytest.mark.parametrize(
    ("form", "base"),
    [("shone", "shine"), ("hidden", "hide"), ("going", "go"), ("sank", "sink"), ("woke", "wake")],
)
def test_irregular_verbs_share_a_stem(form: str, base: str) -> None:
    assert stem(form) == stem(base)
    assert stems(f"{form} {base}") == {stem(base)}
