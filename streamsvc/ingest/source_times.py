"""The time of one source over all its connections: which step of the stamps is a hole, where time goes on."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from streamsvc.core import clock
from streamsvc.core.types import Kind
from streamsvc.ingest.timestamps import HOLE, JUMP, MediaClock, Stamps, Step, fits_in_a_file

LATE = 1.0  # seconds by which the sound of a recording may begin later than its pictures, untold

UNTOLD = 300.0  # seconds of a hole that a playlist does not explain; beyond, its encoder began again


class SegmentPlan(Protocol):
    """What a playlist tells of its segments (`hls.Hls`), in media seconds."""

    media_start: float | None

    @property
    def missing_start(self) -> float:
        """Seconds of a whole recording that are missing at its start."""
        ...

    def explains(self, at: float) -> bool:
        """Whether segments that are missing explain a step of the stamps to `at`."""
        ...

    def joint(self, end: float) -> float | None:
        """Where the discontinuity at the end of a time line lies; None: there is none."""
        ...


class Connection(enum.Enum):
    """How a connection goes on from the one before."""

    FIRST = "first"
    AGAIN = "again"  # a live URL was opened again: what was sent meanwhile is lost
    LINK = "link"  # the next link of a chained file: nothing is lost


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a packet lies, in media seconds, and what is lost before it, in seconds."""

    at: float
    due: float
    gap: float
    first: bool  # of its track in a connection after the first
    joint: bool  # a time line of its track begins with it


class SourceTimes:
    """Places the packets of one source.

    `live`: the source has no known end. `interleaved`: as of MediaClock.
    """

    def __init__(self) -> None:
        self.live = False
        self.interleaved = False
        self._media: MediaClock | None = None
        self._plan: SegmentPlan | None = None
        self._origin: float | None = None  # monotonic seconds of media second 0
        self._read_at: dict[Kind, float] = {}  # monotonic seconds of the newest packet
        self._start: float | None = None  # stamp at which the connection begins, in seconds
        self._connection = Connection.FIRST
        self._resuming: set[Kind] = set()  # tracks of which this connection has given nothing new yet
        self._base: float | None = None  # media second at which its time line begins; None: no new one yet
        self._repeats = False  # it repeats packets, so its time line is the old one

    @property
    def lines(self) -> int:
        """Times that the stamps began again."""
        return self._media.lines if self._media is not None else 0

    @property
    def end(self) -> float:
        """Media seconds at which the newest packet ends."""
        return self._media.end if self._media is not None else 0.0

    def end_of(self, kind: Kind) -> float | None:
        """The same of one track; None: there was no packet."""
        return self._media.end_of(kind) if self._media is not None else None

    def connect(
        self,
        connection: Connection,
        kinds: Collection[Kind],
        *,
        start: float | None,
        plan: SegmentPlan | None = None,
    ) -> None:
        """Begin a connection.

        Args:
            connection: how it goes on.
            kinds: of its tracks.
            start: the stamp, in seconds, at which it begins; None: that of its first packet.
            plan: of a playlist.
        """
        self._connection = connection
        self._plan = plan
        self._start = start
        self._resuming = set() if connection is Connection.FIRST else set(kinds)
        self._base = None
        self._repeats = False

    def place(self, kind: Kind, stamps: Stamps, *, known: bool = False) -> Placed | None:
        """Place the next packet. None: it is repeated, and to be left out.

        Args:
            kind: of its track.
            stamps: of the packet.
            known: the same packet has come before.
        """
        if self._media is None:
            self._media = self._clock(stamps.order or 0.0 if self._start is None else self._start)
        media = self._media
        if known and kind in self._resuming:
            self._repeats = True
            self._align(media.at(kind, stamps))
            return None  # a reopened playlist starts some segments back
        before, line = media.end_of(kind), media.line_of(kind)
        first = kind in self._resuming
        if first and not (self._repeats and media.continues(kind, stamps.order)):
            if self._base is None:
                self._base = self._joint(media.next_line)
                media.begin_line(self._base, stamps.pts if stamps.pts is not None else self._start or 0.0)
            media.join_line(kind, self._base)
        at = media.place(kind, stamps)
        self._align(at)
        self._resuming.discard(kind)
        self._read_at[kind] = clock.now()
        if self._origin is None:
            self._origin = clock.now() - at
        gap = 0.0
        if first and self._connection is Connection.AGAIN:
            gap = max(0.0, at - (before or 0.0))
        elif before is None and kind == "audio" and not self.live and at > LATE:
            gap = at  # its sound begins later than the rest
        joint = line is not None and line != media.line_of(kind)
        return Placed(at, media.advance_due(kind, at), gap, first, joint)

    def _align(self, at: float | None) -> None:
        """Tie the playlist of this connection to media time, by its first packet."""
        if self._plan is not None and self._plan.media_start is None and at is not None:
            self._plan.media_start = at

    def _clock(self, start: float) -> MediaClock:
        if self._plan is None:
            return MediaClock(start, 0.0, self._is_hole, self._joint, self.interleaved)
        self._plan.media_start = self._plan.missing_start
        return MediaClock(start, self._plan.media_start, self._is_hole, self._joint, self.interleaved)

    def _is_hole(self, step: Step) -> bool:
        if not fits_in_a_file(step):
            return False
        if self._plan is not None:
            untold = step.size <= UNTOLD and self._plan.joint(step.at - step.size) is None
            return self._plan.explains(step.at) or untold
        if self.live:  # its stamps cannot run ahead of the clock by much
            silent = clock.now() - self._read_at.get(step.kind, 0.0)
            return step.size <= min(silent + JUMP, HOLE)
        return True

    def _joint(self, end: float) -> float:
        """Where a time line begins that would go on at `end`."""
        again = self._connection is Connection.AGAIN and self._base is None
        if self._plan is not None and not again:
            planned = self._plan.joint(end)
            return end if planned is None else max(end, planned)  # sound never overlaps
        if (self.live or again) and self._origin is not None:
            return max(end, clock.now() - self._origin)  # it is sent in real time
        return end
