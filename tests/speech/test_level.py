"""Quiet and fading audio reaches voice activity detection as loud as speech; loud audio is unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamsvc.speech.level import GAIN_MAX, TARGET, amplify
from streamsvc.speech.vad import VAD_WINDOW


def loudness(samples: Any) -> Any:
    return np.sqrt(np.mean(np.square(samples.reshape(-1, VAD_WINDOW)), axis=1))


def tone(levels: list[float]) -> Any:
    """A window of each level (root mean square)."""
    window = np.sqrt(2) * np.sin(np.arange(VAD_WINDOW) * 2 * np.pi / 64)
    return np.concatenate([level * window for level in levels]).astype(np.float32)


@pytest.mark.parametrize("decibels", [-40, -50, -60])
def test_quiet_audio_is_amplified_to_the_target(decibels: int) -> None:
    quiet = tone([10 ** (decibels / 20)] * 8)
    amplified, _ = amplify(quiet, 0.0)
    assert loudness(amplified) == pytest.approx(
        max(1.0, min(GAIN_MAX, TARGET / loudness(quiet)[0])) * loudness(quiet)
    )
    assert loudness(amplified).min() >= 0.01


def test_what_is_loud_enough_for_voice_activity_detection_is_unchanged_and_so_is_breath_behind_it() -> None:
    """Amplified, breath in the pauses of a reader became speech: pauses were missed, and words were wrong."""
    speech, breath = tone([0.08] * 16), tone([0.008] * 20)
    amplified, _ = amplify(np.concatenate([speech, breath]), 0.0)
    assert np.array_equal(amplified, np.concatenate([speech, breath]))
    assert np.array_equal(amplify(tone([10 ** (-36 / 20)] * 8), 0.0)[0], tone([10 ** (-36 / 20)] * 8))


def test_loud_audio_is_unchanged_and_a_fade_is_followed() -> None:
    loud = tone([0.2] * 4)
    amplified, level = amplify(loud, 0.0)
    assert np.array_equal(amplified, loud)
    fade = tone([0.2 * 10 ** (-0.2 * index / 20) for index in range(200)])  # 40 dB in 6.4 s
    followed, _ = amplify(fade, level)
    assert loudness(followed).min() == pytest.approx(TARGET, rel=0.1)


def test_the_gain_has_a_maximum_and_goes_on_with_the_level() -> None:
    faint = tone([1e-5] * 4)
    amplified, level = amplify(faint, 0.0)
    assert loudness(amplified) == pytest.approx(1e-3, rel=1e-3)
    at_once, _ = amplify(tone([0.01] * 2), 0.2)
    assert loudness(at_once)[0] == pytest.approx(0.01, rel=1e-3), "after loud speech the gain rises slowly"
    both = np.concatenate([faint, faint])
    assert np.array_equal(amplify(both, 0.0)[0][len(faint) :], amplify(faint, level)[0])
    assert np.all(amplify(np.zeros(VAD_WINDOW, np.float32), 0.0)[0] == 0.0)
