"""A decode window, and the hypothesis that the model returns for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import Word
from streamsvc.speech.agreement import spoken_count
from streamsvc.speech.vad import PREROLL, VoiceActivity

# A result beyond both thresholds is no speech (Whisper's own rule).
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOG_PROBABILITY = -1.0  # mean of a token
OVERLAP = 0.1  # seconds that a word may reach into the window or past its start
UNRECOGNISED_SPEECH = 0.8  # seconds of speech after the stable words without a word: the context is dropped
REST_MIN = 0.25  # seconds of speech before a pause without a word in its hypothesis: they are decoded alone
REST_CONTEXT = 0.6  # seconds before them that are decoded with them
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
        rejected: the engine rejected a decoding loop; `words` is empty.
    """

    words: tuple[Word, ...]
    no_speech: float
    log_probability: float
    rejected: bool = False

    @classmethod
    def from_result(cls, result: Mapping[str, Any], offset: float = 0.0) -> Hypothesis:
        """Read a result of the op "transcribe". `offset`: seconds of the window left out."""
        words = (
            Word(text, start + offset, end + offset, probability)
            for text, start, end, probability in result["words"]
        )
        rejected = bool(result.get("rejected", False))
        return cls(tuple(words), result["no_speech"], result["log_probability"], rejected)

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


def rest_start(words: Sequence[Word], window: DecodeWindow, activity: VoiceActivity) -> float | None:
    """Where to decode again the end of a window that its words leave out; None: they leave out nothing.

    The model may end its text early, most often behind a long context. What it leaves out before a pause is
    decoded alone.

    Args:
        words: of the hypothesis, placed.
        window: that they were recognised in; it ends in a pause.
        activity: of the track.
    """
    if not words or words[-1].start <= window.start + OVERLAP:
        return None
    left_out = activity.after(words[-1].end + OVERLAP)
    if sum(end - start for start, end in left_out) < REST_MIN:
        return None
    return max(words[-1].start, left_out[0][0] - REST_CONTEXT)


def beyond_context(last: Word | None, start: float, activity: VoiceActivity) -> float:
    """Start of a window that leaves out its stable words, if speech without a word follows; else `start`.

    The model may stop at the end of a sentence in the context.

    Args:
        last: the newest stable word.
        start: of the present window.
        activity: of the track.
    """
    if last is None:
        return start
    context_end = last.end + OVERLAP
    speech = activity.after(context_end)
    if sum(stop - begin for begin, stop in speech) < UNRECOGNISED_SPEECH:
        return start
    return max(start, context_end, speech[0][0] - PREROLL)


def is_no_speech(no_speech: float, log_probability: float) -> bool:
    """Whether a result is to be discarded: probably no speech, and improbable as text."""
    return no_speech > NO_SPEECH_PROBABILITY and log_probability < NO_SPEECH_LOG_PROBABILITY
