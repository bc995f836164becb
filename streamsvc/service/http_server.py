"""Connections of the HTTP server: how many there may be, and how long one may take to say what it wants.

uvicorn has neither limit: a client that opens sockets and sends nothing, or a header byte by byte, would keep
a descriptor for ever. Connections that have shown a valid token, and those of trusted proxies, count against
the total alone.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections import Counter
from typing import Any, ClassVar

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamsvc.core import clock, metrics, web_address
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError, InvalidRequest
from streamsvc.service.websocket_server import ABORT

log = structlog.get_logger()
Address = tuple[str, int]
WAITING, ACCEPTED_AT_ONCE = 128, 8  # connections
READ_BYTES = 32 << 10  # read in one go; asyncio's 256 KiB are many for who has no key, and a stall for others
_RESERVED = 256  # descriptors that stay free for sessions, workers and files
_LINGER_SECONDS = (
    2.0  # in which the rest of a body is dropped after its answer, so that the client reads that
)
_DISCARD_INTERVAL = 0.25  # seconds between two reads of such a rest
_LOG_SECONDS = 10.0  # between two lines about refused connections


class Connections:
    """The open connections of one server.

    Args:
        limits: `connections`, `connections_per_address`, `connections_per_token`, `header_seconds`.
        proxies: addresses and networks of trusted proxies, behind which are many clients.
    """

    def __init__(self, limits: Limits, proxies: frozenset[str] = frozenset()) -> None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.header_seconds = limits.header_seconds
        self._most = max(16, min(limits.connections, descriptors - _RESERVED))
        self._most_per_address = limits.connections_per_address
        self._proxies = proxies
        self._open: dict[Address, asyncio.Transport] = {}
        self._anonymous: set[Address] = set()
        self._anonymous_of: Counter[str] = Counter()  # by host
        self._most_per_token = limits.connections_per_token
        self._tokens: dict[Address, str] = {}  # of connections that have shown one
        self._logged_at = -_LOG_SECONDS
        self._refused = 0  # since the last line

    def admit(self, address: Address, transport: asyncio.Transport) -> bool:
        """Count a new connection; False: it is one too many and has been aborted."""
        limit = self._limit_of(address[0])
        if limit:  # closed ones are still among them: to look through all at each connection takes long
            self._forget_closed()
            limit = self._limit_of(address[0])
        if limit:
            return self._refuse(transport, limit)
        self._open[address] = transport
        if not web_address.is_among(address[0], self._proxies):
            self._anonymous.add(address)
            self._anonymous_of[address[0]] += 1
        return True

    def _limit_of(self, host: str) -> str:
        """The limit that one more connection of a host would exceed; "": none."""
        if len(self._open) >= self._most:
            return "total"
        return "address" if self._anonymous_of[host] >= self._most_per_address else ""

    def authenticated(self, address: Address | None, share: str = "") -> None:
        """A request of this connection had a valid token. `share`: whose it is; "": there are no shares.

        Raises:
            CapacityError: the token, with those made with it, has as many connections as it may have.
        """
        if address is None:
            return
        if share and address in self._open and self._tokens.get(address) != share:
            self._forget_closed()
            if list(self._tokens.values()).count(share) >= self._most_per_token:
                metrics.connections_refused.labels("token").inc()
                raise CapacityError(
                    f"this token, with those made with it, has {self._most_per_token} connections already",
                    code="too_many_of_token",
                )
            self._tokens[address] = share
        self._is_known(address)

    def _is_known(self, address: Address) -> None:
        if address in self._anonymous:
            self._anonymous.discard(address)
            self._anonymous_of[address[0]] -= 1
            if not self._anonymous_of[address[0]]:
                del self._anonymous_of[address[0]]

    def ended(self, address: Address, transport: asyncio.Transport) -> None:
        """Forget a connection that has ended, unless a newer one has its address."""
        if self._open.get(address) is transport:
            del self._open[address]
            self._is_known(address)
            self._tokens.pop(address, None)

    def _forget_closed(self) -> None:
        """Forget what is closed. A WebSocket takes its transport over, so no protocol tells of its end."""
        for address, transport in list(self._open.items()):
            if transport.is_closing():
                self.ended(address, transport)

    def _refuse(self, transport: asyncio.Transport, limit: str) -> bool:
        metrics.connections_refused.labels(limit).inc()
        self._refused += 1
        now = clock.now()
        if now - self._logged_at >= _LOG_SECONDS:
            log.warning("connections refused", limit=limit, count=self._refused)
            self._logged_at, self._refused = now, 0
        transport.abort()
        return False


class Listener(socket.socket):
    """A socket on which more connections may wait than are accepted in one go.

    asyncio accepts as many at once as it lets wait: a hundred stalled everything else for 90 ms.
    """

    def listen(self, backlog: int = ACCEPTED_AT_ONCE) -> None:
        """See socket.listen; WAITING connections may wait."""
        super().listen(max(backlog, WAITING))


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP protocol within the limits of `connections`; see `protocol_with`."""

    connections_table: ClassVar[Connections]
    _header_timer: asyncio.TimerHandle | None = None
    _lingers = False  # answered before its body had come: what still comes is dropped

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, and wait for its first request."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # also once it is a WebSocket's
        if self.client is None or self.connections_table.admit(self.client, transport):
            self._await_header()

    def data_received(self, data: bytes) -> None:
        """Pass data on, and wait while the header of a request is incomplete."""
        if self._lingers:
            self.transport.pause_reading()  # read now and then: a fast sender would take the loop's time
            self.loop.call_later(_DISCARD_INTERVAL, self._read_on)
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not None and self.cycle is not before:
            extensions: dict[str, Any] = {ABORT: self.transport.abort}
            self.cycle.scope["extensions"] = extensions  # before its task has begun
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete):
            self._await_header()  # the bytes so far are no whole header
        else:
            self._header_came()

    def on_response_complete(self) -> None:
        """Keep nothing of a body that nobody waits for; uvicorn would hold its first 64 KiB for seconds."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._lingers = True
            self.cycle.body.clear()
            self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The connection is a WebSocket's from now on."""
        self._header_came()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request; uvicorn's own answer is plain text."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer has begun already
            self.transport.close()
            return
        error = InvalidRequest("This is not a valid HTTP/1.1 request", code="bad_http")
        body = json.dumps(error.body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget timers, the request and the transport's callback: all of them reference cycles."""
        self._header_came()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does so for orderly ends alone
        self.cycle = None  # type: ignore[assignment]
        if self.client is not None:
            self.connections_table.ended(self.client, self.transport)
        self.transport._read_ready_cb = None  # type: ignore[attr-defined]  # asyncio's own method of it

    def _await_header(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(
                self.connections_table.header_seconds, self._give_up_header
            )

    def _header_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up_header(self) -> None:
        metrics.connections_refused.labels("header_seconds").inc()
        self.transport.abort()


def protocol_with(connections: Connections) -> type[Any]:
    """The protocol class of one server, for `uvicorn.Config(http=...)`."""
    return type("LimitedProtocol", (LimitedProtocol,), {"connections_table": connections})
