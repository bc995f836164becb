"""RTP timestamps and RTCP sender reports -> session time. Pure.

RTP clocks start at random values and are unrelated to each other; sender reports (RFC 3550 section 6.4.1) tie
each to the sender's wall clock. The first report comes after about 2 s, the wall clock may be wrong, and
audio reports scatter by 31 ms in our measurements. So:

- A track's time is its RTP clock plus an offset, taken from the arrival of its fastest recent packets. The
  offset is slewed by at most SLEW of the elapsed time, so that jitter does not show; only a lag of more than
  STEP that lasts (the sender's clock stood still) or a new RTP base is corrected at once.
- Once both tracks have a report, the video's RTP clock is mapped to the audio's through the wall clock
  (median of the last reports): one shared clock. Audio is never moved, because it must be contiguous. Reports
  that would move video by more than MAX_SKEW are ignored: as times never go back, they would stand still.

Session times never go back within a track, and a re-publish continues the session's time because arrival
does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

SLEW = 0.01  # seconds per second by which an offset may move
FAST_SLEW = 0.1  # the same, backwards, when the first packets turn out to have been slow
STEP = 0.5  # seconds of lag that are corrected at once
AHEAD = {"audio": 0.5, "video": 1.0}  # seconds by which RTP time may run ahead of arrival from frame to frame
MAX_LEAD = 3.0  # seconds by which it may run ahead in all
MAX_SKEW = 3.0  # seconds from a track's own clock to the shared one; more is a fault of a sender report
WINDOW = 2.0  # seconds of arrivals whose fastest packet counts
REPORTS = 9  # sender reports in the median
WRAP = 1 << 32


@dataclass(slots=True)
class _TrackClock:
    """The RTP clock of one track. `rate`: Hz."""

    rate: int
    last: int | None = None  # unwrapped RTP time of the newest frame
    last_arrived: float = 0.0
    offset: float = 0.0  # session seconds at RTP time 0 (unwrapped)
    since: float = 0.0  # arrival of the first packet of the window
    last_at: float | None = None  # the last session time returned
    # (arrived, session time - RTP time), rising: a monotonic queue for the sliding minimum
    transits: deque[tuple[float, float]] = field(default_factory=deque)
    # the sender's wall clock - RTP time, in seconds, of the last reports
    wall_offsets: deque[float] = field(default_factory=lambda: deque(maxlen=REPORTS))

    def unwrap(self, timestamp: int) -> int:
        """Extend a 32-bit timestamp to one that does not wrap, nearest to the last one."""
        if self.last is None:
            return timestamp % WRAP
        return self.last + ((timestamp - self.last + WRAP // 2) % WRAP - WRAP // 2)


class RtpClock:
    """Maps RTP timestamps of the tracks of one peer to session time.

    Args:
        zero: monotonic seconds (`clock.now()`) of session time 0.
        rates: RTP clock rate in Hz by kind, e.g. {"audio": 48000, "video": 90000}.
    """

    def __init__(self, zero: float, rates: dict[str, int]) -> None:
        self._zero = zero
        self._tracks = {kind: _TrackClock(rate) for kind, rate in rates.items()}

    @property
    def shared(self) -> bool:
        """Whether both tracks share one clock."""
        return len(self._tracks) > 1 and all(track.wall_offsets for track in self._tracks.values())

    def report(self, kind: str, ntp: float, timestamp: int) -> None:
        """Process a sender report; ignored before the first frame.

        Args:
            kind: of the track.
            ntp: the sender's wall clock in seconds.
            timestamp: RTP timestamp at that moment.
        """
        track = self._tracks[kind]
        if track.last is None:
            return
        wall = ntp - track.unwrap(timestamp) / track.rate
        if track.wall_offsets and abs(wall - median(track.wall_offsets)) > STEP:
            track.wall_offsets.clear()  # the sender stepped its wall clock, or the RTP base is new
        track.wall_offsets.append(wall)

    def at(self, kind: str, timestamp: int, arrived: float) -> float:
        """Session seconds of a frame. Frames of one kind must come in order."""
        track = self._tracks[kind]
        now = arrived - self._zero
        rtp = track.unwrap(timestamp)
        elapsed = 0.0
        if track.last is not None:
            elapsed = (rtp - track.last) / track.rate
            # Audio comes in the sender's order, so that a step back is its clock's; video may be reordered.
            back = 0.0 if kind == "audio" else -STEP
            lead = rtp / track.rate + track.offset - now
            if elapsed < back or elapsed > arrived - track.last_arrived + AHEAD[kind] or lead > MAX_LEAD:
                # a new RTP base
                track.transits.clear()
                track.wall_offsets.clear()
                track.offset = now - rtp / track.rate
                elapsed = 0.0
        else:
            track.offset = now - rtp / track.rate
        self._slew(track, now - rtp / track.rate, arrived, max(0.0, elapsed))
        track.last = rtp
        track.last_arrived = arrived
        at = rtp / track.rate + self._offset(kind)
        if track.last_at is not None and at < track.last_at:
            at = track.last_at
        track.last_at = at
        return at

    def _offset(self, kind: str) -> float:
        track = self._tracks[kind]
        if kind == "audio" or not self.shared:
            return track.offset
        audio = self._tracks["audio"]
        shared = audio.offset + median(track.wall_offsets) - median(audio.wall_offsets)
        return shared if abs(shared - track.offset) <= MAX_SKEW else track.offset

    @staticmethod
    def _slew(track: _TrackClock, transit: float, arrived: float, elapsed: float) -> None:
        """Move the offset towards the fastest packet of the window."""
        window = track.transits
        if window and arrived - track.last_arrived > STEP:
            window.clear()  # a silence: of the network (a burst follows) or of the sender (none follows)
        if not window:
            track.since = arrived
        while window and window[-1][1] >= transit:
            window.pop()
        window.append((arrived, transit))
        while window[0][0] < arrived - WINDOW:
            window.popleft()
        error = window[0][1] - track.offset
        if error > STEP:
            if arrived - track.since >= WINDOW:
                track.offset += error
        else:
            most = (FAST_SLEW if error < -STEP / 10 else SLEW) * elapsed
            track.offset += max(-most, min(most, error))
