"""Agreement of hypotheses: what is new, what is certain, what was never spoken."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Word
from streamsvc.speech.agreement import agreed, certain, known, presentable, sentence_case, sound

texts = st.lists(st.sampled_from(["the", "stone", "cutter", "went", "home", "so", "far"]), max_size=12)


def laid(words: Sequence[str], start: float = 0.0) -> list[Word]:
    return [Word(text, start + 0.3 * place, start + 0.3 * place + 0.28) for place, text in enumerate(words)]


@given(texts, texts)
def test_agreement_is_the_common_beginning_whatever_the_case_and_punctuation(
    before: list[str], now: list[str]
) -> None:
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


def test_a_sentence_that_begins_like_the_one_before_is_not_taken_for_it() -> None:
    old = laid(["It", "was", "the", "age", "of", "wisdom.", "It"])
    heard = laid(["It", "was", "the", "age", "of", "foolishness."], start=1.8)
    assert known(old, heard) == 1


@given(st.integers(0, 12), st.integers(3, 8))
def test_words_that_crowd_into_one_moment_are_cut_off(spoken_words: int, invented: int) -> None:
    end = 0.3 * spoken_words
    starts = [0.3 * place for place in range(spoken_words)] + [
        end + 0.01 * place for place in range(invented)
    ]
    assert sound(starts, end + 0.02 * invented) in range(spoken_words, spoken_words + 1)


# --- certainty ----------------------------------------------------------------------------------------------------


def said(text: str, end: float, probability: float = 0.9) -> Word:
    return Word(text, end - 0.2, end, probability)


def count(
    words: list[Word], steps: list[int], end: float, *, pause: bool = False, clear: bool = False
) -> int:
    return certain(words, steps, end, pause=pause, clear=clear)


def test_a_likely_word_is_certain_when_two_steps_agree_and_an_unlikely_one_a_step_later() -> None:
    rest = said("home", 1.0, 0.1)
    assert count([said("went", 0.7), rest], [0, 0], 1.1) == 0
    assert count([said("went", 0.7), rest], [1, 0], 1.1) == 1
    assert count([said("went", 0.7, 0.6), rest], [1, 0], 1.1) == 0
    assert count([said("went", 0.7, 0.6), rest], [2, 0], 1.1) == 1


def test_a_word_behind_an_uncertain_one_waits() -> None:
    assert count([said("he", 0.5, 0.4), said("went", 0.7), said("home", 1.0)], [0, 5, 0], 1.1) == 0


def test_an_evident_word_needs_one_step_once_it_is_half_a_second_old() -> None:
    words = [said("went", 0.7, 0.99), said("home", 1.4, 0.1)]
    assert count(words, [0, 0], 1.1) == 0
    assert count(words, [0, 0], 1.5) == 1


def test_no_word_waits_for_ever() -> None:
    odd = [said("zyx", 1.0, 0.01), said("home", 3.0, 0.01)]
    assert [count(odd, [0, 0], end) for end in (1.5, 2.9, 3.1)] == [0, 0, 1]
    assert count([said("zyx", 1.0, 0.6), odd[1]], [0, 0], 2.4) == 1
    assert count(odd, [1, 0], 1.9) == 1


def test_in_clear_speech_nothing_but_a_guess_waits_long() -> None:
    words = [said("went", 0.7, 0.5), said("home", 1.4, 0.1)]
    assert [count(words, [0, 0], end, clear=True) for end in (1.0, 1.2)] == [0, 1]
    assert count(words, [0, 0], 1.2) == 0, "where it is hard to hear it waits"
    guess = [said("zyx", 0.7, 0.1), said("home", 1.4, 0.1)]
    assert [count(guess, [same, 0], 1.2, clear=True) for same in (0, 1)] == [0, 1]


def test_the_last_word_waits_where_its_stop_is_a_guess_and_at_a_pause() -> None:
    assert count([said("went", 0.7), said("home.", 1.0)], [3, 3], 1.1) == 1
    assert count([said("went", 0.7), said("home", 1.0)], [3, 3], 1.1) == 2
    assert count([said("went", 0.7), said("home", 1.0)], [0, 0], 1.4, pause=True) == 1
    assert count([said("went", 0.7, 0.6), said("home", 1.0)], [0, 0], 1.1, pause=True) == 0


def test_an_improbable_tail_is_not_shown_and_in_the_last_moment_less_is() -> None:
    assert presentable([said("went", 0.5, 0.4), said("home", 0.95, 0.7)], [0, 0], 1.0) == 2
    assert presentable([said("went", 0.5, 0.3), said("home", 0.95, 0.9)], [0, 0], 1.0) == 0
    assert presentable([said("went", 0.95, 0.4)], [0], 1.0) == 0


def test_what_was_heard_twice_is_shown_however_improbable() -> None:
    assert presentable([said("grew", 0.5, 0.2), said("thin", 0.7, 0.9)], [1, 0], 1.0) == 2
    assert presentable([said("grew", 0.5, 0.2), said("thin", 0.95, 0.2)], [1, 0], 1.0) == 1


def test_a_capital_follows_a_full_stop_and_nothing_else_is_changed() -> None:
    words = [said(text, 1.0) for text in ('home."', "but", "then...", "the", "3rd", "ONE", "élan")]
    assert [word.text for word in sentence_case(words, "for")] == [
        'home."',
        "But",
        "then...",
        "the",
        "3rd",
        "ONE",
        "élan",
    ]
    assert sentence_case([said("élan", 1.0)], ".")[0].text == "Élan"
