"""Media time of demuxed packets: the stamps of files and URLs -> media seconds. Pure.

Stamps may have holes, and they may begin again: files that were joined, a discontinuity of a playlist, a
restarted encoder. All tracks of a source share one *time line* after the other. A step forward is a hole and
stays one, unless the source knows better; stamps that go back begin a new time line, which continues where
the sound of the one before ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamsvc.core.types import Kind, MediaTrack

STEP = 1.0  # seconds: a smaller step forward is never questioned
JUMP = 10.0  # seconds by which the stamps of a live source may run ahead of the clock, and tracks lie apart
HOLE = 6 * 3600.0  # seconds: a larger step forward is no hole; a 33-bit stamp that falls back looks like 26 h
BACK = 0.3  # seconds by which decoding times may go back: repeated packets, rounding
REORDERED = 1.0  # the same of presentation times, where pictures have no others
OVERHANG = 2.0  # seconds by which the pictures of a time line may outlast its sound
LONGEST = 10.0  # seconds: a longer packet has a wrong duration, but for a picture that stands still
STILL = 3600.0  # the same for pictures


@dataclass(frozen=True, slots=True)
class MediaPacket:
    """One demuxed packet. Its times are media seconds, shared by all tracks of a source."""

    kind: Kind
    payload: bytes
    keyframe: bool
    at: float
    due: float  # earliest time at which a live sender could have sent it
    arrived: float  # monotonic seconds at which it was read
    gap: float = 0.0  # seconds lost before it
    stamped: bool = True  # `at` is from a stamp; False: it follows the packet before it
    changed: MediaTrack | None = None  # the track's parameters from here on, where they are others
    joint: bool = False  # a time line begins here


@dataclass(frozen=True, slots=True)
class Stamps:
    """The stamps of one packet in seconds; None: missing."""

    pts: float | None
    dts: float | None
    duration: float  # 0: not known

    @property
    def order(self) -> float | None:
        """The time that rises from packet to packet."""
        return self.pts if self.dts is None else self.dts


def stamps_of(packet: Any) -> Stamps:
    """The stamps of a packet of libav."""
    base = packet.time_base
    return Stamps(
        None if packet.pts is None else float(packet.pts * base),
        None if packet.dts is None else float(packet.dts * base),
        float(packet.duration * base) if packet.duration else 0.0,
    )


@dataclass(slots=True)
class _Track:
    """Where one track stands."""

    line: int  # number of its time line
    end: float | None = None  # media seconds at which the newest packet ends
    order: float | None = None  # media seconds of the newest decoding time
    due: float = -1.0  # media seconds at which the newest packet was due
    spacing: float = 0.0  # seconds between two packets, where durations are missing
    stamp_at: float | None = None  # media seconds of the newest stamp
    unstamped: int = 0  # packets since


@dataclass(frozen=True, slots=True)
class Step:
    """A step forward of one track. `at`: where the stamp lies; `size`: seconds since the end of the track."""

    kind: Kind
    at: float
    size: float


def fits_in_a_file(step: Step) -> bool:
    """Whether a step forward in a file is a hole."""
    return step.size <= HOLE


@dataclass(slots=True)
class MediaClock:
    """Maps the stamps of all tracks of a source to media seconds.

    Args:
        start: the stamp, in seconds, of media second `zero`.
        is_hole: whether a step forward is a hole; otherwise a time line begins.
        joint: where a time line begins that would continue at the given media second.
        interleaved: packets of all tracks come in order of time, as in a transport stream.

    Attributes:
        lines: time lines begun after the first.
    """

    start: float
    zero: float = 0.0
    is_hole: Callable[[Step], bool] = fits_in_a_file
    joint: Callable[[float], float] = lambda end: end
    interleaved: bool = False
    lines: int = 0
    _offsets: list[float] = field(default_factory=list)  # media seconds minus stamp, of each time line
    _tracks: dict[Kind, _Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._offsets.append(self.zero - self.start)

    @property
    def end(self) -> float:
        """Media seconds at which the newest packet of any track ends."""
        return max((track.end for track in self._tracks.values() if track.end is not None), default=0.0)

    def end_of(self, kind: Kind) -> float | None:
        """Media seconds at which the newest packet of a track ends; None: there was none."""
        return self._tracks[kind].end if kind in self._tracks else None

    def line_of(self, kind: Kind) -> int | None:
        """Number of the time line that a track is on; None: there was no packet."""
        return self._tracks[kind].line if kind in self._tracks else None

    @property
    def next_line(self) -> float:
        """Where the next time line begins: with the sound, unless pictures outlast it by far."""
        end = self.end
        sound = self.end_of("audio")
        return self.joint(sound if sound is not None and end - sound <= OVERHANG else end)

    def continues(self, kind: Kind, stamp: float | None) -> bool:
        """Whether a stamp belongs to the present time line of a track."""
        track = self._tracks.get(kind)
        if track is None or track.end is None or stamp is None:
            return False
        return abs(stamp + self._offsets[track.line] - track.end) <= JUMP

    def at(self, kind: Kind, stamps: Stamps) -> float | None:
        """Where a packet lies on the present time line of its track; None: it has no stamp, or no line."""
        track, stamp = self._tracks.get(kind), stamps.pts if stamps.pts is not None else stamps.dts
        return None if track is None or stamp is None else stamp + self._offsets[track.line]

    def begin_line(self, at: float, stamp: float) -> None:
        """Begin a time line: its stamp `stamp` is media second `at`."""
        self._offsets.append(at - stamp)
        self.lines += 1

    def join_line(self, kind: Kind, at: float) -> None:
        """Put a track on the newest time line, whatever its next stamp; without one, it goes on at `at`."""
        track = self._tracks.setdefault(kind, _Track(self.lines))
        track.line = self.lines
        track.order = track.stamp_at = None
        track.end = at

    def place(self, kind: Kind, stamps: Stamps) -> float:
        """Media seconds of a packet. Packets of a kind must come in decoding order."""
        track = self._tracks.setdefault(kind, _Track(self.lines))
        order = stamps.order
        if order is None:
            at = self.end if track.end is None else track.end
            track.unstamped += 1
            track.end = at + self._lasts(kind, track, stamps)
            return at
        self._choose_line(kind, track, order, decoding=stamps.dts is not None)
        offset = self._offsets[track.line]
        at = (stamps.pts if stamps.pts is not None else order) + offset
        if track.stamp_at is not None and track.unstamped and stamps.duration <= 0:
            track.spacing = max(0.0, (order + offset - track.stamp_at) / (track.unstamped + 1))
        begun = track.order is not None and track.end is not None
        track.order = track.stamp_at = order + offset
        track.unstamped = 0
        track.end = max(at + self._lasts(kind, track, stamps), track.end or at if begun else at)
        return at

    def advance_due(self, kind: Kind, at: float) -> float:
        """Media seconds at which a packet just placed is due: audio at its end, video never going back."""
        track = self._tracks[kind]
        track.due = max(track.due, at if kind == "video" or track.end is None else track.end)
        return track.due

    def _choose_line(self, kind: Kind, track: _Track, order: float, *, decoding: bool) -> None:
        """Put a track on another time line where its stamps have left the present one.

        `decoding`: `order` is a decoding time, which never goes back within a time line.
        """
        if track.order is None or track.end is None:
            at = order + self._offsets[track.line]
            if track.order is None and track.end is None and self.interleaved and self.end - at > JUMP:
                self.begin_line(self.next_line, order)  # it first comes with a part that begins again
                self._leave_line(track)
            return
        at, newest = order + self._offsets[track.line], order + self._offsets[-1]
        nearer = abs(newest - track.end) < abs(at - track.end)
        leaves = track.order - at > (BACK if kind == "audio" or decoding else REORDERED)
        size = at - track.end
        if not leaves and size > STEP:
            leaves = not self.is_hole(Step(kind, at, size))
        if track.line < self.lines and (nearer or (leaves and newest >= track.end - OVERHANG)):
            self._leave_line(track)  # another track has begun the next one
        elif leaves:
            self.begin_line(self.next_line, order)
            self._leave_line(track)

    def _leave_line(self, track: _Track) -> None:
        """Put a track on the newest time line."""
        track.line = self.lines
        track.order = track.end = track.stamp_at = None
        track.unstamped = 0

    @staticmethod
    def _lasts(kind: Kind, track: _Track, stamps: Stamps) -> float:
        """Seconds that a packet lasts, as far as they are known."""
        if 0 < stamps.duration < (LONGEST if kind == "audio" else STILL):
            return stamps.duration
        return track.spacing
