"""RTP packets of one video stream -> complete access units, without added delay.

aiortc's jitter buffer does the reordering. Added here: a picture is released by its marker bit, not by the
first packet of the next one; several are released at once; a hole that no retransmission repairs is given up
after HOLE_SECONDS; and after a loss nothing is released until the next codec keyframe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiortc.jitterbuffer import JitterBuffer, JitterFrame

CAPACITY = 512  # packets
HOLE_SECONDS = 0.3  # until a hole is given up; a retransmission takes one round trip
WITHHOLD_SECONDS = 5.0  # without a keyframe after a loss; then broken pictures are better than none
PLI_SECONDS = 0.5  # between two keyframe requests
RESTART_PACKETS = 8  # missing, and RTP time that steps by more than
RESTART_TICKS = 5 * 90_000  # this, are no loss but a sender that began anew
IDR, SPS = 5, 7  # nal_unit_type of H.264: a picture that can be decoded alone; its sequence parameters


@dataclass(frozen=True, slots=True)
class Picture:
    """One access unit."""

    timestamp: int  # RTP
    payload: bytes
    keyframe: bool
    after_loss: bool  # pictures are missing before it


class Assembler:
    """Assembles pictures from the packets of one stream.

    Args:
        codec: "vp8" or "h264".
        parameter_sets: of H.264 in Annex B format, put before keyframes that bring none; may be empty.
    """

    def __init__(self, codec: str, parameter_sets: bytes = b"") -> None:
        self.codec = codec
        self._parameter_sets = parameter_sets
        self.withheld = 0  # pictures not released because they refer to lost ones
        self.holes = 0  # holes given up
        self._buffer = JitterBuffer(capacity=CAPACITY, is_video=True)
        self._newest: int | None = None  # sequence number
        self._time = 0  # RTP time of the newest packet
        self._hole_since: float | None = None
        self._broken_since: float | None = None
        self._decodable = False  # the decoder has a keyframe and every picture since
        self._lost = False  # something since the last released picture
        self._last_pli: float | None = None

    def push(self, packet: Any, now: float) -> tuple[list[Picture], bool]:
        """Add a packet (`_data`: depacketised); return complete pictures and whether to send a PLI."""
        sequence = packet.sequence_number
        if self._restarted(packet):
            self.reset()
        if self._last_pli is None:  # the first packets most likely belong to a keyframe: no request yet
            self._last_pli = now
        inside = self._is_inside(packet)
        if self._newest is None or (sequence - self._newest) & 0xFFFF < 0x8000:
            self._newest, self._time = sequence, packet.timestamp
        overrun, first = self._buffer.add(packet)
        if inside and not overrun and first is None:
            return [], not self._decodable and self._may_send_pli(now)
        if overrun:
            self._note_loss(now)
            if (sequence - self._newest) & 0xFFFF >= 0x8000:  # a restart at a lower number
                self._newest = sequence
        frames = [first] if first is not None else []
        frames += self._complete_frames()
        if self._has_hole():
            if self._hole_since is None:
                self._hole_since = now
            elif now - self._hole_since > HOLE_SECONDS:
                self.skip(now)
        else:
            self._hole_since = None
        pictures = [picture for frame in frames if (picture := self._picture(frame, now)) is not None]
        return pictures, not self._decodable and self._may_send_pli(now)

    @property
    def decodable(self) -> bool:
        """Whether the decoder has a keyframe and every picture since."""
        return self._decodable

    def skip(self, now: float) -> None:
        """Give up all buffered packets and continue after them."""
        self.holes += 1
        self._buffer.remove(CAPACITY)
        if self._newest is not None:
            self._buffer._origin = (self._newest + 1) & 0xFFFF
        self._hole_since = None
        self._note_loss(now)

    def reset(self) -> None:
        """Start over with another stream."""
        self._buffer = JitterBuffer(capacity=CAPACITY, is_video=True)
        self._newest = None
        self._hole_since = None
        self._broken_since = None
        self._decodable = False
        self._lost = True
        self._last_pli = None

    def _restarted(self, packet: Any) -> bool:
        """Whether the sender of the same stream has begun anew: nothing would fill that hole."""
        if self._newest is None:
            return False
        ahead: int = (packet.sequence_number - self._newest) & 0xFFFF
        step: int = (packet.timestamp - self._time + (1 << 31)) % (1 << 32) - (1 << 31)
        return RESTART_PACKETS < ahead < 0x8000 and abs(step) > RESTART_TICKS

    def _is_inside(self, packet: Any) -> bool:
        """Whether a packet goes on with the newest picture and does not end it.

        Most packets do: they complete no picture and open no hole, so the buffer need not be walked over.
        """
        return (
            self._newest is not None
            and packet.sequence_number == (self._newest + 1) & 0xFFFF
            and packet.timestamp == self._time
            and not packet.marker
        )

    def _note_loss(self, now: float) -> None:
        self._lost = True
        if self._decodable:
            self._decodable = False
            self._broken_since = now

    def _may_send_pli(self, now: float) -> bool:
        if self._last_pli is None or now - self._last_pli < PLI_SECONDS:
            return False
        self._last_pli = now
        return True

    def _complete_frames(self) -> Iterator[JitterFrame]:
        """Complete pictures at the head of the buffer: up to a marker or to the next timestamp."""
        buffer = self._buffer
        while True:
            run: list[Any] = []
            for packet in self._contiguous():
                if run and packet.timestamp != run[0].timestamp:
                    break
                run.append(packet)
                if packet.marker:
                    break
            else:
                return
            buffer.remove(len(run))
            yield JitterFrame(data=b"".join(packet._data for packet in run), timestamp=run[0].timestamp)

    def _contiguous(self) -> Iterator[Any]:
        """The packets at the head of the buffer, up to the first hole."""
        buffer = self._buffer
        for count in range(CAPACITY):
            packet = buffer._packets[((buffer._origin or 0) + count) % CAPACITY]
            if packet is None:
                return
            yield packet

    def _has_hole(self) -> bool:
        if self._newest is None or self._buffer._origin is None:
            return False
        buffered = (self._newest + 1 - self._buffer._origin) & 0xFFFF
        return buffered < 0x8000 and sum(1 for _ in self._contiguous()) < buffered

    def _waited_too_long(self, now: float) -> bool:
        return self._broken_since is not None and now - self._broken_since >= WITHHOLD_SECONDS

    def _picture(self, frame: JitterFrame, now: float) -> Picture | None:
        if not frame.data:  # padding only
            return None
        keyframe = is_keyframe(self.codec, frame.data)
        if keyframe and self._parameter_sets and SPS not in set(_nal_types(frame.data)):
            frame.data = self._parameter_sets + frame.data
        if not keyframe and not self._decodable and not self._waited_too_long(now):
            self.withheld += 1
            self._lost = True
            return None
        self._decodable = True
        self._broken_since = None
        after_loss = self._lost
        self._lost = False
        return Picture(frame.timestamp, frame.data, keyframe, after_loss)


def is_keyframe(codec: str, data: bytes) -> bool:
    """Whether an access unit can be decoded alone.

    VP8: a key frame (RFC 6386 section 9.1). H.264: it has an IDR slice.
    """
    if codec == "vp8":
        return len(data) >= 6 and not data[0] & 1 and data[3:6] == b"\x9d\x01\x2a"
    return IDR in _nal_types(data)


def _nal_types(data: bytes) -> Iterator[int]:
    """The nal_unit_types of an access unit in Annex B format."""
    start = data.find(b"\0\0\1")
    while 0 <= start < len(data) - 3:
        yield data[start + 3] & 0x1F
        start = data.find(b"\0\0\1", start + 3)
