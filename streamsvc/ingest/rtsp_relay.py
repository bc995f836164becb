"""Relays RTSP over TCP between libav and a host whose address was checked.

libav resolves names itself, connects wherever a redirect sends it, and opens UDP ports. So it is given an
address on loopback, behind which this thread passes on what the checked host says, and nothing that would
make libav leave: a redirect ends the connection and is told.

    libav  <-- rtsp://127.0.0.1:PORT -->  RtspRelay  <-- TCP or TLS -->  the checked address
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from streamsvc.core import clock, host_policy
from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.ingest.source_policy import Place

HEAD_BYTES = 64 << 10  # security limit: of a message's header
BODY_BYTES = 1 << 20  # security limit: of its body
_ACCEPT_SECONDS = 0.1  # after which `close` is looked at
_END = re.compile(rb"\r*\n\r*\n")  # of a header, as libav reads it
_LENGTH = re.compile(rb"^content-length:\s*(\d+)", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(rb"RTSP/[\d.]+\s+(\d{3})")
_LOCATION = re.compile(rb"^location:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


class NotRtsp(Exception):
    """Something else than RTSP, or that libav and we would read differently."""


class Messages:
    """Cuts a stream into RTSP messages and interleaved packets (RFC 2326, 10.12)."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What is whole by now. Raises NotRtsp."""
        self._rest += data
        while (size := self._size()) is not None:
            message = bytes(self._rest[:size])
            del self._rest[:size]
            yield message

    def _size(self) -> int | None:
        """Bytes of the first message; None: it is not whole."""
        rest = self._rest
        if rest[:1] == b"$":
            size = 4 + int.from_bytes(rest[2:4], "big") if len(rest) >= 4 else None
        else:
            end = _END.search(rest)
            if end is None:
                if len(rest) > HEAD_BYTES:
                    raise NotRtsp
                return None
            head = rest[: end.end()]
            if b"\n$" in head:  # to libav a packet in the midst of a header
                raise NotRtsp
            told = _LENGTH.findall(head)
            if told and (len(told) > 1 or len(told[0]) > 7 or int(told[0]) > BODY_BYTES):
                raise NotRtsp
            size = end.end() + (int(told[0]) if told else 0)
        return size if size is not None and len(rest) >= size else None


class RtspRelay(threading.Thread):
    """One connection to a checked host, open until `close`.

    Args:
        place: of the source.
        limit: seconds without an answer after which connecting fails.
        private_urls: security limit: whether hosts of private networks are allowed.
        listener: where libav's connection arrives, closed here; None: on this machine's loopback.

    Attributes:
        url: for libav; it holds the credentials of the source.
        error: what made the relay end the connection; None: nothing did.

    Raises:
        Forbidden: "private_url". SourceError: "no_answer" (retryable).
    """

    def __init__(
        self, place: Place, limit: float, private_urls: bool, listener: socket.socket | None = None
    ) -> None:
        super().__init__(name="rtsp", daemon=True)
        self.error: StreamsvcError | None = None
        self._place = place
        self._limit = limit
        self._closed = False
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        try:
            self._server = _connected(place, limit, private_urls)
        except BaseException:
            self._listener.close()
            raise
        self._listener.settimeout(_ACCEPT_SECONDS)
        self._client: socket.socket | None = None
        parts = urlsplit(place.url)
        user, at, authority = parts.netloc.rpartition("@")
        local = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(scheme="rtsp", netloc=f"{user}{at}{local}").geturl()
        self._ours = f"rtsp://{local}".encode()
        self._theirs = f"{place.scheme}://{authority}".encode()
        self.start()

    def close(self) -> None:
        """End the connection, and the thread. Idempotent."""
        self._closed = True  # a listener that another process has too is not to be shut down
        for connection in (self._server, self._client):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.join()

    def run(self) -> None:
        """Pass on both directions until one ends."""
        with contextlib.suppress(OSError, NotRtsp), self._server, self._listener:
            self._client = self._accepted()
            self._listener.close()
            with self._client:
                self._relay(self._client, self._server)

    def _accepted(self) -> socket.socket:
        """Libav's connection. Raises OSError: none came, or `close` was called."""
        end = clock.now() + self._limit
        while not self._closed and clock.now() < end:
            with contextlib.suppress(TimeoutError):
                return self._listener.accept()[0]
        raise OSError

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        asked, answered = Messages(), Messages()
        for connection in (client, server):
            connection.settimeout(self._limit)
        while True:
            pending = isinstance(server, ssl.SSLSocket) and server.pending() > 0
            ready = [server] if pending else select.select([client, server], [], [])[0]
            for connection in ready:
                data = connection.recv(1 << 16)
                if not data:
                    return
                if connection is client:
                    for message in asked.feed(data):
                        server.sendall(self._named(message))
                else:
                    for message in answered.feed(data):
                        self._check(message)
                        client.sendall(message)

    def _named(self, message: bytes) -> bytes:
        """A request for the host by its name."""
        line, end, rest = message.partition(b"\n")
        return line.replace(self._ours, self._theirs, 1) + end + rest

    def _check(self, message: bytes) -> None:
        """Refuse an answer that would make libav leave. Raises NotRtsp."""
        status = _STATUS.match(message)
        code = int(status[1]) if status else 0
        name = self._place.name
        if 300 <= code < 400:
            where = f" to {host}" if (host := _host(message)) else ""
            self.error = SourceError(
                f"{name} was refused: it redirects{where}, which RTSP sources may not", code="refused"
            )
        elif code == 461:
            self.error = SourceError(
                f"{name} was refused: its server sends by UDP alone, not within the TCP connection",
                code="refused",
            )
        if self.error is not None:
            raise NotRtsp


def _host(message: bytes) -> str:
    """The host that a redirect names; "": none."""
    with contextlib.suppress(ValueError):
        found = _LOCATION.search(message)
        return urlsplit(found[1].decode("ascii", "replace")).hostname or "" if found else ""
    return ""


def _connected(place: Place, limit: float, private_urls: bool) -> socket.socket:
    """A connection to the host, by one of its addresses, all of which were checked."""
    try:
        found = host_policy.addresses(place.host, place.port, private_urls)
    except OSError:
        raise SourceError(f"the host {place.host} is not known", code="no_answer", retryable=True) from None
    reason = "no address"
    for address in found:
        try:
            plain = socket.create_connection((address, place.port), timeout=limit / len(found))
        except OSError as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or "failed"
            continue
        if place.scheme != "rtsps":
            return plain
        context = ssl.create_default_context()
        if not host_policy.is_public(address):  # cameras in private networks have certificates of their own
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            return context.wrap_socket(plain, server_hostname=place.host)
        except OSError as error:
            plain.close()
            reason = f"TLS: {type(error).__name__}"
    raise SourceError(f"{place.name} does not answer ({reason})", code="no_answer", retryable=True)
