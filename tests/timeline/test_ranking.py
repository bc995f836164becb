"""Retrieval finds a document by its rarest words, whatever their form, and by its meaning where that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamsvc.core.types import Evidence
from streamsvc.timeline.ranking import CERTAIN, CHANCE, LONG, UNNAMED, WEIGHT, passages, ranked, search
from streamsvc.timeline.text import terms

LINES = [
    Evidence(float(n), n + 1.0, "speech", text)
    for n, text in enumerate(("The man went home.", "A stone-cutter carried slabs.", "The man liked tacos."))
]


def said(*texts: str, every: float = 2.0) -> list[Evidence]:
    return [Evidence(every * n, every * n + 1.0, "speech", text) for n, text in enumerate(texts)]


def test_the_line_with_the_rarest_word_comes_first() -> None:
    assert search(LINES, "what did the man say about tacos")[0].text == "The man liked tacos."


def test_a_compound_is_found_in_either_spelling() -> None:
    assert search(LINES, "stonecutter")[0].start == 1.0
    assert search(LINES, "cutter")[0].start == 1.0


def test_nothing_is_found_without_a_content_word() -> None:
    assert search(LINES, "what is the", np.ones(3, np.float32)) == []
    assert search([], "tacos") == []


def test_at_most_limit_hits_come_and_of_two_equals_the_newer_first() -> None:
    twice = said("An old mill.", "A new song.", "An old mill.")
    assert [hit.start for hit in search(twice, "mill")] == [4.0, 0.0]
    assert len(search(twice, "mill", limit=1)) == 1


def test_a_document_without_a_common_word_is_found_by_its_likeness() -> None:
    likeness = np.array([0.1, 0.6, 0.1], np.float32)
    assert [hit.start for hit in search(LINES, "quarry worker", likeness)] == [1.0]
    assert search(LINES, "quarry worker") == []


def test_likeness_that_any_two_texts_have_finds_nothing() -> None:
    assert search(LINES, "quarterly earnings", np.full(3, 0.15, np.float32)) == []


def test_a_document_whose_vector_is_not_known_yet_is_found_by_its_words() -> None:
    likeness = np.array([np.nan, np.nan, 0.1], np.float32)
    assert search(LINES, "slabs", likeness)[0].start == 1.0


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
def test_no_likeness_buries_the_document_that_holds_every_word_of_the_query(likeness: list[float]) -> None:
    assert search(LINES, "man tacos", np.array(likeness, np.float32))[0].text == "The man liked tacos."


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
def test_a_word_that_nobody_said_does_not_bury_the_document_that_holds_the_others(
    likeness: list[float],
) -> None:
    assert search(LINES, "man tacos piano", np.array(likeness, np.float32))[0].text == "The man liked tacos."


def test_more_of_the_words_is_a_higher_score_and_one_chance_word_is_not_the_whole_query() -> None:
    texts = [line.quote for line in LINES]
    scores = ranked(texts, terms("man tacos piano"))
    assert scores[2] > 1 + WEIGHT > scores[0] > scores[1] == 0
    assert 0 < ranked(texts, terms("tacos piano")).max() < 1


def test_short_sentences_become_one_passage_with_the_time_of_both() -> None:
    (one,) = passages(said("Is it cold?", "Yes."))
    assert (one.quote, one.start, one.end) == ("Is it cold? Yes.", 0.0, 3.0)


def test_long_sentences_stand_alone_and_no_passage_bridges_a_silence() -> None:
    long = " ".join(["word"] * 20)
    assert len(passages(said(long, long))) == 2
    assert len(passages(said("Is it cold?", "Yes.", every=60.0))) == 2


@given(st.lists(st.integers(1, 60), max_size=30))
def test_a_passage_loses_no_word_and_is_not_too_long(lengths: list[int]) -> None:
    lines = said(*(" ".join(f"w{n}x{i}" for i in range(length)) for n, length in enumerate(lengths)))
    found = passages(lines)
    assert " ".join(each.quote for each in found) == " ".join(line.quote for line in lines)
    assert all(len(each.quote.split()) <= max(LONG, *lengths) for each in found)


def test_what_comes_later_changes_only_the_last_passage() -> None:
    lines = said("One.", "Two three.", *(" ".join(["word"] * 12) for _ in range(3)), "Four.", "Five six.")
    before, after = passages(lines[:-1]), passages(lines)
    assert after[: len(before) - 1] == before[:-1]
    assert after != before


def test_a_picture_shown_again_at_once_is_one_document_and_kinds_do_not_mix() -> None:
    shown = [
        Evidence(float(n), n + 1.0, "sight", label, float(n))
        for n, label in enumerate(("cat", "cat", "dog", "cat"))
    ]
    between = Evidence(0.5, 0.9, "screen", "Title", 0.0)
    found = passages(sorted([*shown, between], key=lambda line: line.start))
    assert [(each.kind, each.quote, each.start, each.end) for each in found] == [
        ("sight", "cat", 0.0, 2.0),
        ("screen", "Title", 0.5, 0.9),
        ("sight", "dog", 2.0, 3.0),
        ("sight", "cat", 3.0, 4.0),
    ]


def test_a_hit_tells_the_keyframe_shown_then() -> None:
    line = Evidence(5.0, 6.0, "speech", "A stone-cutter.", frame=4.0)
    assert search([line], "stone")[0].frame == pytest.approx(4.0)


def pictures(*names: str) -> list[Evidence]:
    return [Evidence(10.0 * n, 10.0 * n + 10, "sight", name, 10.0 * n) for n, name in enumerate(names)]


def standing(*deviations: float | None) -> NDArray[np.float32]:
    return np.array([np.nan if each is None else each for each in deviations], np.float32)


def test_a_picture_without_a_name_is_found_where_the_query_stands_out_and_nowhere_else() -> None:
    found = search(
        [*LINES, *pictures("", "", "")], "mountain lake", standing=standing(None, None, None, 1.0, 6.0, 2.9)
    )
    assert [(hit.kind, hit.text, hit.frame) for hit in found] == [("sight", UNNAMED, 10.0)]


def test_by_chance_no_picture_is_found_and_a_certain_one_counts_as_much_as_equal_meaning() -> None:
    assert search(pictures("", ""), "mountain lake", standing=standing(CHANCE, -9.0)) == []
    (hit,) = search(pictures(""), "mountain lake", standing=standing(CERTAIN + 5))
    assert hit.score == WEIGHT
    (half,) = search(pictures(""), "mountain lake", standing=standing((CHANCE + CERTAIN) / 2))
    assert half.score == WEIGHT / 2


def test_pictures_that_follow_each_other_are_one_hit_with_the_best_of_them() -> None:
    found = search(pictures("", "", "", "", ""), "mountain lake", standing=standing(4.2, 5.0, 4.1, 0.0, 4.5))
    assert [(hit.start, hit.end, hit.frame) for hit in found] == [(0.0, 30.0, 10.0), (40.0, 50.0, 40.0)]


def test_a_faint_picture_between_two_does_not_join_them() -> None:
    found = search(pictures("", "", ""), "mountain lake", standing=standing(5.0, 3.2, 4.9))
    assert [(hit.start, hit.end) for hit in found] == [(0.0, 10.0), (20.0, 30.0), (10.0, 20.0)]


def test_lines_beside_pictures_are_never_joined_with_them() -> None:
    documents = [Evidence(0.0, 5.0, "speech", "A cat sat there."), *pictures("cat", "cat")]
    found = search(documents, "cat", standing=standing(None, 5.0, 5.0))
    assert [(hit.kind, hit.start, hit.end) for hit in found] == [("sight", 0.0, 20.0), ("speech", 0.0, 5.0)]


def test_of_pictures_with_the_name_that_was_asked_for_the_one_that_stands_out_comes_first() -> None:
    found = search(pictures("cat", "dog", "cat"), "cat", standing=standing(0.0, 0.0, 5.0))
    assert [hit.frame for hit in found] == [20.0, 0.0]


def test_at_most_limit_stretches_of_pictures_come() -> None:
    several = standing(5.0, 5.0, 0.0, 4.9, 0.0, 4.8)
    assert [hit.start for hit in search(pictures(*[""] * 6), "mountain lake", limit=2, standing=several)] == [
        0.0,
        30.0,
    ]
