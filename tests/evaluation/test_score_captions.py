"""Caption scores: examples counted by hand, invariants, and equality with streambench."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from tests.conftest import MEDIA

STREAMBENCH = MEDIA.parent / "bench" / "streambench.py"
RECORDED = Path(__file__).parents[1] / "fixtures" / "captions_jfk.json"
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
def test_edits_equal_the_edit_distance_for_growing_hypotheses(
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
    result = score(shown, THREE)
    assert result.first == pytest.approx((0.2, 0.4, 0.75))
    assert result.commit == pytest.approx((0.9, 1.25, 0.75))
    assert (result.edits, result.right, result.committed, result.events) == (0, 3, 3, 3)
    assert result.end_lag == pytest.approx(0.75)


def test_a_word_that_was_taken_back_counts_from_when_it_came_to_stay() -> None:
    shown = [(1.2, "", "one"), (1.4, "", "won"), (1.8, "", "one two"), (2.5, "one two three", "")]
    result = score(shown, THREE)
    assert result.first == pytest.approx((0.8, 0.3, 0.5))
    assert (result.erased, result.shown) == (2, 5)  # "one", "won"; one, won, one, two, three
    assert result.revised == 0


def test_a_committed_word_that_changes_counts_as_revised() -> None:
    assert score([(1.2, "won", ""), (2.5, "one two three", "")], THREE).revised == 1


def test_a_word_that_is_never_right_has_no_latency_but_counts_as_wrong() -> None:
    result = score([(2.5, "one too three", "")], THREE)
    assert figures(result)["wer"] == pytest.approx(1 / 3, abs=1e-4)
    assert len(result.first) == len(result.commit) == 2


def test_a_snapshot_that_changes_nothing_is_no_event() -> None:
    assert score([(1.2, "", "one"), (1.3, "", "One,"), (2.5, "one two three", "")], THREE).events == 2


def test_nothing_shown_misses_every_word() -> None:
    result = figures(score([], THREE))
    assert (
        result["wer"],
        result["words_ok"],
        result["first_p50"],
        result["commit_max"],
        result["end_lag_s"],
    ) == (
        1.0,
        0,
        None,
        None,
        None,
    )


def test_the_longest_gap_is_inside_speech() -> None:
    talk = Reference(("a", "b", "c", "d", "e"), (1.0, 2.0, 3.0, 9.0, 10.0))  # a pause of six seconds
    shown: list[Snapshot] = [(1.2, "a", ""), (2.9, "a b", ""), (9.9, "a b c d e", "")]
    assert score(shown, talk).gap == pytest.approx(1.7)
    assert score([], talk).gap == pytest.approx(2.0)


def test_words_outside_of_speech_are_counted() -> None:
    shown: list[Snapshot] = [(1.2, "one you", "")]
    assert score(shown, THREE, [(0.8, 1.0), (5.0, 5.2)]).invented == 1
    silence = score(shown, Reference((), ()), [(0.8, 1.0), (5.0, 5.2)])
    assert (silence.invented, figures(silence)["wer"]) == (2, None)


def test_words_of_a_model_as_reference_give_no_word_error_rate() -> None:
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


# --- equality with streambench ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streambench() -> Any:
    """The module, run from its text: nothing is written beside it."""
    if not STREAMBENCH.is_file():
        pytest.skip(f"{STREAMBENCH} is not there: it is not part of the project")
    module: dict[str, Any] = {"__name__": "streambench"}
    exec(compile(STREAMBENCH.read_text(encoding="utf-8"), str(STREAMBENCH), "exec"), module)
    return SimpleNamespace(**module)


def as_streambench(shown: list[Snapshot], reference: Reference, module: Any) -> dict[str, Any]:
    run = {
        "events": shown,
        "cpu_s": 1.0,
        "stream_s": 10.0,
        "rss_mb": 1,
        "flush_s": 0.0,
        "late_feed_s": 0.0,
        "machine_busy_s": 1.0,
    }
    result: dict[str, Any] = module.score(run, {"truth": list(reference.words), "end": list(reference.ends)})
    return result


def equal(shown: list[Snapshot], reference: Reference, module: Any) -> None:
    theirs = as_streambench(shown, reference, module)
    ours = figures_of(shown, reference)
    names = {"wer", "words", "words_ok", "first_p50", "first_p95", "commit_p50", "commit_p95", "commit_max"}
    names |= {"erasure", "flicker_share", "commit_erased", "events"}
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    assert ours["end_lag_s"] == (None if np.isnan(theirs["end_lag_s"]) else theirs["end_lag_s"])


def figures_of(shown: list[Snapshot], reference: Reference) -> dict[str, float | None]:
    return dict(figures(score(shown, reference)))


def talk(seed: int) -> tuple[list[Snapshot], Reference]:
    """A talk of few different words (hard to align), with errors, loops, and changing tails and commits."""
    chance = random.Random(seed)
    words = [
        chance.choice(["the", "stone", "cutter", "Mr.", "so", "far"]) for _ in range(chance.randint(1, 60))
    ]
    marks, at = [], 0.0
    for _ in words:
        at += chance.choice([0.2, 0.3, 0.4, 0.4, 2.0])
        marks.append(round(at, 3))
    reference = Reference(tuple(piece for word in words for piece in norm(word)), tuple(marks))
    committed: list[str] = []
    shown: list[Snapshot] = []
    now = 0.0
    while now < at + 3:
        now += chance.uniform(0.1, 0.7)
        heard = sum(mark < now + 0.3 for mark in marks)
        grown = [
            word if chance.random() > 0.15 else chance.choice(["", "so so", "far", "wrong"])
            for word in words[:heard]
        ]
        keep = min(len(committed) + chance.randint(0, 3), len(grown))
        committed = [*committed, *grown[len(committed) : keep]]
        if chance.random() < 0.05:
            committed = committed[:-1]
        shown.append((now, " ".join(committed), " ".join(grown[len(committed) :])))
    return shown, reference


@pytest.mark.parametrize("seed", range(40))
def test_synthetic_events_score_as_in_streambench(streambench: Any, seed: int) -> None:
    equal(*talk(seed), streambench)


def test_recorded_events_score_as_in_streambench(streambench: Any) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    shown = [(at, stable, tail) for at, stable, tail in recorded["events"]]
    reference = Reference(tuple(recorded["truth"]), tuple(recorded["end"]))
    equal(shown, reference, streambench)
    equal(shown[:9], reference, streambench)  # cut off: most words are never right
    equal([], reference, streambench)


def test_words_are_taken_apart_as_in_streambench(streambench: Any) -> None:
    for text in ("Mr. O’Neil's dog -- it's 7!", "", "Dr. Mrs, forests", " a  b "):
        assert norm(text) == streambench.norm(text)


def test_words_of_other_languages_stay_whole_where_streambench_cuts_them(streambench: Any) -> None:
    assert norm("Les forêts") == ["les", "forêts"]
    assert streambench.norm("Les forêts") == ["les", "for", "ts"]
