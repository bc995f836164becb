"""Coverage: what came out of the audio in which speech was detected. Pure.

How many words were spoken is not known here, so nothing is counted in words. Known are where voice activity
was detected, over which of it closed captions stand, and what was told as lost (`caption.gap`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Seconds around the words of a caption that count as captioned: voice activity and the times of words differ
# by that, and pauses of twice that within an utterance are no speech that a caption could miss.
MARGIN = 0.5
SETTLED_AFTER = 30.0  # seconds behind the newest caption or gap, before which nothing changes any more
Span = tuple[float, float]  # session seconds


@dataclass(frozen=True, slots=True)
class SpeechSeconds:
    """Seconds of detected speech by what came of it, and seconds of lost audio."""

    captioned: float = 0.0  # closed captions stand over it
    missing: float = 0.0  # neither captions nor a gap
    gaps: float = 0.0  # told as lost, speech or not

    def __add__(self, other: SpeechSeconds) -> SpeechSeconds:
        return SpeechSeconds(
            self.captioned + other.captioned, self.missing + other.missing, self.gaps + other.gaps
        )

    @property
    def share(self) -> float | None:
        """Captioned seconds of all that were detected or lost; None: there were none yet."""
        total = self.captioned + self.missing + self.gaps
        return self.captioned / total if total else None


class Coverage:
    """Counts the speech of one session. Bounded: what is settled is kept as a sum."""

    def __init__(self) -> None:
        self._speech: list[Span] = []
        self._captions: list[Span] = []
        self._gaps: list[Span] = []
        self._speaking_since: float | None = None
        self._settled = SpeechSeconds()
        self._settled_until = -math.inf  # session seconds

    def note_speech(self, at: float, *, active: bool) -> None:
        """Speech was detected from `at` on, or ended there; session seconds."""
        if active:
            self._speaking_since = at
        elif self._speaking_since is not None:
            self._speech.append((self._speaking_since, at))
            self._speaking_since = None

    def note_caption(self, start: float, end: float) -> None:
        """A closed caption stands from `start` to `end`, session seconds."""
        self._captions.append((start - MARGIN, end + MARGIN))

    def note_gap(self, start: float, end: float) -> None:
        """What lies between two session seconds was told as lost."""
        self._gaps.append((start, end))

    def seconds(self) -> SpeechSeconds:
        """All so far; of an utterance under way, what lies before its newest caption."""
        return self._settled + self._between(self._settled_until, math.inf)

    def settle(self, *, ended: bool = False) -> SpeechSeconds:
        """Settle what changes no more; returns what was settled by this call.

        Args:
            ended: nothing comes any more: all of it is settled.
        """
        until = math.inf if ended else self._horizon()
        if until <= self._settled_until:
            return SpeechSeconds()
        settled = self._between(self._settled_until, until)
        self._settled += settled
        self._settled_until = until
        for spans in (self._speech, self._captions, self._gaps):
            spans[:] = [span for span in spans if span[1] > until]
        return settled

    def _captioned_until(self) -> float:
        """Session seconds of the end of the newest caption."""
        return max((end - MARGIN for _, end in self._captions), default=-math.inf)

    def _horizon(self) -> float:
        """Session seconds before which nothing changes any more."""
        newest = max(self._captioned_until(), max((end for _, end in self._gaps), default=-math.inf))
        if self._speaking_since is None:
            return newest - SETTLED_AFTER
        return min(newest - SETTLED_AFTER, max(self._captioned_until(), self._speaking_since))

    def _between(self, start: float, end: float) -> SpeechSeconds:
        speech = list(self._speech)
        if self._speaking_since is not None and self._captioned_until() > self._speaking_since:
            speech.append((self._speaking_since, self._captioned_until()))
        gaps = _union(_clipped(self._gaps, start, end))
        spoken = _without(_union(_clipped(speech, start, end)), gaps)
        missing = _length(_without(spoken, _union(self._captions)))
        return SpeechSeconds(_length(spoken) - missing, missing, _length(gaps))


def _clipped(spans: Iterable[Span], start: float, end: float) -> list[Span]:
    return [(max(one, start), min(other, end)) for one, other in spans if one < end and other > start]


def _union(spans: Iterable[Span]) -> list[Span]:
    """The spans by start, those that touch joined."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        elif end > start:
            joined.append((start, end))
    return joined


def _without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """What of the spans lies in no hole; both as of `_union`."""
    left: list[Span] = []
    for start, end in spans:
        for hole_start, hole_end in holes:
            if hole_end <= start or hole_start >= end:
                continue
            if hole_start > start:
                left.append((start, hole_start))
            start = max(start, hole_end)
            if start >= end:
                break
        if start < end:
            left.append((start, end))
    return left


def _length(spans: Iterable[Span]) -> float:
    return sum(end - start for start, end in spans)
