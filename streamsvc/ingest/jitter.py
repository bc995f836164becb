"""Audio jitter buffer: reorders RTP packets and reports the loss before each frame. Pure.

A packet in order is delivered at once, whatever the network. A hole is given up once `reorder_packets`
packets wait behind it and the first of them has waited as long as the network's delay varied lately,
LONGEST_WAIT at most: a packet that is only late would have come. (Three packets alone, 60 ms, would lose
every eighth packet of a network whose delay varies by 150 ms.) All frames behind it are then delivered at
once, so that a loss never adds lasting latency. (aiortc's own buffer, made for play-out, loses 100 ms per
lost packet and adds 200 ms for good.)

Sequence numbers and timestamps wrap as in RFC 3550. A jump of the sequence number, as of a restarted sender,
is accepted when a second packet confirms it (RFC 3550, appendix A.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_DROPOUT = 3000  # packets: a larger jump ahead is a restart (RFC 3550 A.1)
MAX_MISORDER = 100  # packets: a larger step back is a restart
LONGEST_WAIT = 0.2  # seconds behind a hole, where the delay varies by so much
RECENT = 100  # packets whose delays are compared
MAX_WAITING = 64  # packets behind a hole (security limit); full: the hole is given up
MAX_OPUS_SECONDS = 0.12  # RFC 6716 section 3.2.5


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet."""

    sequence: int  # 16 bits
    timestamp: int  # 32 bits
    payload: bytes  # empty: padding only
    arrived: float  # monotonic seconds


@dataclass(frozen=True, slots=True)
class Frame:
    """One packet's payload, in order."""

    timestamp: int
    payload: bytes
    arrived: float
    lost: float  # seconds of media known to be lost right before it
    anew: bool = False  # the stream began anew: what is lost before it is not known


@dataclass(slots=True)
class Counts:
    """Counters of packets."""

    received: int = 0  # all
    lost: int = 0
    late: int = 0
    duplicate: int = 0
    empty: int = 0
    restarts: int = 0


@dataclass(slots=True)
class _Last:
    """The last delivered packet with media."""

    timestamp: int
    seconds: float


