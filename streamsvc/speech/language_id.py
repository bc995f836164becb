"""Language identification of a track, from what the model detects in it. Pure.

Unless a language is fixed, it is detected in every utterance: one encoder pass on the first DETECT_MIN to
DETECT_MAX seconds. Nothing is decoded before: words in the wrong language could not be retracted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from streamsvc.core.types import Word
from streamsvc.speech.hypothesis import OVERLAP
from streamsvc.speech.stable_words import PROMPT_WORDS
from streamsvc.speech.vad import PREROLL

DETECT_MIN = 0.7  # seconds of new speech from which the language is detected
DETECT_MAX = 2.0  # seconds of it at which the answer is final
# Probability that is accepted at once (German resembles English at first), and at DETECT_MAX.
EARLY_PROBABILITY = 0.9
FINAL_PROBABILITY = 0.6
DOUBT_LOG_PROBABILITY = -0.9  # mean of a token; a decode below it starts another detection
DOUBT_INTERVAL = 5.0  # seconds between two of those, and seconds of audio that each uses


class LanguageDetector:
    """Language of one track.

    Args:
        fixed: the language; None: detect it.

    Attributes:
        code: the language; None: not known yet.
        since: session seconds at which the track changed to it; -inf: it always was.
    """

    def __init__(self, fixed: str | None) -> None:
        self.code = fixed
        self.since = float("-inf")
        self._fixed = fixed
        self._pending = fixed is None
        self._onset = 0.0  # session seconds from which speech is judged
        self._doubted_at = 0.0  # session seconds
        self._word_ends: deque[float] = deque(maxlen=PROMPT_WORDS)

    @property
    def pending(self) -> bool:
        """Whether decoding waits for `accept`."""
        return self._pending

    def fix(self, code: str | None) -> None:
        """Fix the language from now on; None: detect it. Idempotent."""
        if code == self._fixed:
            return
        self._fixed = code
        self._pending = code is None
        if code is not None:
            self._change(code)

    def start_utterance(self, onset: float) -> None:
        """An utterance began at session second `onset`."""
        self._onset = onset
        self._pending = self._fixed is None

    def add_stable(self, words: Iterable[Word]) -> None:
        """Add stable words."""
        self._word_ends.extend(word.end for word in words)

    def note_log_probability(self, log_probability: float, end: float) -> None:
        """Doubt the language after an improbable decode, which ended at session second `end`."""
        improbable = log_probability < DOUBT_LOG_PROBABILITY
        known = self._fixed is None and not self._pending
        if improbable and known and end - self._doubted_at >= DOUBT_INTERVAL:
            self._pending = True
            self._doubted_at = end
            self._onset = max(self._onset, end - DOUBT_INTERVAL)

    def detection_start(self, end: float, *, at_pause: bool) -> float | None:
        """Session second from which speech up to `end` is judged; None: nothing to judge yet.

        Args:
            end: session seconds.
            at_pause: a pause follows: no more speech will come.
        """
        if not self._pending or (end - self._onset < DETECT_MIN and not at_pause):
            return None
        return self._onset - PREROLL

    def accept(self, code: str, probability: float, end: float, *, at_pause: bool) -> bool:
        """Take a detected language; returns whether to decode now.

        A short utterance before a pause is decoded on a guess, and the language is detected again.
        """
        final = end - self._onset >= DETECT_MAX
        if probability >= (FINAL_PROBABILITY if final else EARLY_PROBABILITY):
            self._change(code)
            self._pending = False
        elif final or at_pause:
            self.code = self.code or code
            self._pending = not final
        else:
            return False
        return True

    def prompt(self, text: str, start: float) -> str:
        """Without the words of other languages, which the model would imitate.

        Args:
            text: spoken before session second `start`.
            start: session seconds.
        """
        if self.since == float("-inf"):
            return text
        count = sum(self.since < end <= start + OVERLAP for end in self._word_ends)
        return " ".join(text.split()[-count:]) if count else ""

    def _change(self, code: str) -> None:
        if self.code not in (None, code):
            self.since = max(self._onset - PREROLL, self._word_ends[-1] if self._word_ends else 0.0)
        self.code = code
