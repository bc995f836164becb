"""Voice activity: hysteresis, onset, and words without the silence around them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from streamsvc.core.types import SAMPLE_RATE
from streamsvc.speech.vad import ONSET_WINDOWS, VAD_WINDOW, VoiceActivity

WINDOW = VAD_WINDOW / SAMPLE_RATE  # seconds


def activity_of(probabilities: Iterable[float]) -> VoiceActivity:
    activity = VoiceActivity()
    for index, probability in enumerate(probabilities):
        activity.add(probability, index * WINDOW, (index + 1) * WINDOW)
    return activity


def test_speech_starts_at_the_higher_threshold_and_continues_down_to_the_lower_one() -> None:
    assert activity_of([0.4] * 5).end == 0.0
    assert activity_of([0.6, 0.4, 0.4, 0.3, 0.4]).end == pytest.approx(3 * WINDOW)


def test_speech_shorter_than_the_onset_is_a_click() -> None:
    assert activity_of([0.0, *[1.0] * (ONSET_WINDOWS - 1)]).onset is None
    assert activity_of([0.0, *[1.0] * ONSET_WINDOWS]).onset == pytest.approx(WINDOW)


def test_a_reset_needs_the_higher_threshold_again() -> None:
    activity = activity_of([1.0] * 5)
    activity.reset()
    assert activity.onset is None
    activity.add(0.4, 5 * WINDOW, 6 * WINDOW)
    assert activity.end == pytest.approx(5 * WINDOW)


def test_speech_after_a_time_is_cut_there() -> None:
    activity = activity_of([*[1.0] * 10, *[0.0] * 20, *[1.0] * 10])
    assert activity.after(5 * WINDOW) == [
        pytest.approx((5 * WINDOW, 10 * WINDOW)),
        pytest.approx((30 * WINDOW, 40 * WINDOW)),
    ]
    assert activity.after(40 * WINDOW) == []


def test_a_word_loses_the_pause_before_or_after_it() -> None:
    activity = activity_of([*[1.0] * 10, *[0.0] * 20, *[1.0] * 30])
    assert activity.trim(5 * WINDOW, 50 * WINDOW) == pytest.approx((30 * WINDOW - 0.1, 50 * WINDOW))
    assert activity.trim(2 * WINDOW, 25 * WINDOW) == pytest.approx((2 * WINDOW, 10 * WINDOW + 0.05))
    assert activity.trim(15 * WINDOW, 20 * WINDOW) == pytest.approx((15 * WINDOW, 20 * WINDOW)), "no speech"


def test_a_word_spans_silences_shorter_than_a_pause() -> None:
    activity = activity_of([*[1.0] * 10, *[0.0] * 5, *[1.0] * 10])
    assert activity.trim(0.0, 25 * WINDOW) == pytest.approx((0.0, 25 * WINDOW))
