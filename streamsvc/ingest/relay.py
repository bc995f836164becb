"""What relays between libav, on this machine, and a server have in common."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from streamsvc.core import clock

_ACCEPT_SECONDS = 0.1  # after which `close` is looked at


class Relay(threading.Thread):
    """One connection of libav and one to a server, open until `close`. A subclass passes on what comes.

    Args:
        name: of the thread.
        limit: seconds that libav may take to connect.
        listener: where its connection arrives, closed here; None: on this machine's loopback.
        connect: connects to the server; what it raises, this raises.

    Attributes:
        local: host and port for libav.
    """

    def __init__(
        self, name: str, limit: float, listener: socket.socket | None, connect: Callable[[], socket.socket]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._limit = limit
        self._closed = False
        self._client: socket.socket | None = None
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        try:
            self._server = connect()
        except BaseException:
            self._listener.close()
            raise
        self._listener.settimeout(_ACCEPT_SECONDS)
        self.local = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """End the connection, and the thread. Idempotent."""
        self._closed = True  # a listener that another process has too is not to be shut down
        for connection in (self._server, self._client):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.join()

    def _accepted(self) -> socket.socket:
        """Libav's connection. Raises OSError: none came, or `close` was called."""
        end = clock.now() + self._limit
        while not self._closed and clock.now() < end:
            with contextlib.suppress(TimeoutError):
                return self._listener.accept()[0]
        raise OSError
