"""Relays RTMP between libav, which has a network of its own, and a media server that we know.

Only to addresses of ours or of the operator's settings (`rtmp_place`): never one that a stranger names.

    libav  <-- rtmp://127.0.0.1:PORT -->  RtmpRelay  <-- TCP -->  the media server
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from urllib.parse import urlsplit

from streamsvc.core.errors import SourceError
from streamsvc.ingest.relay import Relay
from streamsvc.ingest.source_policy import Place

DEFAULT_PORT = 1935
_PIECE = 1 << 16


def rtmp_place(url: str, name: str) -> Place:
    """The location of a stream that somebody publishes to a media server of ours.

    Args:
        url: rtmp://host:port/application/stream; its last part may be a secret.
        name: for messages.
    """
    parts = urlsplit(url)
    return Place("rtmp", name, url=url, host=parts.hostname or "", port=parts.port or DEFAULT_PORT)


class RtmpRelay(Relay):
    """One connection to a media server, open until `close`.

    Args:
        place: made by `rtmp_place`.
        limit: seconds without an answer after which connecting fails.
        listener: where libav's connection arrives, closed here; None: on this machine's loopback.

    Attributes:
        url: for libav.

    Raises:
        SourceError: "no_answer" (retryable).
    """

    def __init__(self, place: Place, limit: float, listener: socket.socket | None = None) -> None:
        super().__init__("rtmp", limit, listener, lambda: _connected(place, limit))
        self.url = urlsplit(place.url)._replace(netloc=self.local).geturl()
        self.start()

    def run(self) -> None:
        """Pass on both directions until one ends."""
        with contextlib.suppress(OSError), self._server, self._listener:
            self._client = self._accepted()
            with self._client:
                self._relay(self._client, self._server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        for connection in (client, server):
            connection.settimeout(self._limit)  # of sending; what is received is there
        others = {client: server, server: client}
        with selectors.DefaultSelector() as selector:
            for connection in others:
                selector.register(connection, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    connection = key.fileobj  # type: ignore[assignment]
                    data = connection.recv(_PIECE)
                    if not data:
                        return
                    others[connection].sendall(data)


def _connected(place: Place, limit: float) -> socket.socket:
    try:
        return socket.create_connection((place.host, place.port), timeout=limit)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
        raise SourceError(
            f"{place.name} does not answer ({reason})", code="no_answer", retryable=True
        ) from None
