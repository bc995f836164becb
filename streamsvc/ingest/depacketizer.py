"""RTP packets of one video stream -> whole pictures, at once and never broken.

aiortc's jitter buffer does the reordering. What it lacks (FIELD_NOTES 12) is added here: a picture is released by its
marker bit, not by the next picture's first packet; several are released at once; a hole that no retransmission repairs is
given up after HOLE_SECONDS; and after a loss nothing is passed on until a keyframe makes the picture whole again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiortc.jitterbuffer import JitterBuffer, JitterFrame

CAPACITY = 512  # packets
HOLE_SECONDS = 0.3  # a retransmission takes one round trip
HOLD_SECONDS = 5.0  # a sender that answers no PLI is shown broken rather than not at all
PLI_SECONDS = 0.5  # between two requests of ours


@dataclass(frozen=True, slots=True)
class Picture:
    """One access unit. `after_loss`: pictures are missing before it. `timestamp`: RTP."""

    timestamp: int
    payload: bytes
    keyframe: bool
    after_loss: bool


class Assembler:
    """Pictures out of packets.

    Args:
        codec: "vp8" or "h264".
    """

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.held = 0  # pictures not passed on because they refer to lost ones
        self.holes = 0  # times that a hole was given up
        self._buffer = JitterBuffer(capacity=CAPACITY, is_video=True)
        self._newest: int | None = None
        self._hole_since: float | None = None
        self._broken_since: float | None = None
        self._whole = False  # the decoder has a keyframe, and everything since
        self._lost = False  # since the last picture passed on
        self._asked: float | None = None

    def push(self, packet: Any, now: float) -> tuple[list[Picture], bool]:
        """Take a packet (its `_data` depacketised); return the pictures that are complete, and whether to send a PLI."""
        sequence = packet.sequence_number
        if self._asked is None:  # the first packets belong to a keyframe most likely: do not ask at once
            self._asked = now
        if self._newest is None or (sequence - self._newest) & 0xFFFF < 0x8000:
            self._newest = sequence
        overrun, first = self._buffer.add(packet)
        if overrun:
            self._break(now)
            if (sequence - self._newest) & 0xFFFF >= 0x8000:  # a restart, further back
                self._newest = sequence
        frames = [first] if first is not None else []
        frames += self._ready()
        if self._blocked():
            if self._hole_since is None:
                self._hole_since = now
            elif now - self._hole_since > HOLE_SECONDS:
                self.skip(now)
        else:
            self._hole_since = None
        pictures = [picture for frame in frames if (picture := self._picture(frame, now)) is not None]
        return pictures, not self._whole and self._ask(now)

    def skip(self, now: float) -> None:
        """Give up everything that waits, and go on behind it."""
        self.holes += 1
        self._buffer.remove(CAPACITY)
        if self._newest is not None:
            self._buffer._origin = (self._newest + 1) & 0xFFFF
        self._hole_since = None
        self._break(now)

    def reset(self) -> None:
        """Another stream begins."""
        self._buffer = JitterBuffer(capacity=CAPACITY, is_video=True)
        self._newest = self._hole_since = self._broken_since = None
        self._whole, self._lost = False, True

    def _break(self, now: float) -> None:
        self._lost = True
        if self._whole:
            self._whole, self._broken_since = False, now

    def _ask(self, now: float) -> bool:
        if self._asked is None or now - self._asked < PLI_SECONDS:
            return False
        self._asked = now
        return True

    def _ready(self) -> Iterator[JitterFrame]:
        """Complete pictures at the head of the buffer: all packets are there, up to a marker or to another timestamp."""
        buffer = self._buffer
        while True:
            run: list[Any] = []
            for packet in self._run():
                if run and packet.timestamp != run[0].timestamp:
                    break
                run.append(packet)
                if packet.marker:
                    break
            else:
                return
            buffer.remove(len(run))
            yield JitterFrame(data=b"".join(packet._data for packet in run), timestamp=run[0].timestamp)

    def _run(self) -> Iterator[Any]:
        """The packets at the head of the buffer, up to the first hole."""
        buffer = self._buffer
        for count in range(CAPACITY):
            packet = buffer._packets[((buffer._origin or 0) + count) % CAPACITY]
            if packet is None:
                return
            yield packet

    def _blocked(self) -> bool:
        if self._newest is None or self._buffer._origin is None:
            return False
        waiting = (self._newest + 1 - self._buffer._origin) & 0xFFFF
        return waiting < 0x8000 and sum(1 for _ in self._run()) < waiting

    def _picture(self, frame: JitterFrame, now: float) -> Picture | None:
        if not frame.data:  # padding only
            return None
        key = is_keyframe(self.codec, frame.data)
        if key:
            self._whole, self._broken_since = True, None
        elif not self._whole:
            if self._broken_since is None or now - self._broken_since < HOLD_SECONDS:
                self.held += 1
                self._lost = True
                return None
            self._whole, self._broken_since = True, None
        after_loss, self._lost = self._lost, False
        return Picture(frame.timestamp, frame.data, key, after_loss)


def is_keyframe(codec: str, data: bytes) -> bool:
    """Whether an access unit can be decoded alone: a VP8 key frame (RFC 6386 section 9.1), or one with an H.264 IDR slice."""
    if codec == "vp8":
        return len(data) >= 6 and not data[0] & 1 and data[3:6] == b"\x9d\x01\x2a"
    start = data.find(b"\0\0\1")
    while 0 <= start < len(data) - 3:
        if data[start + 3] & 0x1F == 5:  # Annex B, nal_unit_type 5
            return True
        start = data.find(b"\0\0\1", start + 3)
    return False
