"""Media time of demuxed packets: pts of files and URLs -> seconds that never jump. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.types import Kind

JUMP = 10.0  # seconds: a larger step between packets of one track is a new time line, not a pause


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


@dataclass(slots=True)
class TrackClock:
    """Maps the pts of one track to media seconds; bridges missing and restarted timestamps."""

    start: float  # the pts, in seconds, of media time 0
    offset: float = 0.0
    end: float | None = None  # media seconds at which the last packet ended
    due: float = -1.0  # media seconds at which the last packet was due

    def place(self, stamp: float | None, duration: float) -> float:
        """Media seconds of a packet.

        Args:
            stamp: its pts in seconds; None: missing.
            duration: in seconds.
        """
        at = (self.end or 0.0) if stamp is None else stamp - self.start + self.offset
        expected = self.end
        if expected is not None and abs(at - expected) > JUMP:
            self.offset += expected - at
            at = expected
        self.end = max(at + duration, expected or 0.0) if abs(duration) < JUMP else at
        return at

    def advance_due(self, kind: Kind, at: float, duration: float) -> float:
        """Media seconds at which a packet is due: the end of audio; of video, never going back."""
        self.due = max(self.due, at + duration if kind == "audio" else at)
        return self.due

    def restart(self, at: float, start: float) -> None:
        """Start a new time line: its pts `start` is media time `at`; so is a packet without pts."""
        self.start = start
        self.offset = at
        self.end = at

    def continues(self, stamp: float | None) -> bool:
        """Whether a pts belongs to the present time line."""
        return (
            stamp is not None
            and self.end is not None
            and abs(stamp - self.start + self.offset - self.end) <= JUMP
        )
