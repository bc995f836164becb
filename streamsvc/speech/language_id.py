"""Which language a track speaks, from what a model says of its first seconds. Pure.

Where none is fixed, every utterance is asked for its own: one encoder pass on its first DETECT_LEAST to DETECT_MOST seconds.
Nothing is decoded before the answer is good enough: words in the wrong language could not be taken back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from streamsvc.core.types import Word

DETECT_LEAST, DETECT_MOST = 0.7, 2.0  # seconds of new speech: asked from the first on, settled at the second
SURE, LIKELY = (
    0.9,
    0.6,
)  # probability at which a language is believed at once (German sounds English at first); ... in the end
UNLIKELY = -0.9  # mean log probability of a decode below which the language is doubted
AGAIN = 5.0  # seconds of audio that a doubt looks back, and between two doubts
PREROLL = 0.3  # seconds before the onset that belong to it
KEPT = 40  # words whose ends are remembered


class Language:
    """The language of one track: `code`, spoken since session second `since`.

    Args:
        fixed: it is this and no other; None: to be detected.
    """

    def __init__(self, fixed: str | None) -> None:
        self.code, self._fixed = fixed, fixed
        self.since = float("-inf")
        self._open = fixed is None
        self._onset = 0.0
        self._doubted = 0.0
        self._ends: deque[float] = deque(maxlen=KEPT)  # of the last stable words

    def fix(self, code: str | None) -> None:
        """Somebody has said what it is (None: that it is to be detected), from now on; the same again changes nothing."""
        if code == self._fixed:
            return
        self._fixed, self._open = code, code is None
        if code is not None:
            self._change(code)

    def began(self, onset: float) -> None:
        """An utterance began."""
        self._onset = onset
        self._open = self._fixed is None

    def said(self, words: Iterable[Word]) -> None:
        """Take words that will never change."""
        self._ends.extend(word.end for word in words)

    def doubt(self, log_probability: float, end: float) -> None:
        """A decode up to session second `end` was so probable; an improbable one may be in the wrong language."""
        if (
            log_probability < UNLIKELY
            and self._fixed is None
            and not self._open
            and end - self._doubted >= AGAIN
        ):
            self._open, self._doubted = True, end
            self._onset = max(self._onset, end - AGAIN)

    def asks(self, end: float, *, settle: bool) -> float | None:
        """Session second from which on speech up to `end` is to be judged; None: there is nothing to ask. `settle`: a pause follows."""
        if not self._open or (end - self._onset < DETECT_LEAST and not settle):
            return None
        return self._onset - PREROLL

    @property
    def waits(self) -> bool:
        """Whether nothing may be decoded until `found` was called."""
        return self._open

    def found(self, code: str, probability: float, end: float, *, settle: bool) -> bool:
        """Take the answer. Whether to decode now; a short remark before a pause is decoded on a guess, and asked about again."""
        late = end - self._onset >= DETECT_MOST
        if probability >= (LIKELY if late else SURE):
            self._change(code)
            self._open = False
        elif late or settle:
            self.code = self.code or code
            self._open = not late
        else:
            return False
        return True

    def before(self, text: str, start: float) -> str:
        """Of the words spoken before session second `start`, those in this language: others would be imitated."""
        if self.since == float("-inf"):
            return text
        count = sum(self.since < end <= start + 0.1 for end in self._ends)
        return " ".join(text.split()[-count:]) if count else ""

    def _change(self, code: str) -> None:
        if self.code not in (None, code):
            self.since = max(self._onset - PREROLL, self._ends[-1] if self._ends else 0.0)
        self.code = code
