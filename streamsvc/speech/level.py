"""Gain control for voice activity detection, so that quiet or fading speech is found. Pure.

Silero's probability of speech does not depend on the level down to about 30 dB below full speech, and falls
to 0 within 20 dB below that. Amplified noise and music are no speech to it, so the level alone is corrected;
what is loud enough for it is left alone, since breath that is amplified in a pause becomes speech to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamsvc.speech.vad import VAD_WINDOW

Samples = NDArray[np.float32]

# Root mean square to which the loudest recent window is amplified: 15 to 20 dB below full speech, so that
# nothing is amplified in the first seconds of a pause.
TARGET = 0.0125
GAIN_MAX = 100.0  # 40 dB: digital silence with its dither stays far below speech
RELEASE = 10.0 ** (-0.3 / 20)  # factor of the level in each window: 9 dB a second


def amplify(samples: Samples, level: float) -> tuple[Samples, float]:
    """Whole VAD windows with the gain of each, and the level after the last.

    The level follows louder windows at once and falls by RELEASE; loud audio is not changed.

    Args:
        samples: shape (n * VAD_WINDOW,).
        level: what the call before returned; 0.0 at the start.
    """
    windows = samples.reshape(-1, VAD_WINDOW)
    gains = np.empty(len(windows), np.float32)
    for index, loudness in enumerate(np.sqrt(np.mean(np.square(windows), axis=1))):
        level = max(float(loudness), level * RELEASE)
        gains[index] = min(GAIN_MAX, max(1.0, TARGET / max(level, TARGET / GAIN_MAX)))
    amplified: Samples = (windows * gains[:, None]).reshape(-1)
    return amplified, level
