"""A text that many connections are sent: its WebSocket frame is made once for all of them."""

from __future__ import annotations

import struct

_FINAL_TEXT = 0x81  # FIN, opcode 1


class SharedText(str):
    """A text with its frame. A server may send the frame where it would send the text, uncompressed."""

    __slots__ = ("_frame",)
    _frame: bytes

    @property
    def frame(self) -> bytes:
        """A whole text frame of a server, without a mask (RFC 6455 section 5.2)."""
        try:
            return self._frame
        except AttributeError:
            payload = self.encode()
            size = len(payload)
            if size < 126:
                head = struct.pack("!BB", _FINAL_TEXT, size)
            elif size < 1 << 16:
                head = struct.pack("!BBH", _FINAL_TEXT, 126, size)
            else:
                head = struct.pack("!BBQ", _FINAL_TEXT, 127, size)
            self._frame = head + payload
            return self._frame
