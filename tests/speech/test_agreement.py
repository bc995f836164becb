"""Agreement of hypotheses: new, stable, shown and hallucinated words."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Word
from streamsvc.speech.agreement import (
    agreement_length,
    no_speech,
    overlap_count,
    sentence_case,
    shown_count,
    spoken_count,
    stable_count,
    words_beyond,
)

texts = st.lists(st.sampled_from(["the", "stone", "cutter", "went", "home", "so", "far"]), max_size=12)


def words_of(texts: Sequence[str], start: float = 0.0) -> list[Word]:
    return [Word(text, start + 0.3 * index, start + 0.3 * index + 0.28) for index, text in enumerate(texts)]


@given(texts, texts)
def test_agreement_is_the_common_prefix_regardless_of_case_and_punctuation(
    before: list[str], now: list[str]
) -> None:
    length = agreement_length(words_of(before), words_of([text.upper() + "," for text in now]))
    assert before[:length] == now[:length]
    assert length == min(len(before), len(now)) or before[length] != now[length]


@given(texts, texts)
def test_stable_words_are_removed_from_a_hypothesis_that_repeats_them(old: list[str], new: list[str]) -> None:
    words = words_of([*old, *new])
    assert overlap_count(words[: len(old)], words) == len(old)


def test_a_changed_beginning_does_not_repeat_stable_words() -> None:
    old = words_of(["We", "all", "go", "in", "direct", "to", "heaven."])
    words = words_of(["We're", "all", "going"]) + words_of(
        ["direct", "to", "heaven.", "We're", "all"], start=1.2
    )
    assert overlap_count(old, words) == 6


def test_a_sentence_that_begins_like_the_one_before_is_not_its_repetition() -> None:
    old = words_of(["It", "was", "the", "age", "of", "wisdom.", "It"])
    words = words_of(["It", "was", "the", "age", "of", "foolishness."], start=1.8)
    assert overlap_count(old, words) == 1


@given(st.integers(0, 12), st.integers(3, 8))
def test_hallucinated_words_that_crowd_into_one_moment_are_removed(spoken_words: int, invented: int) -> None:
    end = 0.3 * spoken_words
    starts = [0.3 * index for index in range(spoken_words)] + [
        end + 0.01 * index for index in range(invented)
    ]
    assert spoken_count(starts, end + 0.02 * invented) in range(spoken_words, spoken_words + 1)


# --- stability


def word(text: str, end: float, probability: float = 0.9) -> Word:
    return Word(text, end - 0.2, end, probability)


def count(words: list[Word], agreements: list[int], end: float, *, pause: bool = False) -> int:
    return stable_count(words, agreements, end, pause=pause)


def test_a_likely_word_is_stable_when_two_steps_agree_and_an_unlikely_one_a_step_later() -> None:
    rest = word("home", 1.0, 0.1)
    assert count([word("went", 0.7), rest], [0, 0], 1.05) == 0
    assert count([word("went", 0.7), rest], [1, 0], 1.05) == 1
    assert count([word("went", 0.7, 0.6), rest], [1, 0], 1.05) == 0
    assert count([word("went", 0.7, 0.6), rest], [2, 0], 1.05) == 1


def test_a_word_after_an_unstable_one_waits() -> None:
    assert count([word("he", 0.5, 0.3), word("went", 0.7), word("home", 1.0)], [0, 5, 0], 1.1) == 0


def test_a_certain_word_needs_one_step_unless_it_may_be_cut() -> None:
    words = [word("went", 0.7, 0.96), word("home", 0.9, 0.1)]
    assert [count(words, [0, 0], end) for end in (0.8, 0.9)] == [0, 1]
    likely = [word("went", 0.7, 0.93), word("home", 0.9, 0.1)]
    assert count(likely, [0, 0], 0.9) == 0


def test_every_word_becomes_stable_at_the_maximum_age() -> None:
    odd = [word("zyx", 1.0, 0.01), word("home", 3.0, 0.01)]
    assert [count(odd, [0, 0], end) for end in (1.5, 2.9, 3.1)] == [0, 0, 1]


def test_only_improbable_words_that_no_step_agrees_on_wait_long() -> None:
    words = [word("went", 0.7, 0.65), word("home", 1.4, 0.1)]
    assert [count(words, [0, 0], end) for end in (1.0, 1.2)] == [0, 1]
    assert count([word("went", 0.7, 0.55), words[1]], [0, 0], 1.2) == 0
    guess = [word("zyx", 0.7, 0.1), word("home", 1.4, 0.1)]
    assert [count(guess, [same, 0], 1.2) for same in (0, 1)] == [0, 1]


def test_the_last_word_waits_if_it_ends_in_punctuation_and_at_a_pause() -> None:
    assert count([word("went", 0.7), word("home.", 1.0)], [3, 3], 1.1) == 1
    assert count([word("went", 0.7), word("home", 1.0)], [3, 3], 1.1) == 2
    assert count([word("went", 0.7), word("home", 1.0)], [0, 0], 1.4, pause=True) == 1
    assert count([word("went", 0.7, 0.6), word("home", 1.0)], [0, 0], 1.05, pause=True) == 0


def test_an_improbable_tail_is_not_shown_and_the_newest_words_need_a_higher_probability() -> None:
    assert shown_count([word("went", 0.5, 0.35), word("home", 0.95, 0.85)], [0, 0], 1.0) == 2
    assert shown_count([word("went", 0.5, 0.25), word("home", 0.95, 0.9)], [0, 0], 1.0) == 0
    assert shown_count([word("went", 0.95, 0.75)], [0], 1.0) == 0


def test_a_word_that_two_steps_agree_on_is_shown_whatever_its_probability() -> None:
    assert shown_count([word("grew", 0.5, 0.2), word("thin", 0.7, 0.9)], [1, 0], 1.0) == 2
    assert shown_count([word("grew", 0.5, 0.2), word("thin", 0.95, 0.2)], [1, 0], 1.0) == 1


def test_only_the_word_after_a_full_stop_is_capitalised() -> None:
    words = [word(text, 1.0) for text in ('home."', "but", "then...", "the", "3rd", "ONE", "élan")]
    assert [cased.text for cased in sentence_case(words, "for")] == [
        'home."',
        "But",
        "then...",
        "the",
        "3rd",
        "ONE",
        "élan",
    ]
    assert sentence_case([word("élan", 1.0)], ".")[0].text == "Élan"


def test_a_hypothesis_that_ends_early_does_not_deny_the_words_beyond() -> None:
    tail = words_of(["in", "his", "power", "to", "do"])

    def heard(start: float, end: float) -> float:
        return end - start

    def beyond(fresh: Sequence[Word], of: Sequence[Word] = tail) -> list[str]:
        return [word.text for word in words_beyond(of, fresh, heard)]

    assert beyond(words_of(["in", "his"])) == ["power", "to", "do"]
    assert beyond([]) == ["in", "his", "power", "to", "do"]
    assert beyond(words_of(["in", "this", "tower"])) == ["to", "do"], "by time, where the texts differ"
    assert beyond(words_of(["in", "his", "power", "to", "do", "for"])) == []
    assert beyond([Word("in", 0.0, 0.3), Word("history", 0.3, 1.5)]) == [], "it covers their time"
    assert words_beyond(tail, words_of(["in"]), no_speech) == [], "silence holds no words"
    doubtful = [Word("in", 0.0, 0.28), Word("you", 0.3, 0.58, 0.2)]
    assert beyond(words_of(["in"]), doubtful) == []
