"""What all doors of this room do with a WebSocket: credentials, the handshake, events told, and tasks that end together."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketState

from streamsvc.core.errors import StreamsvcError
from streamsvc.core.types import Grants
from streamsvc.service.auth import need
from streamsvc.service.compat.audio_session import Event, Line
from streamsvc.service.rate_limit import Rate
from streamsvc.service.service import Service

OPENAI_KEY = "openai-insecure-api-key."  # + the key, as a WebSocket subprotocol
_SCHEMES = ("bearer", "token")
_SEND_SECONDS = 10.0  # a client that takes no message for so long has gone


class Idle(StreamsvcError):
    """The client has sent nothing for too long."""

    type, code, status, close_code = "invalid_request_error", "idle", 408, 1001


def bearer(headers: Mapping[str, str], offered: Sequence[str] = ()) -> dict[str, str]:
    """The headers that `Auth.grants` reads, whatever way the key came: Bearer, Deepgram's Token, or either subprotocol."""
    plain = {name: headers[name] for name in ("host", "origin") if name in headers}
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() not in _SCHEMES:
        key = next((name.removeprefix(OPENAI_KEY) for name in offered if name.startswith(OPENAI_KEY)), "")
        if not key and len(offered) > 1 and offered[0].lower() in _SCHEMES:
            key = offered[1]
    return plain | ({"authorization": f"Bearer {key.strip()}"} if key.strip() else {})


def admit(
    service: Service,
    rate: Rate,
    connection: Any,
    offered: Sequence[str] = (),
    session: str | None = None,
    *,
    listen: bool = True,
) -> Grants:
    """The grants of a client that wants to send audio, and (`listen`) to have the events.

    Raises:
        Unauthorized, Forbidden, RateLimited.
    """
    grants = service.auth.grants(bearer(connection.headers, offered))
    need(grants, session, "publish")
    if listen:
        need(grants, session, "subscribe")
    rate.take(connection.client.host if connection.client else "")
    return grants


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("ASGI callable returned without completing handshake")


async def deny(
    socket: WebSocket,
    error: StreamsvcError,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a handshake with an error instead of a WebSocket."""
    # uvicorn 0.54 (websockets_sansio_impl.run_asgi) takes every such answer for a fault of ours, and logs it as an error
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    await socket.send_denial_response(
        JSONResponse(dict(body), error.status, error.headers() | dict(headers or {}))
    )


async def hear(socket: WebSocket, seconds: float) -> str | bytes:
    """The client's next message.

    Raises:
        WebSocketDisconnect: it left. Idle: nothing came for `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            message = await socket.receive()
    except TimeoutError:
        raise Idle(f"nothing came for {seconds:g} s") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    data = message.get("bytes")
    return data if data is not None else str(message.get("text") or "")


async def say(socket: WebSocket, *messages: Mapping[str, Any]) -> None:
    """Send messages, unless the client has gone.

    Raises:
        WebSocketDisconnect: it takes nothing any more.
    """
    for message in messages:
        if socket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(1006)
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await socket.send_text(json.dumps(message, ensure_ascii=False, separators=(",", ":")))
        except TimeoutError:
            raise WebSocketDisconnect(1006) from None


async def farewell(socket: WebSocket, code: int, reason: str = "") -> None:
    """Close the socket, if it is open."""
    if (
        socket.application_state is WebSocketState.CONNECTED
        and socket.client_state is WebSocketState.CONNECTED
    ):
        try:
            await socket.close(code, reason)
        except (OSError, WebSocketDisconnect):
            return  # it has gone meanwhile


async def opened(
    line: Line, socket: WebSocket, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Take a session for a line, then accept the socket; whoever has gone by then leaves no session behind.

    Raises:
        CapacityError: there is none; the socket is not accepted.
    """
    await line.open()
    try:
        await socket.accept(subprotocol, headers)
    except BaseException:
        await line.close()
        raise


async def tell(
    line: Line, socket: WebSocket, translate: Callable[[Event], Sequence[Mapping[str, Any]]]
) -> None:
    """Send what a line's events are to the client, until the service ends the session.

    Raises:
        SessionOver, SlowSubscriber, WebSocketDisconnect.
    """
    while True:
        for event in await line.next():
            await say(socket, *translate(event))
            if event["type"] == "session.closed":
                line.over(event)


async def together(*works: Coroutine[Any, Any, None]) -> StreamsvcError | None:
    """Do all until the first has ended, then stop the others. The error that ended them, if it is one to tell."""
    failures: list[StreamsvcError] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]

            def stop(_: asyncio.Task[None]) -> None:
                for task in tasks:
                    task.cancel()

            for task in tasks:
                task.add_done_callback(stop)
    except* WebSocketDisconnect:
        pass  # the client left
    except* StreamsvcError as errors:
        failures += [error for error in errors.exceptions if isinstance(error, StreamsvcError)]
    return failures[0] if failures else None
