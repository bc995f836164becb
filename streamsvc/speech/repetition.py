"""Speech that repeats itself ("Yes, please." eight times): how it is found, and cut for decoding. Pure.

Whisper counts repeated phrases wrongly in long windows, its alignment confuses them, and stable words cannot
be told from the same words said again. So repeated speech is decoded in pieces between two silences, without
context and without a prompt; no piece overlaps another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from streamsvc.core.types import Word
from streamsvc.speech.agreement import Heard, normalise
from streamsvc.speech.vad import PREROLL, Interval

PHRASE_MAX = 8  # words
REJECTIONS = 2  # rejected hypotheses in a row after which speech is decoded in pieces
PIECE_OPEN = 0.6  # seconds before the end of a piece within speech whose words are decoded again
PIECE_MIN = 1.2  # seconds of a piece, unless the speech ends: words pronounced one by one stay together
PIECE_MAX = 4.0  # seconds from the start of the first to the end of the last stretch of speech in a piece
SILENCE_AFTER = 0.2  # seconds of silence that a piece keeps at its end
SPOKEN_MIN = 0.05  # seconds of speech under a word that was said
LEFT_MIN = 0.15  # seconds of a stretch after the last stable word that hold another word
STRETCH_BACK = 2.0  # seconds of stable words at most that the first piece decodes again


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece, in session seconds.

    `silent`: it ends in silence, so that no word is cut.
    """

    start: float
    end: float
    silent: bool

    @property
    def force_before(self) -> float:
        """Session time before which its words are complete."""
        return float("inf") if self.silent else self.end - PIECE_OPEN


def repeats(texts: Sequence[str]) -> bool:
    """Whether a word occurs three times in a row, or a phrase of up to PHRASE_MAX words twice."""
    words = [normalise(text) for text in texts]
    for size in range(1, PHRASE_MAX + 1):
        needed = size * (2 if size == 1 else 1)
        run = 0
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= needed:
                return True
    return False


class Pieces:
    """Whether a track is decoded in pieces, and how long they are.

    Attributes:
        active: speech is decoded in pieces.
    """

    def __init__(self) -> None:
        self.active = False
        self._rejections = 0  # in a row
        self._most = PIECE_MAX

    def begins(self, *, repeating: bool, rejected: bool, pause: bool) -> bool:
        """Add a hypothesis of a window that is no piece; returns whether it is to be decoded again in pieces.

        Args:
            repeating: its words repeat themselves or the words before.
            rejected: the engine rejected it.
            pause: the window ends in a pause, so no later step replaces it.
        """
        self._rejections = self._rejections + 1 if rejected else 0
        self.active = repeating or self._rejections >= (1 if pause else REJECTIONS)
        return self.active

    def shorten(self) -> bool:
        """A piece was rejected. Returns whether to decode a shorter one: its first stretch alone."""
        shorter = self._most > 0.0
        self._most = 0.0
        return shorter

    def add(self, *, repeating: bool) -> None:
        """A piece is done."""
        self.active = repeating
        self._rejections = 0
        self._most = PIECE_MAX

    def cut(self, speech: Sequence[Interval], *, ended: bool) -> Cut | None:
        """The next piece; None: wait for more audio.

        Args:
            speech: stretches of speech from the start of the piece.
            ended: silence or the end of the input follows the last stretch.
        """
        if not speech:
            return None
        start = speech[0][0]
        ends = [min((end + after) / 2, end + SILENCE_AFTER) for (_, end), (after, _) in pairwise(speech)]
        if ended:
            ends.append(speech[-1][1] + SILENCE_AFTER)
        if speech[0][1] - start > PIECE_MAX:
            return Cut(start - PREROLL, start + PIECE_MAX, False)
        if not ends:
            return None
        longer = (index for index, end in enumerate(ends) if end - start >= PIECE_MIN)
        least = next(longer, len(ends) - 1 if ended else None)
        if least is None:
            return None
        fitting = sum(stop - start <= self._most for _, stop in speech[: len(ends)])
        return Cut(start - PREROLL, ends[max(fitting - 1, least)], True)


def without_echo(words: Sequence[Word], heard: Heard) -> Sequence[Word]:
    """The words of a piece without a last phrase that only repeats the one before, in silence.

    Args:
        words: in session time.
        heard: seconds of speech between two session times.
    """
    silent = 0
    while silent < len(words) and heard(words[-1 - silent].start, words[-1 - silent].end) < SPOKEN_MIN:
        silent += 1
    texts = [normalise(word.text) for word in words]
    echo = silent > 0 and texts[-2 * silent : -silent] == texts[-silent:]
    return words[:-silent] if echo else words


def resume_at(stable: Sequence[Word], speech: Sequence[Interval], window_start: float) -> float:
    """Where the first piece starts: with the stretch of speech that holds what is not stable yet.

    Args:
        stable: stable words inside the window.
        speech: stretches of speech from the start of the window.
        window_start: session seconds.
    """
    if not stable:
        return window_start
    settled = stable[-1].end
    before = window_start
    for start, end in speech:
        if end > settled + LEFT_MIN:
            if settled - start <= STRETCH_BACK:
                return max(window_start, (before + start) / 2, start - PREROLL)
            return max(window_start, stable[-1].start)
        before = end
    return settled
