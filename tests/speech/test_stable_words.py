"""Stable and tentative words over successive hypotheses."""

from __future__ import annotations

import numpy as np

from streamsvc.core.types import Word
from streamsvc.speech.hypothesis import DecodeWindow
from streamsvc.speech.stable_words import PROMPT_SECONDS, PROMPT_WORDS, StableWords, Update


def window(
    end: float, *, start: float = 0.0, at_pause: bool = False, force_before: float = float("-inf")
) -> DecodeWindow:
    return DecodeWindow(np.zeros(0, np.float32), start, end, at_pause, force_before, "")


def words_of(text: str, start: float = 0.0, probability: float = 0.9) -> list[Word]:
    """Words of 0.3 s each."""
    return [
        Word(word, start + 0.3 * index, start + 0.3 * index + 0.28, probability)
        for index, word in enumerate(text.split())
    ]


def stable_of(update: Update) -> str:
    return " ".join(word.text for word in update.stable)


def test_words_on_which_two_hypotheses_agree_are_stable_and_not_repeated() -> None:
    words = StableWords()
    first = words.update(words_of("so it goes"), window(0.65))
    assert (stable_of(first), len(first.shown)) == ("", 3)
    second = words.update(words_of("so it went on"), window(0.9))
    assert stable_of(second) == "So it"
    third = words.update(words_of("so it went on"), window(1.3))
    assert stable_of(third) == "went on"
    assert words.last is not None and words.last.text == "on"


def test_an_unchanged_tail_is_no_change() -> None:
    words = StableWords()
    assert words.update(words_of("so", probability=0.5), window(0.5)).changed
    update = words.update(words_of("so", probability=0.5), window(0.5))
    assert (update.changed, update.empty) == (False, False)
    assert words.update([], window(0.6)).changed, "the tail was retracted"


def test_old_words_of_a_long_window_become_stable_without_agreement() -> None:
    words = StableWords()
    update = words.update(words_of("so it goes", probability=0.1), window(0.9, force_before=0.6))
    assert stable_of(update) == "So it"


def test_the_tail_becomes_stable_at_the_end_of_the_utterance() -> None:
    words = StableWords()
    words.update(words_of("so far"), window(0.6))
    assert [word.text for word in words.commit_tail()] == ["So", "far"]
    assert words.tail == ()
    assert words.commit_tail() == ()


def test_the_prompt_has_recent_words_before_the_window() -> None:
    words = StableWords()
    words.update(words_of("w " * 50), window(20.0, at_pause=True))
    words.commit_tail()
    assert len(words.prompt(20.0).split()) == PROMPT_WORDS
    assert words.prompt(0.65) == "W w"
    assert words.prompt(20.0 + PROMPT_SECONDS) == ""


def test_a_new_utterance_keeps_the_last_words_only_as_context() -> None:
    words = StableWords()
    words.update(words_of("so it goes"), window(0.9, at_pause=True))
    words.begin(keep_context=True)
    assert words.last is not None and words.tail == ()
    words.begin(keep_context=False)
    assert words.start_before(99.0) is None
    assert words.prompt(1.0) == "So it"


def test_words_before_the_window_are_forgotten_but_the_last() -> None:
    words = StableWords()
    words.update(words_of("so it goes on"), window(3.0, at_pause=True))
    assert words.start_before(0.4) == 0.3
    assert words.start_before(-1.0) is None
    words.discard(2.0)
    assert words.start_before(3.0) == 0.6