@dataclass(slots=True)
class Jitter:
    """A reorder buffer for one audio stream.

    Args:
        rate: RTP clock rate in Hz.
        reorder_packets: fewest packets behind a hole until it is given up.
        reorder_seconds: the same without so many, for streams that pause (DTX).
        seconds: duration of a payload, in seconds.
    """

    rate: int = 48_000
    reorder_packets: int = 3
    reorder_seconds: float = 0.1
    seconds: Callable[[bytes], float] = field(default=lambda payload: opus_seconds(payload))
    counts: Counts = field(default_factory=Counts)
    _next: int | None = None  # expected sequence number
    _waiting: dict[int, Packet] = field(default_factory=dict)  # behind a hole
    # arrival and stamp
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _suspect: Packet | None = None  # a jump not yet confirmed by a second packet
    _last: _Last | None = None
    _missed: int = 0  # packets given up since `_last`
    _restarted: bool = False  # no frame has come out since `reset`

    def push(self, packet: Packet) -> list[Frame]:
        """Add a packet; return the frames that can be delivered now, in order."""
        self.counts.received += 1
        if self._next is None:
            self._next = packet.sequence
        ahead = _signed(packet.sequence - self._next, 16)
        if not -MAX_MISORDER <= ahead <= MAX_DROPOUT:
            return self._jump(packet)
        self._suspect = None
        if packet.sequence in self._waiting:
            self.counts.duplicate += 1
            return []
        self._recent.append((packet.arrived, packet.timestamp))
        if ahead < 0:
            self.counts.late += 1
            return []
        self._waiting[packet.sequence] = packet
        return self._drain() + self.poll(packet.arrived)

    def poll(self, now: float) -> list[Frame]:
        """Return the frames that have waited long enough; call it regularly when no packets come."""
        out: list[Frame] = []
        while self._waiting and self._overdue(now):
            self._give_up()
            out += self._drain()
        return out

    def reset(self) -> None:
        """Discard the stream, for another source; the counts stay."""
        self._next = None
        self._suspect = None
        self._last = None
        self._waiting.clear()
        self._recent.clear()
        self._missed = 0
        self._restarted = True

    def _jump(self, packet: Packet) -> list[Frame]:
        """Handle a packet far from the expected one: accepted when its successor follows."""
        first = self._suspect
        if first is None or packet.sequence != (first.sequence + 1) & 0xFFFF:
            self._suspect = packet
            return []
        out: list[Frame] = []
        while self._waiting:  # of the old stream
            self._give_up()
            out += self._drain()
        self.counts.restarts += 1
        self.reset()
        self._next = first.sequence
        self._waiting = {first.sequence: first, packet.sequence: packet}
        return out + self._drain()

    def _overdue(self, now: float) -> bool:
        """Whether the first hole is a loss by now."""
        if len(self._waiting) >= MAX_WAITING:
            return True
        wait = min(LONGEST_WAIT, self._spread())
        if len(self._waiting) < self.reorder_packets:
            wait = max(wait, self.reorder_seconds)
        return now - min(packet.arrived for packet in self._waiting.values()) >= wait

    def _spread(self) -> float:
        """By how many seconds the delays of the recent packets differ, late ones included."""
        base = self._recent[-1][1]
        delays = [arrived - _signed(stamp - base, 32) / self.rate for arrived, stamp in self._recent]
        return max(delays) - min(delays)

    def _give_up(self) -> None:
        """Count the hole before the first waiting packet as lost."""
        assert self._next is not None
        hole = min((sequence - self._next) & 0xFFFF for sequence in self._waiting)
        self._missed += hole
        self.counts.lost += hole
        self._next = (self._next + hole) & 0xFFFF

    def _drain(self) -> list[Frame]:
        out: list[Frame] = []
        while self._next is not None and self._next in self._waiting:
            packet = self._waiting.pop(self._next)
            self._next = (self._next + 1) & 0xFFFF
            if packet.payload:
                out.append(self._frame(packet))
            else:  # padding only: a sequence number without media
                self.counts.empty += 1
        return out

    def _frame(self, packet: Packet) -> Frame:
        seconds = self.seconds(packet.payload)
        lost = 0.0
        anew, self._restarted = self._restarted, False
        if self._missed and self._last is not None:
            # The loss is the step of the timestamps, bounded by the number of missing packets, so that a
            # pause of the sender (DTX) or a new timestamp base does not count as loss.
            step = _signed(packet.timestamp - self._last.timestamp, 32) / self.rate
            lost = min(max(0.0, step - self._last.seconds), self._missed * max(self._last.seconds, seconds))
        self._last = _Last(packet.timestamp, seconds)
        self._missed = 0
        return Frame(packet.timestamp, packet.payload, packet.arrived, lost, anew)


def opus_seconds(payload: bytes) -> float:
    """Duration of an Opus packet in seconds (RFC 6716 sections 3.1 and 3.2); 0 for an empty one."""
    if not payload:
        return 0.0
    config, code = payload[0] >> 3, payload[0] & 3
    if config < 12:  # SILK
        frame = (0.01, 0.02, 0.04, 0.06)[config & 3]
    elif config < 16:  # hybrid
        frame = (0.01, 0.02)[config & 1]
    else:  # CELT
        frame = (0.0025, 0.005, 0.01, 0.02)[config & 3]
    count = (1, 2, 2, payload[1] & 0x3F if len(payload) > 1 else 1)[code]
    return min(frame * count, MAX_OPUS_SECONDS)


def byte_seconds(payload: bytes) -> float:
    """Duration of a G.711 or G.722 packet in seconds: 8000 bytes a second (RFC 3551)."""
    return len(payload) / 8000


def _signed(difference: int, bits: int) -> int:
    """The difference of two wrapping counters as a signed number."""
    half = 1 << (bits - 1)
    return ((difference + half) & ((1 << bits) - 1)) - half
