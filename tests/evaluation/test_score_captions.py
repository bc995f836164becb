"""Figures of what was shown: small examples that can be counted by hand, and what must hold of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.evaluation.score_captions import (
    Aligner,
    Reference,
    Snapshot,
    align,
    compare,
    errors,
    figures,
    norm,
    pieces,
    pool,
    score,
)

words = st.lists(st.sampled_from("abcd"), max_size=9)
THREE = Reference(("one", "two", "three"), (1.0, 1.5, 2.0))


def distance(truth: Sequence[str], heard: Sequence[str]) -> int:
    """Edit distance, as the textbook has it."""
    row = list(range(len(truth) + 1))
    for i, word in enumerate(heard, 1):
        above, row = row, [i]
        for j, other in enumerate(truth, 1):
            row.append(min(above[j - 1] + (word != other), above[j] + 1, row[j - 1] + 1))
    return row[-1]


def test_words_are_compared_without_case_punctuation_and_short_titles() -> None:
    assert norm("Mr. O’Neil's dog -- it's 7!") == ["mister", "oneils", "dog", "its", "7"]
    assert norm("Für_die Ärztin, 東京は 7時。") == ["für", "die", "ärztin", "東", "京", "は", "7", "時"]


@given(words, st.lists(words, min_size=1, max_size=4))
def test_the_edits_are_the_edit_distance_however_the_hypotheses_grew(
    truth: list[str], hypotheses: list[list[str]]
) -> None:
    aligner = Aligner(truth)
    for heard in hypotheses:
        pairs, edits = aligner.match(heard)
        assert edits == distance(truth, heard)
        assert all(truth[i] == heard[j] for i, j in pairs)
        assert (pairs, edits) == align(truth, heard)


@given(words, words)
def test_the_edits_of_the_words_add_up_to_the_edit_distance(truth: list[str], heard: list[str]) -> None:
    assert errors(truth, heard).sum() == (distance(truth, heard) if truth else 0)


def test_edits_count_at_the_word_where_they_are() -> None:
    assert errors(["a", "b", "c", "d", "e"], ["a", "x", "c", "d"]).tolist() == [0, 1, 0, 0, 1]
    assert errors(["a", "b", "c"], ["a", "b", "x", "y", "c"]).tolist() == [0, 0, 2]
    assert errors(["a", "b"], ["a", "b", "x"]).tolist() == [0, 1]


def test_a_word_is_shown_and_committed_after_its_end() -> None:
    shown = [(1.2, "", "one"), (1.9, "one", "two"), (2.75, "one two three", "")]
    told = score(shown, THREE)
    assert told.first == pytest.approx((0.2, 0.4, 0.75))
    assert told.commit == pytest.approx((0.9, 1.25, 0.75))
    assert (told.edits, told.right, told.committed, told.events) == (0, 3, 3, 3)
    assert told.end_lag == pytest.approx(0.75)


def test_a_word_that_was_taken_back_counts_from_when_it_came_to_stay() -> None:
    shown = [(1.2, "", "one"), (1.4, "", "won"), (1.8, "", "one two"), (2.5, "one two three", "")]
    told = score(shown, THREE)
    assert told.first == pytest.approx((0.8, 0.3, 0.5))
    assert (told.erased, told.shown) == (2, 5)  # "one", "won"; one, won, one, two, three
    assert told.revised == 0


def test_a_committed_word_that_changes_is_told() -> None:
    assert score([(1.2, "won", ""), (2.5, "one two three", "")], THREE).revised == 1


def test_a_word_that_is_never_right_has_no_latency_but_counts_as_wrong() -> None:
    told = score([(2.5, "one too three", "")], THREE)
    assert figures(told)["wer"] == pytest.approx(1 / 3, abs=1e-4)
    assert len(told.first) == len(told.commit) == 2


def test_a_snapshot_that_changes_nothing_is_no_event() -> None:
    assert score([(1.2, "", "one"), (1.3, "", "One,"), (2.5, "one two three", "")], THREE).events == 2


def test_nothing_shown_misses_every_word() -> None:
    told = figures(score([], THREE))
    assert (told["wer"], told["words_ok"], told["first_p50"], told["commit_max"], told["end_lag_s"]) == (
        1.0,
        0,
        None,
        None,
        None,
    )


def test_the_longest_gap_lies_where_somebody_speaks() -> None:
    talk = Reference(("a", "b", "c", "d", "e"), (1.0, 2.0, 3.0, 9.0, 10.0))  # a pause of six seconds
    shown: list[Snapshot] = [(1.2, "a", ""), (2.9, "a b", ""), (9.9, "a b c d e", "")]
    assert score(shown, talk).gap == pytest.approx(1.7)
    assert score([], talk).gap == pytest.approx(2.0)


def test_words_where_nobody_speaks_are_told() -> None:
    shown: list[Snapshot] = [(1.2, "one you", "")]
    assert score(shown, THREE, [(0.8, 1.0), (5.0, 5.2)]).invented == 1
    silence = score(shown, Reference((), ()), [(0.8, 1.0), (5.0, 5.2)])
    assert (silence.invented, figures(silence)["wer"]) == (2, None)


def test_words_that_only_a_model_heard_give_no_word_error_rate() -> None:
    heard = score([(1.2, "one", "")], Reference(THREE.words, THREE.ends, true=False))
    assert figures(heard)["wer"] is None
    assert figures(heard)["commit_p50"] == pytest.approx(0.2)


def test_several_runs_pool_words_and_keep_the_worst_gap() -> None:
    good = score([(1.2, "one", ""), (2.5, "one two three", "")], THREE)
    bad = score([(2.1, "one two", "")], THREE)
    heard = score([(1.2, "one more", "")], Reference(("one",), (1.0,), true=False))
    both = pool([good, bad, heard])
    assert figures(both)["wer"] == pytest.approx(1 / 6, abs=1e-4)
    assert len(both.commit) == 3 + 2 + 1
    assert both.gap == max(good.gap, bad.gap)


def test_pieces_have_about_twenty_words_and_hold_all_edits() -> None:
    counts = np.arange(50)
    cut = pieces(counts)
    assert cut[:, 0].sum() == counts.sum()
    assert cut[:, 1].tolist() == [25, 25]
    assert len(pieces(np.zeros(0))) == 0


def test_the_bound_of_a_difference_is_zero_where_both_fail_alike_and_above_it_where_they_do_not() -> None:
    ours = np.array([[place % 3, 20] for place in range(40)], dtype=np.float64)
    assert compare(ours, ours) is not None
    same, worse = (
        compare(ours, ours),
        compare(ours + [1, 0] * np.array([[place % 2] for place in range(40)]), ours),
    )
    assert same is not None
    assert worse is not None
    assert (same.points, same.upper) == (0.0, 0.0)
    assert worse.points == pytest.approx(0.5 / 20)
    assert worse.points < worse.upper < 1 / 20
    assert compare(ours[:0], ours[:0]) is None
