"""A document is hits by its rarest words in any form, and by similarity where that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamsvc.core.types import Evidence
from streamsvc.timeline.ranking import (
    CHANCE,
    CHANCE_BEST,
    MAX_PASSAGE,
    SIMILARITY_WEIGHT,
    UNNAMED,
    Z_CERTAIN,
    Z_CHANCE,
    WordIndex,
    above_chance,
    best,
    fused,
    score,
    search,
)
from streamsvc.timeline.ranking import documents as documents_of
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


def test_a_query_without_a_content_word_has_no_hit() -> None:
    assert search(LINES, "what is the", np.ones(3, np.float32)) == []
    assert search([], "tacos") == []


def test_at_most_limit_hits_come_and_of_two_equals_the_newer_first() -> None:
    twice = said("An old mill.", "A new song.", "An old mill.")
    assert [hit.start for hit in search(twice, "mill")] == [4.0, 0.0]
    assert len(search(twice, "mill", limit=1)) == 1


def test_a_document_without_a_common_word_is_found_by_its_similarity() -> None:
    similarity = np.array([0.7, 0.9, 0.7], np.float32)
    assert [hit.start for hit in search(LINES, "quarry worker", similarity)] == [1.0]
    assert search(LINES, "quarry worker") == []


def test_similarity_that_any_two_texts_have_finds_nothing() -> None:
    assert search(LINES, "quarterly earnings", np.full(3, 0.75, np.float32)) == []


def test_a_document_without_a_vector_is_found_by_its_words() -> None:
    similarity = np.array([np.nan, np.nan, 0.7], np.float32)
    assert search(LINES, "slabs", similarity)[0].start == 1.0


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
def test_no_similarity_buries_the_document_with_every_word_of_the_query(similarity: list[float]) -> None:
    assert search(LINES, "man tacos", np.array(similarity, np.float32))[0].text == "The man liked tacos."


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
def test_a_term_in_no_document_does_not_bury_the_document_with_the_others(
    similarity: list[float],
) -> None:
    assert (
        search(LINES, "man tacos piano", np.array(similarity, np.float32))[0].text == "The man liked tacos."
    )


def test_more_of_the_words_is_a_higher_score_and_one_chance_word_is_not_the_whole_query() -> None:
    texts = [line.quote for line in LINES]
    scores = score(texts, terms("man tacos piano"))
    assert scores[2] > 1 + SIMILARITY_WEIGHT > scores[0] > scores[1] == 0
    assert 0 < score(texts, terms("tacos piano")).max() < 1


def test_short_sentences_become_one_passage_with_the_time_of_both() -> None:
    (one,) = documents_of(said("Is it cold?", "Yes."))
    assert (one.quote, one.start, one.end) == ("Is it cold? Yes.", 0.0, 3.0)


def test_long_sentences_stand_alone_and_no_passage_bridges_a_silence() -> None:
    long = " ".join(["word"] * 20)
    assert len(documents_of(said(long, long))) == 2
    assert len(documents_of(said("Is it cold?", "Yes.", every=60.0))) == 2


@given(st.lists(st.integers(1, 60), max_size=30))
def test_a_passage_loses_no_word_and_is_not_too_long(lengths: list[int]) -> None:
    lines = said(*(" ".join(f"w{n}x{i}" for i in range(length)) for n, length in enumerate(lengths)))
    documents = documents_of(lines)
    assert " ".join(document.quote for document in documents) == " ".join(line.quote for line in lines)
    assert all(len(document.quote.split()) <= max(MAX_PASSAGE, *lengths) for document in documents)


def test_what_comes_later_changes_only_the_last_passage() -> None:
    lines = said("One.", "Two three.", *(" ".join(["word"] * 12) for _ in range(3)), "Four.", "Five six.")
    before, after = documents_of(lines[:-1]), documents_of(lines)
    assert after[: len(before) - 1] == before[:-1]
    assert after != before


def test_a_picture_shown_again_at_once_is_one_document_and_kinds_do_not_mix() -> None:
    shown = [
        Evidence(float(n), n + 1.0, "sight", label, float(n))
        for n, label in enumerate(("cat", "cat", "dog", "cat"))
    ]
    between = Evidence(0.5, 0.9, "screen", "Title", 0.0)
    documents = documents_of(sorted([*shown, between], key=lambda line: line.start))
    assert [(doc.kind, doc.quote, doc.start, doc.end) for doc in documents] == [
        ("sight", "cat", 0.0, 2.0),
        ("screen", "Title", 0.5, 0.9),
        ("sight", "dog", 2.0, 3.0),
        ("sight", "cat", 3.0, 4.0),
    ]


def test_a_hit_has_the_keyframe_of_its_document() -> None:
    line = Evidence(5.0, 6.0, "speech", "A stone-cutter.", frame=4.0)
    assert search([line], "stone")[0].frame == pytest.approx(4.0)


def pictures(*names: str) -> list[Evidence]:
    return [Evidence(10.0 * n, 10.0 * n + 10, "sight", name, 10.0 * n) for n, name in enumerate(names)]


def deviations(*values: float | None) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)


def test_a_picture_without_labels_is_found_by_its_deviation() -> None:
    hits = search(
        [*LINES, *pictures("", "", "")],
        "mountain lake",
        deviations=deviations(None, None, None, 1.0, 6.0, 2.9),
    )
    assert [(hit.kind, hit.text, hit.frame) for hit in hits] == [("sight", UNNAMED, 10.0)]


def kept(margins: list[float], excess: float = 0.0) -> list[bool]:
    to_any = np.full(len(margins), 0.8, np.float32)
    similarity = to_any + np.array(margins, np.float32)
    return [not math.isnan(value) for value in above_chance(similarity, to_any, excess)]


def test_texts_that_a_query_is_about_need_less_than_the_one_that_shows_that_it_is_about_any() -> None:
    best, low = CHANCE_BEST + 0.001, CHANCE + 0.001
    assert kept([best, low, CHANCE - 0.001]) == [True, True, False]
    assert kept([low, low]) == [False, False]
    assert kept([best, math.nan, low]) == [True, False, True]
    assert kept([math.nan]) == [False]


def test_a_query_that_is_near_to_anything_needs_more_and_a_far_one_less() -> None:
    assert kept([CHANCE_BEST + 0.001], excess=0.002) == [False]
    assert kept([CHANCE_BEST - 0.001], excess=-0.002) == [True]


def test_a_chance_deviation_is_no_hit_and_a_certain_one_counts_as_equal_meaning() -> None:
    assert search(pictures("", ""), "mountain lake", deviations=deviations(Z_CHANCE, -9.0)) == []
    (hit,) = search(pictures(""), "mountain lake", deviations=deviations(Z_CERTAIN + 5))
    assert hit.score == SIMILARITY_WEIGHT
    (half,) = search(pictures(""), "mountain lake", deviations=deviations((Z_CHANCE + Z_CERTAIN) / 2))
    assert half.score == SIMILARITY_WEIGHT / 2


def test_neighbouring_pictures_are_one_hit_with_the_frame_of_the_best() -> None:
    hits = search(
        pictures("", "", "", "", ""), "mountain lake", deviations=deviations(4.2, 5.0, 4.1, 0.0, 4.5)
    )
    assert [(hit.start, hit.end, hit.frame) for hit in hits] == [(0.0, 30.0, 10.0), (40.0, 50.0, 40.0)]


def test_a_weak_picture_between_two_does_not_join_them() -> None:
    hits = search(pictures("", "", ""), "mountain lake", deviations=deviations(5.0, 3.2, 4.9))
    assert [(hit.start, hit.end) for hit in hits] == [(0.0, 10.0), (20.0, 30.0), (10.0, 20.0)]


def test_lines_beside_pictures_are_never_joined_with_them() -> None:
    documents = [Evidence(0.0, 5.0, "speech", "A cat sat there."), *pictures("cat", "cat")]
    hits = search(documents, "cat", deviations=deviations(None, 5.0, 5.0))
    assert [(hit.kind, hit.start, hit.end) for hit in hits] == [("sight", 0.0, 20.0), ("speech", 0.0, 5.0)]


def test_of_pictures_with_the_label_the_one_with_the_higher_deviation_is_first() -> None:
    hits = search(pictures("cat", "dog", "cat"), "cat", deviations=deviations(0.0, 0.0, 5.0))
    assert [hit.frame for hit in hits] == [20.0, 0.0]


def test_at_most_limit_stretches_of_pictures_come() -> None:
    several = deviations(5.0, 5.0, 0.0, 4.9, 0.0, 4.8)
    assert [
        hit.start for hit in search(pictures(*[""] * 6), "mountain lake", limit=2, deviations=several)
    ] == [
        0.0,
        30.0,
    ]


def test_words_are_scored_as_a_share_and_a_term_of_every_text_never_counts_against_one() -> None:
    index = WordIndex(["The bus was late.", "The bus was red.", "Rain."])
    scores = index.scores(terms("late bus"))
    assert 1 >= scores[0] > scores[1] > scores[2] == 0
    assert index.has_all(terms("late bus")).tolist() == [True, False, False]


@pytest.mark.parametrize("texts", [[], ["the"], [""]])
def test_texts_without_a_content_word_have_no_score(texts: list[str]) -> None:
    assert not WordIndex(texts).scores(("bus",)).any()
    assert not WordIndex(texts).scores(()).any()


def test_what_two_rankings_propose_comes_first_and_nothing_twice() -> None:
    assert fused([1, 2, 3], [4, 2]) == [2, 1, 4, 3]
    assert fused() == []


def test_the_best_are_numbers_above_0() -> None:
    assert best(np.array([0.2, np.nan, 0.0, 0.9, 0.5]), 2) == [3, 4]
    assert best(np.array([np.nan, 0.0]), 5) == []
