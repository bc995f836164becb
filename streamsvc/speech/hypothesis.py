"""A decode window, and the hypothesis that the model returns for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import Word
from streamsvc.speech.agreement import spoken_count
from streamsvc.speech.vad import VoiceActivity

# A result beyond both thresholds is no speech (Whisper's own rule).
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOG_PROBABILITY = -1.0  # mean of a token
WORD_MIN = 0.02  # seconds that a word lasts at least


@dataclass(frozen=True, slots=True)
class DecodeWindow:
    """A stretch of audio to decode.

    Attributes:
        samples: float32, shape (n,).
        start: session seconds.
        end: session seconds.
        at_pause: the window ends in a pause or at the end of the input: likely words become stable.
        force_before: words that end before this session time become stable without agreement.
        prompt: text spoken before the window.
    """

    samples: NDArray[np.float32]
    start: float
    end: float
    at_pause: bool
    force_before: float
    prompt: str


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the model recognised in a window.

    Attributes:
        words: in order; their times are seconds from the start of the window.
        no_speech: probability that the window contains no speech.
        log_probability: mean log probability of a token.
    """

    words: tuple[Word, ...]
    no_speech: float
    log_probability: float

    @classmethod
    def from_result(cls, result: Mapping[str, Any], offset: float = 0.0) -> Hypothesis:
        """Read a result of the op "transcribe". `offset`: seconds of the window left out."""
        words = (
            Word(text, start + offset, end + offset, probability)
            for text, start, end, probability in result["words"]
        )
        return cls(tuple(words), result["no_speech"], result["log_probability"])

    def placed(self, window: DecodeWindow, activity: VoiceActivity) -> list[Word]:
        """Words in session time, without hallucinations; none if the window contains no speech."""
        if not self.words or is_no_speech(self.no_speech, self.log_probability):
            return []
        words: list[Word] = []
        for word in self.words:
            start, end = activity.trim(window.start + word.start, min(window.start + word.end, window.end))
            start = max(start, words[-1].end if words else window.start)
            words.append(replace(word, start=round(start, 3), end=round(max(end, start + WORD_MIN), 3)))
        return words[: spoken_count([word.start for word in self.words], self.words[-1].end)]


def is_no_speech(no_speech: float, log_probability: float) -> bool:
    """Whether a result is to be discarded: probably no speech, and improbable as text."""
    return no_speech > NO_SPEECH_PROBABILITY and log_probability < NO_SPEECH_LOG_PROBABILITY
