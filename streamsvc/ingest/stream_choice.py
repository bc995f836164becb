"""Which of the streams (SSRCs) of a track is taken: one at a time. Pure.

A sender that restarts its encoder or changes its device goes on with a new SSRC, often without a goodbye
(RTCP BYE). The packets of a new stream are kept until the old one has been silent for CHANGE_SECONDS, and are
then processed from the first one on: nothing of it is lost. Streams that flow side by side (layers of
simulcast) are told from that by their overlap: another one follows only after LAYER_SECONDS of silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

CHANGE_SECONDS = 0.1  # of silence of the stream, and of packets of a new one, until that replaces it
LAYER_SECONDS = 2.0  # of silence until a stream that flowed beside it replaces it
OVERLAP = 3  # packets of the stream since another one began: they flow side by side
KEPT = 512  # packets of a new stream that are kept (security limit); full: the oldest is dropped and counted
OTHERS = 8  # other streams that are remembered (security limit); full: the one longest silent is forgotten

P = TypeVar("P")


@dataclass(slots=True)
class _Other(Generic[P]):
    """A stream beside the one that is taken."""

    since: float  # its first packet
    newest: float  # its last packet
    overlap: int = 0  # packets of the taken stream since `since`
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
        self._others: dict[int, _Other[P]] = {}
        self._forget = forget

    def take(self, ssrc: int, packet: P, now: float) -> list[P]:
        """Add a packet; return those to process now, in order, all of the stream `self.ssrc`."""
        if self.ssrc is None:
            self.ssrc = ssrc
        if ssrc == self.ssrc:
            self._newest = now
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
        silence = now - self._newest
        follows = silence >= CHANGE_SECONDS and now - other.since >= CHANGE_SECONDS
        if self._gone or (silence >= LAYER_SECONDS if beside else follows):
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
        if other.overlap >= OVERLAP:  # the old one may come back beside it
            self._others[old] = _Other(self._newest, self._newest, other.overlap)
        self._forget(old)
        self.ssrc = ssrc
        self.changes += 1
        self._newest = now
        self._gone = False

    def _other(self, ssrc: int, now: float) -> _Other[P]:
        other = self._others.get(ssrc)
        if other is None or now - other.newest >= LAYER_SECONDS:
            if other is not None:
                self._drop(other)
            elif len(self._others) >= OTHERS:
                oldest = min(self._others, key=lambda known: self._others[known].newest)
                self._drop(self._others.pop(oldest))
                self._forget(oldest)
            other = self._others[ssrc] = _Other(now, now)
        return other

    def _drop(self, other: _Other[P]) -> None:
        self.dropped += len(other.kept)
        other.kept.clear()
