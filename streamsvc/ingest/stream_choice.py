"""Which of the streams (SSRCs) of a track is taken: one at a time. Pure.

A sender that restarts its encoder or changes its device goes on with a new SSRC, often without a goodbye
(RTCP BYE). The packets of a new stream are kept until the old one has been silent for a moment, and are then
processed from the first one on: nothing of it is lost. Streams that flow side by side (layers of simulcast)
are told from that by their overlap: another one follows only after LAYER_SECONDS of silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

CHANGE_SECONDS = (0.1, 0.5)  # least and most silence of the stream until a new one replaces it
INTERVALS = 2.0  # of the stream's packets, between these limits: slow streams are silent for longer
WINDOW = 1.0  # seconds over which the longest interval is kept
LAYER_SECONDS = 2.0  # of silence until a stream that flowed beside it replaces it
OVERLAP = 3  # packets of the stream since another one began: they flow side by side
KEPT = 512  # packets of a new stream that are kept (security limit); full: the oldest is dropped and counted
OTHERS = 8  # other streams that are remembered (security limit); full: the one longest silent is forgotten

P = TypeVar("P")


@dataclass(slots=True)
class _Other(Generic[P]):
    """A stream beside the one that is taken."""

    newest: float  # its last packet
    overlap: int = 0  # packets of the taken stream since its first one
    kept: deque[P] = field(default_factory=deque)


class StreamChoice(Generic[P]):
    """The choice for one track.

    Args:
        forget: called with the SSRC of a stream that is no longer remembered.

    Attributes:
        ssrc: the stream that is taken; None before the first packet.
        dropped: packets of other streams that were not processed.
        changes: how often another stream has replaced it.
    """

    def __init__(self, forget: Callable[[int], None]) -> None:
        self.ssrc: int | None = None
        self.dropped = 0
        self.changes = 0
        self._newest = float("-inf")  # last packet of the stream that is taken
        self._gone = False  # it said goodbye
        self._longest = (0.0, 0.0)  # intervals between its packets, of the last window and of this one
        self._window = float("-inf")  # start of this window
        self._others: dict[int, _Other[P]] = {}
        self._forget = forget

    def take(self, ssrc: int, packet: P, now: float) -> list[P]:
        """Add a packet; return those to process now, in order, all of the stream `self.ssrc`."""
        if self.ssrc is None:
            self.ssrc = ssrc
        if ssrc == self.ssrc:
            self._note_interval(now)
            self._gone = False
            for other in self._others.values():
                other.overlap += 1
                if other.overlap == OVERLAP:
                    self._drop(other)
            return [packet]
        other = self._other(ssrc, now)
        other.newest = now
        beside = other.overlap >= OVERLAP
        if not beside:
            other.kept.append(packet)
            while len(other.kept) > KEPT:
                other.kept.popleft()
                self.dropped += 1
        least, most = CHANGE_SECONDS
        wait = LAYER_SECONDS if beside else min(most, max(least, INTERVALS * max(self._longest)))
        enough = beside or len(other.kept) > 1  # a single one may be a stray
        if self._gone or (enough and now - self._newest >= wait):
            kept = [packet] if beside else list(other.kept)
            self._replace(ssrc, now)
            return kept
        if beside:
            self.dropped += 1
        return []

    def goodbye(self, ssrc: int) -> None:
        """The stream has ended (RTCP BYE): the next packet of another one replaces it."""
        self._gone = self._gone or ssrc == self.ssrc

    def _replace(self, ssrc: int, now: float) -> None:
        assert self.ssrc is not None
        old, other = self.ssrc, self._others.pop(ssrc)
        if other.overlap:  # the old one may come back beside it
            self._others[old] = _Other(self._newest, other.overlap)
        self._forget(old)
        self.ssrc = ssrc
        self.changes += 1
        self._newest = now
        self._longest = (0.0, 0.0)
        self._gone = False

    def _note_interval(self, now: float) -> None:
        if now - self._window >= WINDOW:
            self._window = now
            self._longest = (self._longest[1], 0.0)
        if self._newest > float("-inf"):
            self._longest = (self._longest[0], max(self._longest[1], now - self._newest))
        self._newest = now

    def _other(self, ssrc: int, now: float) -> _Other[P]:
        other = self._others.get(ssrc)
        if other is None or now - other.newest >= LAYER_SECONDS:
            if other is not None:
                self._drop(other)
            elif len(self._others) >= OTHERS:
                oldest = min(self._others, key=lambda known: self._others[known].newest)
                self._drop(self._others.pop(oldest))
                self._forget(oldest)
            other = self._others[ssrc] = _Other(now)
        return other

    def _drop(self, other: _Other[P]) -> None:
        self.dropped += len(other.kept)
        other.kept.clear()
