"""Requests are validated, and features are those that Whisper was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import audio
from streamsvc.core.errors import InvalidRequest

SECOND = np.zeros(audio.RATE, np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        None,
        [0.0],
        SECOND.astype(np.float64),
        np.zeros((2, 8), np.float32),
        np.zeros(0, np.float32),
        np.zeros(30 * audio.RATE, np.float32),
    ],
)
def test_samples_of_another_shape_are_refused(samples: Any) -> None:
    with pytest.raises(InvalidRequest):
        audio.request_samples({"samples": samples})


@given(st.integers(1, 3 * audio.RATE))
def test_features_have_a_column_every_10_ms(count: int) -> None:
    features = audio.log_mel(np.zeros(count, np.float32))
    assert features.shape == (80, -(-count // audio.HOP))
    assert np.isfinite(features).all()


def test_a_tone_lights_the_band_of_its_pitch() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(audio.RATE) / audio.RATE).astype(np.float32)
    band = int(audio.log_mel(tone)[:, 50].argmax())
    centre = np.fft.rfftfreq(audio.FFT, 1 / audio.RATE)[audio.mel_filters()[band].argmax()]
    assert abs(centre - 1000) <= 40


def test_padding_is_silence_not_zeros() -> None:
    features = audio.log_mel(np.random.default_rng(1).normal(0, 0.1, audio.RATE).astype(np.float32))
    assert (audio.pad(features, 600)[:, 100:] == min(0.0, features.min())).all()
