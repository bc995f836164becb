"""WebSockets of the HTTP server: how fast a client may send, and what becomes of one that does not read.

uvicorn has neither limit: what came in one read (256 KiB, tens of thousands of messages) is parsed in one go,
which stalls every other client, and a socket that is closed with data unsent stays until the peer reads it.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request, Response
from websockets.protocol import State

from streamsvc.core import metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.shared_text import SharedText

ABORT = "streamsvc.abort"  # in the scope's extensions: a function that ends the connection at once
WRITABLE = "streamsvc.writable"  # likewise: whether a message is sent without waiting
_PIECE = 2048  # bytes that are parsed in one go: 340 of the smallest frames, some milliseconds
CLOSE_SECONDS = 5.0  # for the peer to read what is unsent, and to close


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket within limits; see `websocket_with`.

    At most `frames_per_second` frames of any kind are taken, in bursts of a second; more wait unread, in the
    client at last. A client is never cut off for it.
    """

    frames_per_second: ClassVar[int]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn.reject = functools.partial(_reject, self.conn.reject)  # type: ignore[method-assign]
        self._unparsed = bytearray()
        self._credit = float(self.frames_per_second)  # frames that may be taken now
        self._counted_at = self.loop.time()
        self._turn: asyncio.TimerHandle | None = None  # when the next piece is parsed

    def data_received(self, data: bytes) -> None:
        """Take data, a piece at a time."""
        self._unparsed += data
        if self._turn is None and not self.read_paused:
            self._parse()

    def handle_events(self) -> None:
        """Count the frames, and handle them."""
        self._credit -= len(self.conn.events)
        super().handle_events()

    def handle_connect(self, event: Request) -> None:
        """Begin; the application may end the connection at once."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[ABORT] = self.transport.abort
            extensions[WRITABLE] = self.writable.is_set

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what is unread."""
        self._unparsed.clear()
        if self._turn is not None:
            self._turn.cancel()
        super().connection_lost(exc)

    async def receive(self) -> Any:
        """See ASGI. More is parsed once the application has taken what there is."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._plan()
        return message

    async def send(self, message: Any) -> None:
        """See ASGI. A close that the peer does not answer ends in an abort.

        The frame of a SharedText is written as it is: framing is a third of what a subscriber costs.
        """
        text = message.get("text")
        if isinstance(text, SharedText) and self.handshake_complete and self.conn.state is State.OPEN:
            await self.writable.wait()
            if not self.disconnected and not self.close_sent and self.conn.state is State.OPEN:
                self.transport.write(text.frame)
                return
        await super().send(message)
        if message["type"] == "websocket.close" and not self.disconnected:
            self._plan()
            self.loop.call_later(CLOSE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.disconnected:
            self.transport.abort()

    def _parse(self) -> None:
        self._turn = None
        piece = bytes(self._unparsed[:_PIECE])
        del self._unparsed[:_PIECE]
        if piece:
            super().data_received(piece)
        self._plan()

    def _plan(self) -> None:
        """Plan the next piece: others have their turn before, and its frames are allowed; or read on."""
        wait = self._debt()
        if self.disconnected or self.transport.is_closing():
            return
        if not self._unparsed and not wait:
            if not self.read_paused:
                self.transport.resume_reading()
            return
        self.transport.pause_reading()
        if self._turn is None and not self.read_paused:
            if wait:
                metrics.socket_waits.inc()
            self._turn = self.loop.call_later(wait, self._parse)

    def _debt(self) -> float:
        """Seconds until a frame is allowed again."""
        now = self.loop.time()
        most = float(self.frames_per_second)
        self._credit = min(most, self._credit + (now - self._counted_at) * most)
        self._counted_at = now
        return max(0.0, -self._credit) / most


def _reject(reject: Callable[[Any, str], Response], status: Any, text: str) -> Response:
    """Refuse a handshake with the error body; websockets' own is plain text."""
    error = InvalidRequest("This is not a valid WebSocket handshake (RFC 6455)", code="bad_handshake")
    response = reject(status, json.dumps(error.body()))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response


def websocket_with(limits: Limits) -> type[Any]:
    """The protocol class of one server, for `uvicorn.Config(ws=...)`."""
    return type("LimitedWebSocket", (LimitedWebSocket,), {"frames_per_second": limits.frames_per_second})
