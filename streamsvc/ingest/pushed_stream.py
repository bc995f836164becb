"""The bytes that a publisher pushes, as a file that libav reads: no seek, and no second connection."""

from __future__ import annotations

import contextlib
import socket
from typing import Self


class PushedStream:
    """A stream socket on which a container's bytes come: `with` it, in one thread, to its end.

    Args:
        sock: connected; closed at the end of the block, which disconnects the publisher.
        name: for messages.
        silence: seconds without a byte after which the publisher counts as gone.

    Attributes:
        ended: the publisher is gone; nothing comes any more.
    """

    def __init__(self, sock: socket.socket, name: str, silence: float) -> None:
        self.name = name
        self.ended = False
        self._sock = sock
        sock.settimeout(silence)

    def read(self, size: int) -> bytes:
        """See Readable."""
        data = b""
        with contextlib.suppress(OSError):  # silent for too long, or `stop` was called
            data = self._sock.recv(size)
        self.ended = self.ended or not data
        return data

    def close(self) -> None:
        """Nothing: a container is opened again in the middle of the same stream."""

    def stop(self) -> None:
        """End a `read` that waits, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
