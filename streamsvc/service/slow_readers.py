"""Clients that do not read: their connection is aborted, whatever door they came through.

An ASGI middleware. A close handshake would wait for the very client that does not answer. Between two parts
all others have their turn: uvicorn waits for no client whose buffers have room, so that viewers who ask for a
long past would hold the event loop until they have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamsvc.core import metrics
from streamsvc.service.websocket_server import ABORT, WRITABLE


class SlowReaders:
    """The middleware: one part of a response or one message must be taken within `seconds`.

    Over it the connection is aborted. What serves it is told that the client has disconnected, and frees
    what it holds.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        extensions = scope.get("extensions") or {}
        abort: Callable[[], None] | None = extensions.get(ABORT)
        writable: Callable[[], bool] = extensions.get(WRITABLE, bool)  # by default not
        if abort is None:
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if writable():
                await send(message)
            else:
                try:
                    async with asyncio.timeout(self._seconds):
                        await send(message)
                except TimeoutError:
                    metrics.connections_refused.labels("slow_reader").inc()
                    abort()
            await asyncio.sleep(0)

        await self._app(scope, receive, sending)
