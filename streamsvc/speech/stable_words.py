"""Stable and tentative words of one track, by LocalAgreement (Machacek et al. 2023). Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.core.types import Word
from streamsvc.speech.agreement import (
    Heard,
    agreement_length,
    no_speech,
    overlap_count,
    sentence_case,
    shown_count,
    stable_count,
    words_beyond,
)
from streamsvc.speech.hypothesis import OVERLAP, DecodeWindow
from streamsvc.speech.repetition import repeats
from streamsvc.speech.vad import PREROLL

PROMPT_WORDS = 40  # words spoken before the window that are passed to the model as text
PROMPT_SECONDS = 60.0  # how old they may be
REPEAT_SECONDS = 10.0  # before a window in which words count for a repetition
CONTEXT = 2.25  # seconds of stable audio before the new
FORCE_AFTER = 8.0  # seconds of window without agreement after which all but the last words become stable
FORCE_OPEN = 2.0  # seconds of them that stay tentative
TIME_SHIFT = 0.3  # seconds by which the times of a word differ between hypotheses


@dataclass(frozen=True, slots=True)
class Update:
    """Effect of one hypothesis.

    Attributes:
        stable: words that became stable.
        shown: tentative words to show after them.
        changed: whether the text that viewers see differs from before.
        empty: the hypothesis has no word after the stable ones.
    """

    stable: tuple[Word, ...]
    shown: tuple[Word, ...]
    changed: bool
    empty: bool


class StableWords:
    """Commits words of successive hypotheses; stable words never change nor repeat."""

    def __init__(self) -> None:
        self._in_window: list[Word] = []  # stable words that may lie in the window
        self._history: deque[Word] = deque(maxlen=2 * PROMPT_WORDS)  # stable words, in the window or before
        self._tail: tuple[Word, ...] = ()
        self._agreements: list[int] = []  # per word of the tail: previous steps that recognised the same
        self._shown: tuple[str, ...] = ()  # texts of the tail as last shown

    @property
    def last(self) -> Word | None:
        """The newest stable word, if it still is context of the window."""
        return self._in_window[-1] if self._in_window else None

    @property
    def in_window(self) -> Sequence[Word]:
        """Stable words that may lie in the window, oldest first."""
        return self._in_window

    @property
    def tail(self) -> tuple[Word, ...]:
        """The words of the last hypothesis that are not stable."""
        return self._tail

    def begin(self, *, keep_context: bool) -> None:
        """Start an utterance; `keep_context`: stable words before it remain in the window."""
        self._tail = ()
        self._agreements = []
        self._shown = ()
        if not keep_context:
            self._in_window = []

    def prompt(self, start: float) -> str:
        """Text spoken in the PROMPT_SECONDS before session time `start`, at most PROMPT_WORDS words."""
        texts = [word.text for word in self._history if start - PROMPT_SECONDS < word.end <= start + OVERLAP]
        return " ".join(texts[-PROMPT_WORDS:])

    def repeating(self, words: Sequence[Word], start: float) -> bool:
        """Whether a hypothesis repeats itself or the words before its window, which begins at `start`."""
        before = [word.text for word in self._history if start - REPEAT_SECONDS < word.end <= start + OVERLAP]
        return repeats([*before, *(word.text for word in words)])

    def update(self, words: Sequence[Word], window: DecodeWindow, heard: Heard = no_speech) -> Update:
        """Add the hypothesis of a window.

        Args:
            words: in session time.
            window: that they were recognised in.
            heard: seconds of speech between two session times; without it, a tail ends with the hypothesis.
        """
        fresh = self._without_stable(words, window.start)
        fresh = sentence_case(fresh, self._history[-1].text if self._history else ".")
        agreed = agreement_length(self._tail, fresh)
        agreements = [(self._agreements[index] + 1 if index < agreed else 0) for index in range(len(fresh))]
        empty = not fresh
        beyond = words_beyond(self._tail, fresh, heard)
        fresh += beyond
        agreements += self._agreements[len(self._tail) - len(beyond) :]
        count = stable_count(fresh, agreements, window.end, pause=window.at_pause)
        while count < len(fresh) and fresh[count].end <= window.force_before:
            count += 1
        stable = tuple(fresh[:count])
        self._tail = tuple(fresh[count:])
        self._agreements = agreements[count:]
        self._commit(stable)
        shown = self._tail
        if not window.at_pause:
            shown = shown[: shown_count(self._tail, self._agreements, window.end)]
        texts = tuple(word.text for word in shown)
        changed = bool(stable) or texts != self._shown
        self._shown = texts
        return Update(stable, shown, changed, empty)

    def _without_stable(self, words: Sequence[Word], start: float) -> list[Word]:
        """A hypothesis without the words that are stable already, by text and by time."""
        inside = [word for word in self._in_window if word.end > start + OVERLAP]
        fresh = list(words[overlap_count(inside, words) :])
        while fresh and self._in_window and fresh[0].end < self._in_window[-1].end - TIME_SHIFT:
            del fresh[0]
        return fresh

    def commit_tail(self) -> tuple[Word, ...]:
        """Make the tail stable; returns it."""
        tail = self._tail
        self._commit(tail)
        self._tail = ()
        return tail

    def commit_until(self, end: float, update: Update) -> Update:
        """Make the words of the tail that end by session time `end` stable; returns `update` with them."""
        count = sum(word.end <= end for word in self._tail)
        early = self._tail[:count]
        self._commit(early)
        self._tail = self._tail[count:]
        self._agreements = self._agreements[count:]
        self._shown = self._shown[count:]
        stable = (*update.stable, *early)
        return Update(stable, update.shown[count:], update.changed or bool(early), update.empty)

    def _commit(self, words: tuple[Word, ...]) -> None:
        self._in_window += words
        self._history.extend(words)

    def start_before(self, at: float) -> float | None:
        """Start of the last stable word that starts by session time `at`; None if none does."""
        starts = [word.start for word in self._in_window if word.start <= at]
        return starts[-1] if starts else None

    def trimmed(self, start: float, decoded_until: float, longest: float) -> float:
        """Start of a window, moved to a stable word CONTEXT seconds back if it is over `longest` seconds."""
        if decoded_until - start > longest and self.last is not None:
            at = self.start_before(self.last.end - CONTEXT)
            start = start if at is None else max(start, at)
        if decoded_until - start > FORCE_AFTER:
            # No stable word to trim at: speech that the model does not recognise must not grow the window.
            tail_start = self._tail[0].start - PREROLL if self._tail else decoded_until
            start = max(start, min(tail_start, decoded_until - FORCE_OPEN))
        return start

    def discard(self, before: float) -> None:
        """Forget stable words that end before the window, except the last one."""
        self._in_window = [word for word in self._in_window if word.end > before] or self._in_window[-1:]
