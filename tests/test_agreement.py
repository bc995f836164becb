"""Agreement of hypotheses: what is new, what is certain, what was never spoken."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.agreement import agreed, known, sound
from streamsvc.types import Word

texts = st.lists(st.sampled_from(["the", "stone", "cutter", "went", "home", "so", "far"]), max_size=12)


def laid(words: Sequence[str], start: float = 0.0) -> list[Word]:
    return [Word(text, start + 0.3 * place, start + 0.3 * place + 0.28) for place, text in enumerate(words)]


@given(texts, texts)
def test_agreement_is_the_common_beginning_whatever_the_case_and_punctuation(before: list[str], now: list[str]) -> None:
    count = agreed(laid(before), laid([word.upper() + "," for word in now]))
    assert before[:count] == now[:count]
    assert count == min(len(before), len(now)) or before[count] != now[count]


@given(texts, texts)
def test_what_is_stable_is_cut_off_a_hypothesis_that_repeats_it(old: list[str], new: list[str]) -> None:
    heard = laid([*old, *new])
    assert known(heard[: len(old)], heard) == len(old)


def test_a_changed_beginning_does_not_bring_stable_words_back() -> None:
    old = laid(["We", "all", "go", "in", "direct", "to", "heaven."])
    heard = laid(["We're", "all", "going"]) + laid(["direct", "to", "heaven.", "We're", "all"], start=1.2)
    assert known(old, heard) == 6


@given(st.integers(0, 12), st.integers(3, 8))
def test_words_that_crowd_into_one_moment_are_cut_off(spoken_words: int, invented: int) -> None:
    end = 0.3 * spoken_words
    starts = [0.3 * place for place in range(spoken_words)] + [end + 0.01 * place for place in range(invented)]
    assert sound(starts, end + 0.02 * invented) in range(spoken_words, spoken_words + 1)
