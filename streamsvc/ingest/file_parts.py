"""Files of several parts: chained Ogg (RFC 3533, section 4), and transport streams whose tables change.

libav goes on only while the parameters of the streams stay the same, so each part is opened on its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

HEADER = 27  # bytes of a page before its segment table
BEGINS = 0x02  # flag of the first page of a stream
LINKS = 10_000  # security limit
PACKET = 188  # bytes of a packet of a transport stream (ISO 13818-1)
TABLES = 500  # packets between the tables of a part and its first media
Span = tuple[int, int]  # bytes: first, behind the last


def links(path: Path) -> list[Span]:
    """The links of a chained Ogg file; fewer than two: it is not chained, damaged, or no Ogg file."""
    starts: list[int] = []
    with path.open("rb") as file:
        position, begun = 0, False
        while len(starts) < LINKS:
            file.seek(position)
            head = file.read(HEADER)
            if len(head) < HEADER or head[:4] != b"OggS":
                break
            begins = bool(head[5] & BEGINS)
            if begins and not begun:  # streams of one link begin together, before any of their data
                starts.append(position)
            begun = begins
            position += HEADER + head[26] + sum(file.read(head[26]))
    return list(zip(starts, [*starts[1:], path.stat().st_size], strict=True)) if starts else []


def tables_before(path: Path, position: int, first: int) -> int | None:
    """Byte of a transport stream at which the newest program tables (PAT) before a packet begin.

    Args:
        path: of the file.
        position: byte of the packet.
        first: byte at which to stop looking.

    Returns:
        None: there are none within TABLES packets.
    """
    with path.open("rb") as file:
        for at in range(position, max(first, position - TABLES * PACKET), -PACKET):
            file.seek(at)
            head = file.read(3)
            if len(head) == 3 and head[0] == 0x47 and (head[1] & 0x1F, head[2]) == (0, 0):
                return at
    return None


class Part:
    """A stretch of a file as a file of its own. `name`: libav sees it."""

    def __init__(self, file: BinaryIO, span: Span, name: str) -> None:
        self.name = name
        self._file = file
        self._first, self._end = span
        self._at = self._first

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        self._file.seek(self._at)
        data = self._file.read(max(0, min(size, self._end - self._at)))
        self._at += len(data)
        return data

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; returns the position."""
        base = (self._first, self._at, self._end)[whence]
        self._at = min(max(self._first, base + offset), self._end)
        return self.tell()

    def tell(self) -> int:
        """The position."""
        return self._at - self._first

    def close(self) -> None:
        """Close the file."""
        self._file.close()
