"""Relays RTSP over TCP between libav and a host whose address was checked.

libav resolves names itself, connects wherever a redirect sends it, and opens UDP ports. So it is given an
address on loopback, behind which this thread passes on what the checked host says, and nothing that would
make libav leave: a redirect ends the connection and is told.

    libav  <-- rtsp://127.0.0.1:PORT -->  RtspRelay  <-- TCP or TLS -->  the checked address
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from streamsvc.core import host_policy
from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.ingest.relay import Relay
from streamsvc.ingest.source_policy import Place

HEAD_BYTES = 64 << 10  # security limit: of a message's header
BODY_BYTES = 1 << 20  # security limit: of its body
# As libav reads: it drops each CR, ends a header at an empty line, and takes a line of $ for a packet.
_BLANK = re.compile(rb"\r*\n")
_END = re.compile(rb"\n\r*\n")
_LENGTH = re.compile(rb"\ncontent-length:([^\n]*)", re.IGNORECASE)
_NUMBER = re.compile(rb"[ \t]*(\d{1,7})[ \t]*")
_STATUS = re.compile(rb"^[ \t]*RTSP/[^ \t\n]*[ \t]+([^ \t\n]*)", re.MULTILINE)
_LOCATION = re.compile(rb"\nlocation:[ \t]*(\S+)", re.IGNORECASE)


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
            end = _BLANK.match(rest) or _END.search(rest)
            if end is None:
                if len(rest) > HEAD_BYTES:
                    raise NotRtsp
                return None
            size = end.end() + _body_length(bytes(rest[: end.end()]).replace(b"\r", b""))
        return size if size is not None and len(rest) >= size else None


def _body_length(head: bytes) -> int:
    """Bytes behind a header, which is without CR. Raises NotRtsp where libav might take another number."""
    told = _LENGTH.findall(head)
    number = _NUMBER.fullmatch(told[0]) if told else None
    if b"\0" in head or head.startswith(b"$") or b"\n$" in head or len(told) > 1 or (told and not number):
        raise NotRtsp
    length = int(number[1]) if number else 0
    if length > BODY_BYTES:
        raise NotRtsp
    return length


class RtspRelay(Relay):
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
        super().__init__("rtsp", limit, listener, lambda: _connected(place, limit, private_urls))
        self.error: StreamsvcError | None = None
        self._place = place
        parts = urlsplit(place.url)
        user, at, authority = parts.netloc.rpartition("@")
        self.url = parts._replace(scheme="rtsp", netloc=f"{user}{at}{self.local}").geturl()
        self._ours = f"rtsp://{self.local}".encode()
        self._theirs = f"{place.scheme}://{authority}".encode()
        self.start()

    def run(self) -> None:
        """Pass on both directions until one ends."""
        with contextlib.suppress(OSError, NotRtsp), self._server, self._listener:
            self._client = self._accepted()
            self._listener.close()
            with self._client:
                self._relay(self._client, self._server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        asked, answered = Messages(), Messages()
        client.settimeout(None)  # libav may rest: `close` wakes what waits here
        with selectors.DefaultSelector() as selector:
            for connection in (client, server):
                selector.register(connection, selectors.EVENT_READ)
            while True:
                pending = isinstance(server, ssl.SSLSocket) and server.pending() > 0
                ready = [server] if pending else [key.fileobj for key, _ in selector.select()]
                if client in ready:
                    data = client.recv(1 << 16)
                    server.settimeout(self._limit)
                    for message in asked.feed(data):
                        server.sendall(self._named(message))
                else:
                    server.settimeout(0.0)  # what came may be TLS's own
                    try:
                        data = server.recv(1 << 16)
                    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        continue
                    for message in answered.feed(data):
                        self._check(message)
                        client.sendall(message)
                if not data:
                    return

    def _named(self, message: bytes) -> bytes:
        """A request for the host by its name."""
        line, end, rest = message.partition(b"\n")
        return line.replace(self._ours, self._theirs, 1) + end + rest

    def _check(self, message: bytes) -> None:
        """Refuse an answer that would make libav leave. Raises NotRtsp."""
        if message.startswith(b"$"):
            return
        head = _head(message)  # any line, any number that libav might take for a redirect
        codes = _STATUS.findall(head)
        name = self._place.name
        if any(not re.fullmatch(rb"[1-9]\d\d", code) or code.startswith(b"3") for code in codes):
            where = f" to {host}" if (host := _host(head)) else ""
            self.error = SourceError(
                f"{name} was refused: it redirects{where}, which RTSP sources may not", code="refused"
            )
        elif b"461" in codes:
            self.error = SourceError(
                f"{name} was refused: its server sends by UDP alone, not within the TCP connection",
                code="refused",
            )
        if self.error is not None:
            raise NotRtsp


def _head(message: bytes) -> bytes:
    """The header of a message, without CR."""
    end = _BLANK.match(message) or _END.search(message)
    return (message[: end.end()] if end else message).replace(b"\r", b"")


def _host(head: bytes) -> str:
    """The host that a redirect names; "": none."""
    with contextlib.suppress(ValueError):
        found = _LOCATION.search(head)
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
