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
STEADY = 0.02  # a smaller change of the factors waits
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
        self._weights = [
            1.0 if not any(known) else SURROUND if weight is None else weight for weight in known
        ]
        self._block = max(1, round(BLOCK * rate))  # samples
        self._rate = rate
        self._fade = np.linspace(1, 0, max(1, round(RAMP * rate)), endpoint=False, dtype=np.float32)
        self._polarity = [1.0] * len(names)
        self._correlation: list[float | None] = [None] * len(names)  # with the mix of the louder channels
        self._level = [0.0] * len(names)  # RMS, released slowly
        self._factors: Samples | None = None  # of the channels, in the last block

    def mix(self, samples: Samples) -> Samples:
        """Mix contiguous samples, shape (channels, n), down to shape (n,)."""
        if len(samples) == 2 and np.array_equal(samples[0], samples[1]):  # a microphone: most calls
            same: Samples = np.ascontiguousarray(samples[0])
            return same
        length = samples.shape[1]
        count = max(1, length // self._block)
        if count == 1:
            return self._mix_block(samples)
        bounds = [length * number // count for number in range(count + 1)]
        return np.concatenate(
            [self._mix_block(samples[:, start:end]) for start, end in itertools.pairwise(bounds)]
        )

    def _mix_block(self, samples: Samples) -> Samples:
        length = samples.shape[1]
        if not length:
            return np.zeros(0, np.float32)
        means = np.add.reduce(samples, axis=1) / length
        covariance: list[list[float]] = (samples @ samples.T / length - np.outer(means, means)).tolist()
        level = [math.sqrt(max(0.0, row[channel])) for channel, row in enumerate(covariance)]
        release = math.exp(-length / self._rate / RELEASE_SECONDS)
        self._level = [max(now, before * release) for now, before in zip(level, self._level, strict=True)]
        self._align(covariance, level, 1 - math.exp(-length / self._rate / POLARITY_SECONDS))
        before, factors = self._factors, self._choose_factors()
        if before is not None and float(np.abs(factors - before).max()) < STEADY:
            factors = before
        self._factors = factors
        mixed: Samples = factors @ samples
        fades = before is not None and before is not factors
        if before is not None and fades:
            fade = self._fade[:length]
            mixed[: len(fade)] += ((before - factors) @ samples[:, : len(fade)]) * fade
        if fades or float(np.abs(factors).sum()) > 1 + STEADY:
            np.clip(mixed, -1.0, 1.0, out=mixed)
        return mixed

    def _align(self, covariance: list[list[float]], level: list[float], share: float) -> None:
        """Give each channel the polarity in which it adds to the mix of the louder ones."""
        audible = [
            channel
            for channel, weight in enumerate(self._weights)
            if weight and level[channel] > max(SILENCE, QUIET * self._level[channel])
        ]
        audible.sort(key=lambda channel: -level[channel] * self._weights[channel])
        mix: list[tuple[int, float]] = []  # the louder channels with their factors
        power = 0.0  # of their mix
        for channel in audible:
            row = covariance[channel]
            shared = sum(factor * row[other] for other, factor in mix)
            if mix:
                scale = level[channel] * math.sqrt(max(power, 1e-30))
                known = self._correlation[channel]
                now = shared / scale
                known = now if known is None else known + share * (now - known)
                self._correlation[channel] = known
                if abs(known) > OPPOSITE:
                    self._polarity[channel] = math.copysign(1.0, known)
            factor = self._polarity[channel] * self._weights[channel]
            power += 2 * factor * shared + factor * factor * row[channel]
            mix.append((channel, factor))

    def _choose_factors(self) -> Samples:
        """The factor of each channel. In phase, the mix is as loud as the loudest channel."""
        total = sum(weight * level for weight, level in zip(self._weights, self._level, strict=True))
        loudest = max(level for weight, level in zip(self._weights, self._level, strict=True) if weight)
        gain = loudest / total if total > 0 else 1 / sum(self._weights)
        return np.array(
            [sign * weight * gain for sign, weight in zip(self._polarity, self._weights, strict=True)],
            np.float32,
        )


def planar(piece: Any) -> Samples:
    """The samples of an av.AudioFrame as float32 in [-1, 1], shape (channels, n)."""
    stored: NDArray[Any] = piece.to_ndarray()
    channels = len(piece.layout.channels)
    if len(stored) != channels:  # packed
        stored = stored.reshape(-1, channels).T
    samples: Samples = stored.astype(np.float32)
    if stored.dtype == np.uint8:
        samples -= np.float32(128)
        samples /= np.float32(128)
    elif np.issubdtype(stored.dtype, np.integer):
        samples *= np.float32(1 / -float(np.iinfo(stored.dtype).min))
    return samples
