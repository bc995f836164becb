"""Audio as the speech models take it: 16 kHz mono samples, and Whisper's log-mel features of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.errors import InvalidRequest

Samples = NDArray[np.float32]

RATE = 16_000  # Hz
HOP = 160  # samples per mel frame: 10 ms
FFT = 400  # samples
LONGEST = 29.0  # seconds of samples in one request


def request_samples(payload: Mapping[str, Any]) -> Samples:
    """The samples of a request.

    Raises:
        InvalidRequest: the samples are not a float32 array of shape (n,), are empty, or are longer than
            LONGEST.
    """
    samples = payload.get("samples")
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype != np.float32:
        raise InvalidRequest("samples must be a float32 array of shape (n,)")
    if not 0 < len(samples) <= LONGEST * RATE:
        raise InvalidRequest(
            f"samples must last more than 0 and at most {LONGEST} s, not {len(samples) / RATE:.1f} s"
        )
    return samples


@cache
def mel_filters(mels: int = 80) -> Samples:
    """The triangular filters of Slaney's mel scale that Whisper was trained with.

    Shape (mels, FFT / 2 + 1).
    """
    step = 200.0 / 3  # Hz per mel below the knee; logarithmic above it
    knee = 1000.0  # Hz
    log_step = np.log(6.4) / 27.0
    knee_mel = knee / step
    top = knee_mel + np.log(RATE / 2 / knee) / log_step
    marks = np.linspace(0.0, top, mels + 2)
    hertz = np.where(marks < knee_mel, step * marks, knee * np.exp(log_step * (marks - knee_mel)))
    bins = np.fft.rfftfreq(FFT, 1.0 / RATE)
    slopes = hertz[:, None] - bins[None, :]
    widths = np.diff(hertz)[:, None]
    triangles = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    area = 2.0 / (hertz[2:] - hertz[:-2])
    filters: Samples = (triangles * area[:, None]).astype(np.float32)
    return filters


@cache
def _hann() -> Samples:
    window: Samples = np.hanning(FFT + 1)[:-1].astype(np.float32)
    return window


def log_mel(samples: Samples, mels: int = 80) -> Samples:
    """Whisper's log-mel features, without padding. Shape (mels, ceil(n / HOP))."""
    frames = -(-len(samples) // HOP)
    framed = np.pad(samples, (FFT // 2, FFT // 2 + frames * HOP - len(samples)), mode="constant")
    mirrored = framed[FFT // 2 + 1 : FFT + 1][::-1]
    framed[: FFT // 2] = mirrored if len(samples) > FFT else 0.0  # reflected, as in training
    view = np.lib.stride_tricks.sliding_window_view(framed, FFT)[: frames * HOP : HOP]
    power = np.abs(np.fft.rfft(view * _hann(), axis=1).astype(np.complex64)) ** 2
    mel = np.log10(np.maximum(mel_filters(mels) @ power.T, 1e-10))
    features: Samples = ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
    return features


def pad(features: Samples, frames: int) -> Samples:
    """Features padded with silence to `frames` columns (an even number: the encoder halves it).

    Silence is the minimum of the features, as in training. Zeros are loud here and cost words at the end of
    the speech.
    """
    floor = float(features.min(initial=0.0))
    return np.pad(features, ((0, 0), (0, max(0, frames - features.shape[1]))), constant_values=floor)
