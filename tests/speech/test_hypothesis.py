"""Hypotheses in session time: trimmed, in order, without hallucinations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamsvc.core.types import SAMPLE_RATE, Word
from streamsvc.speech.hypothesis import DecodeWindow, Hypothesis, is_no_speech
from streamsvc.speech.vad import VAD_WINDOW, VoiceActivity

WINDOW = DecodeWindow(np.zeros(0, np.float32), 10.0, 12.0, False, float("-inf"), "")


def result(words: list[list[Any]], no_speech: float = 0.1, log_probability: float = -0.2) -> dict[str, Any]:
    return {"words": words, "no_speech": no_speech, "log_probability": log_probability}


def speech(start: float, end: float) -> VoiceActivity:
    activity = VoiceActivity()
    size = VAD_WINDOW / SAMPLE_RATE
    for index in range(round((end - start) / size)):
        activity.add(1.0, start + index * size, start + (index + 1) * size)
    return activity


def test_word_times_are_in_session_time_and_do_not_overlap() -> None:
    hypothesis = Hypothesis.from_result(result([["so", 0.1, 0.5, 0.9], ["far", 0.4, 0.9, 0.8]]))
    assert hypothesis.placed(WINDOW, speech(10.0, 12.0)) == [
        Word("so", 10.1, 10.5, 0.9),
        Word("far", 10.5, 10.9, 0.8),
    ]


def test_an_offset_moves_the_words() -> None:
    hypothesis = Hypothesis.from_result(result([["so", 0.1, 0.5, 0.9]]), offset=1.0)
    assert hypothesis.words == (Word("so", 1.1, 1.5, 0.9),)


def test_a_word_ends_with_the_window_and_has_a_minimum_length() -> None:
    hypothesis = Hypothesis.from_result(result([["so", 1.0, 2.5, 0.9], ["far", 2.0, 2.6, 0.8]]))
    first, second = hypothesis.placed(WINDOW, speech(10.0, 12.0))
    assert first.end == 12.0
    assert second.end - second.start == pytest.approx(0.02)


def test_words_that_crowd_into_one_moment_are_hallucinated() -> None:
    crowd = [["x", 1.0 + 0.01 * index, 1.01 + 0.01 * index, 0.5] for index in range(4)]
    placed = Hypothesis.from_result(result([["so", 0.1, 0.5, 0.9], *crowd])).placed(
        WINDOW, speech(10.0, 12.0)
    )
    assert [word.text for word in placed] == ["so"]


@pytest.mark.parametrize(
    ("no_speech", "log_probability", "expected"), [(0.7, -1.1, True), (0.7, -0.9, False), (0.5, -1.1, False)]
)
def test_no_speech_needs_both_probabilities(no_speech: float, log_probability: float, expected: bool) -> None:
    assert is_no_speech(no_speech, log_probability) == expected
    hypothesis = Hypothesis.from_result(result([["so", 0.1, 0.5, 0.9]], no_speech, log_probability))
    assert (hypothesis.placed(WINDOW, speech(10.0, 12.0)) == []) == expected
