"""RTP timestamps and RTCP sender reports -> session time. Pure.

RTP clocks start at random values and say nothing about each other; sender reports (RFC 3550 section 6.4.1) tie each to
the sender's wall clock. The first comes after about 2 s, the wall clock itself may be wrong, and audio reports scatter by
31 ms (FIELD_NOTES 13). So:

- A track's time is its RTP clock, laid on the arrival of its fastest recent packets. The laying moves by at most SLEW of
  the time that passes, so that jitter never shows; only a lag of more than STEP that lasts (the sender's clock stood
  still) or a new RTP base is mended at once.
- As soon as both tracks have a report, the video's RTP clock is laid on the audio's through the wall clock (median of the
  last reports): one shared clock. Audio is the one that is never moved, because it must be contiguous.

Times given out never go back within a track, and a re-publish continues the session's time because arrival does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

SLEW = 0.01  # seconds a second that a track's laying may move
FAST_SLEW = 0.1  # ... back, when the first packets turn out to have been slow ones
STEP = 0.5  # seconds behind that are mended at once
WINDOW = 2.0  # seconds of arrivals whose fastest packet counts
REPORTS = 9  # sender reports whose median counts
WRAP = 1 << 32


@dataclass(slots=True)
class _Clock:
    """One track's RTP clock. `offset`: session seconds at RTP time 0 (unwrapped)."""

    rate: int
    last: int | None = None  # unwrapped RTP time of the newest frame
    last_arrived: float = 0.0
    offset: float = 0.0
    since: float = 0.0  # arrival of the first packet of the window's run
    given: float | None = None  # the last session time given out
    transits: deque[tuple[float, float]] = field(
        default_factory=deque
    )  # (arrived, session time - RTP time), rising: a sliding minimum
    walls: deque[float] = field(
        default_factory=lambda: deque(maxlen=REPORTS)
    )  # the sender's wall clock - RTP time, in seconds

    def unwrap(self, timestamp: int) -> int:
        """The 32-bit timestamp as a number that does not wrap, near the last one."""
        if self.last is None:
            return timestamp % WRAP
        return self.last + ((timestamp - self.last + WRAP // 2) % WRAP - WRAP // 2)


class Sync:
    """Session time for the tracks of one peer.

    Args:
        zero: monotonic seconds (`clock.now()`) of session time 0.
        rates: RTP clock rate in Hz by kind, e.g. {"audio": 48000, "video": 90000}.
    """

    def __init__(self, zero: float, rates: dict[str, int]) -> None:
        self._zero = zero
        self._clocks = {kind: _Clock(rate) for kind, rate in rates.items()}

    @property
    def shared(self) -> bool:
        """Whether all tracks lie on one clock."""
        return len(self._clocks) > 1 and all(clock.walls for clock in self._clocks.values())

    def report(self, kind: str, ntp: float, timestamp: int) -> None:
        """Take a sender report: the sender's wall clock, in seconds, at an RTP timestamp. Ignored before the first frame."""
        clock = self._clocks[kind]
        if clock.last is None:
            return
        wall = ntp - clock.unwrap(timestamp) / clock.rate
        if clock.walls and abs(wall - median(clock.walls)) > STEP:
            clock.walls.clear()  # the sender set its wall clock, or the RTP base is new
        clock.walls.append(wall)

    def at(self, kind: str, timestamp: int, arrived: float) -> float:
        """Session time of a frame, in seconds. Frames of one kind come in order."""
        clock = self._clocks[kind]
        now = arrived - self._zero
        rtp = clock.unwrap(timestamp)
        passed = 0.0
        if clock.last is not None:
            passed = (rtp - clock.last) / clock.rate
            if passed < -STEP or passed > arrived - clock.last_arrived + WINDOW:  # a new RTP base
                clock.transits.clear()
                clock.walls.clear()
                clock.offset = now - rtp / clock.rate
                passed = 0.0
        else:
            clock.offset = now - rtp / clock.rate
        self._lay(clock, now - rtp / clock.rate, arrived, max(0.0, passed))
        clock.last, clock.last_arrived = rtp, arrived
        at = rtp / clock.rate + self._offset(kind)
        if clock.given is not None and at < clock.given:
            at = clock.given
        clock.given = at
        return at

    def _offset(self, kind: str) -> float:
        clock = self._clocks[kind]
        if kind == "audio" or not self.shared:
            return clock.offset
        audio = self._clocks["audio"]
        return audio.offset + median(clock.walls) - median(audio.walls)

    @staticmethod
    def _lay(clock: _Clock, transit: float, arrived: float, passed: float) -> None:
        """Move the laying towards the fastest packet of the window."""
        window = clock.transits
        if window and arrived - clock.last_arrived > STEP:
            window.clear()  # after a silence: a burst follows if the network stood still, and none if the sender did
        if not window:
            clock.since = arrived
        while window and window[-1][1] >= transit:
            window.pop()
        window.append((arrived, transit))
        while window[0][0] < arrived - WINDOW:
            window.popleft()
        error = window[0][1] - clock.offset
        if error > STEP:
            if arrived - clock.since >= WINDOW:
                clock.offset += error
        else:
            most = (FAST_SLEW if error < -STEP / 10 else SLEW) * passed
            clock.offset += max(-most, min(most, error))
