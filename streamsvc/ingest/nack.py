"""Which video packets are asked for again (NACK), at a bounded cost for each packet that comes."""

from __future__ import annotations

from typing import Any

from aiortc.rtcrtpreceiver import NackGenerator

ASKED_FOR = 128  # packets before the newest one: as many as aiortc asks for, and as its sender keeps
HALF = 1 << 15  # of the sequence numbers: less is ahead, more is behind


class BoundedNack(NackGenerator):
    """aiortc's list of missing packets, which a jump of the sequence number does not fill first.

    aiortc adds every number that a jump leaves out (up to 32767, 10 ms and more) and then walks over all of
    them; those half a circle away stay, and are walked over and asked for at each packet. One publisher could
    so hold up all sessions. What is asked for after a loss is the same.
    """

    def add(self, packet: Any) -> bool:
        """Note a packet; return whether some before it are missing now."""
        if self.max_seq is not None:
            ahead = (packet.sequence_number - self.max_seq) & 0xFFFF
            if ASKED_FOR < ahead < HALF:
                self.missing.clear()
                self.max_seq = (packet.sequence_number - ASKED_FOR - 1) & 0xFFFF
        return bool(super().add(packet))
