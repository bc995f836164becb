"""Mixing the channels of one audio track down to mono. Pure.

The plain mean is silent where one channel has the opposite polarity (a miswired microphone, a faulty cable, a
"wide" effect), and 6 dB too quiet where one channel is silent. So each channel is given the polarity in which
it adds to the others, and the mix has the level of the loudest channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

BLOCK = 0.02  # seconds for which polarity and level are decided at once
RAMP = 0.005  # seconds in which the factors of the channels change: a step would click
POLARITY_SECONDS = 0.15  # time constant of the correlation of a channel with the others
OPPOSITE = 0.4  # correlation beyond which (either sign) the polarity is certain; between, it stays
RELEASE_SECONDS = 1.0  # time constant with which the remembered level of a channel falls
QUIET = 0.1  # times the remembered level: blocks below hold noise, which tells nothing about polarity
SILENCE = 1e-5  # RMS; below, the same
# Of a surround layout: dialogue is in the centre, and none in the low frequency effects (ITU-R BS.775).
WEIGHTS = {"FL": 1.0, "FR": 1.0, "FC": math.sqrt(2), "LFE": 0.0, "LFE2": 0.0}
SURROUND = math.sqrt(0.5)  # weight of any other channel of a layout with a centre or front channels


class Downmixer:
    """Mixes blocks of one track down to mono.

    Args:
        names: of the channels, as libav calls them: "FL", "FR", "FC", "LFE", ...; others: equal weights.
        rate: Hz.
    """

    def __init__(self, names: Sequence[str], rate: int) -> None:
        known = [WEIGHTS.get(name) for name in names]
        weights = [1.0 if not any(known) else SURROUND if weight is None else weight for weight in known]
        self._rate = rate
        self._weights: NDArray[np.float64] = np.array(weights)
        self._polarity: NDArray[np.float64] = np.ones(len(weights))
        self._correlation: list[float | None] = [None] * len(weights)  # with the mix of the louder channels
        self._level: NDArray[np.float64] = np.zeros(len(weights))  # RMS, released slowly
        self._applied: NDArray[np.float64] | None = None  # the factors at the end of the last block

    def mix(self, samples: Samples) -> Samples:
        """Mix contiguous samples, shape (channels, n), down to shape (n,)."""
        length = samples.shape[1]
        count = max(1, length // max(1, round(BLOCK * self._rate)))
        bounds = [length * number // count for number in range(count + 1)]
        mixed = [self._block(samples[:, start:end]) for start, end in itertools.pairwise(bounds)]
        return np.concatenate(mixed) if len(mixed) > 1 else mixed[0]

    def _block(self, samples: Samples) -> Samples:
        length = samples.shape[1]
        if not length:
            return np.zeros(0, np.float32)
        seconds = length / self._rate
        centred = samples - samples.mean(axis=1, keepdims=True, dtype=np.float32)
        level = np.sqrt(np.square(centred).mean(axis=1, dtype=np.float64))
        self._level = np.maximum(level, self._level * math.exp(-seconds / RELEASE_SECONDS))
        self._align(centred, level, 1 - math.exp(-seconds / POLARITY_SECONDS))
        factors = self._factors()
        before = factors if self._applied is None else self._applied
        self._applied = factors
        if np.array_equal(before, factors):
            mixed = factors.astype(np.float32) @ samples
        else:
            ramp = np.minimum(np.arange(length, dtype=np.float32) / np.float32(RAMP * self._rate), 1)
            steps = (factors - before).astype(np.float32)[:, None] * ramp
            mixed = ((before.astype(np.float32)[:, None] + steps) * samples).sum(axis=0)
        within: Samples = np.clip(mixed, -1.0, 1.0)
        return within

    def _align(self, samples: Samples, level: NDArray[np.float64], share: float) -> None:
        """Give each channel the polarity in which it adds to the mix of the louder ones."""
        audible = (level > SILENCE) & (level > QUIET * self._level) & (self._weights > 0)
        mix: Samples | None = None
        for channel in np.argsort(-level * self._weights):
            if not audible[channel]:
                continue
            own = samples[channel]
            if mix is not None:
                scale = math.sqrt(float(own @ own) * float(mix @ mix))
                now = float(own @ mix) / scale if scale else 0.0
                known = self._correlation[channel]
                known = now if known is None else known + share * (now - known)
                self._correlation[channel] = known
                if abs(known) > OPPOSITE:
                    self._polarity[channel] = math.copysign(1.0, known)
            signed = own * np.float32(self._polarity[channel] * self._weights[channel])
            mix = signed if mix is None else mix + signed

    def _factors(self) -> NDArray[np.float64]:
        """The factor of each channel. In phase, the mix is as loud as the loudest channel."""
        total = float(self._weights @ self._level)
        loudest = float(self._level[self._weights > 0].max(initial=0.0))
        gain = loudest / total if total > 0 else 1 / max(1.0, float(self._weights.sum()))
        factors: NDArray[np.float64] = self._polarity * self._weights * gain
        return factors


def planar(piece: Any) -> Samples:
    """The samples of an av.AudioFrame as float32 in [-1, 1], shape (channels, n)."""
    stored: NDArray[Any] = piece.to_ndarray()
    channels = len(piece.layout.channels)
    if len(stored) != channels:  # packed
        stored = stored.reshape(-1, channels).T
    samples: Samples = stored.astype(np.float32)
    if stored.dtype == np.uint8:
        samples = (samples - 128) / 128
    elif np.issubdtype(stored.dtype, np.integer):
        samples *= np.float32(1 / -float(np.iinfo(stored.dtype).min))
    return samples
