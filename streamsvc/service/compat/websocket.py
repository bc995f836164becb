"""WebSocket helpers of all protocols: credentials, handshake, messages, task groups."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketState

from streamsvc.core.errors import StreamsvcError
from streamsvc.core.types import Grants
from streamsvc.service import rights
from streamsvc.service.compat.audio_session import AudioSession, Event
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.service import Service

_SEND_SECONDS = 10.0  # a client that accepts no message for this long is treated as disconnected


class Idle(StreamsvcError):
    """The client has sent nothing for too long."""

    type, code, status, close_code = "invalid_request_error", "idle", 408, 1001


def admit(service: Service, limiter: RateLimiter, connection: HTTPConnection) -> Grants:
    """Check the permissions and the rate limit of a client that publishes audio.

    Raises:
        Unauthorized, Forbidden, RateLimited.
    """
    grants = rights.check(service.auth, connection)
    limiter.take(rights.counted_as(grants, connection))
    return grants


def _is_fault(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("ASGI callable returned without completing handshake")


async def deny(
    socket: WebSocket,
    error: StreamsvcError,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a handshake with an HTTP error instead of a WebSocket."""
    # uvicorn 0.54 (websockets_sansio_impl.run_asgi) logs every denial response as an application error.
    logging.getLogger("uvicorn.error").addFilter(_is_fault)
    await socket.send_denial_response(
        JSONResponse(dict(body), error.status, error.headers() | dict(headers or {}))
    )


async def receive(socket: WebSocket, seconds: float | None = None) -> str | bytes:
    """The client's next message. `seconds`: to wait for it; None: for ever.

    Raises:
        WebSocketDisconnect: the client disconnected. Idle: no message within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            message = await socket.receive()
    except TimeoutError:
        raise Idle(f"No message was received for {seconds or 0:g} s") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    data = message.get("bytes")
    return data if data is not None else str(message.get("text") or "")


async def send(socket: WebSocket, *messages: Mapping[str, Any]) -> None:
    """Send JSON messages.

    Raises:
        WebSocketDisconnect: the client disconnected, or does not read.
    """
    for message in messages:
        if socket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(1006)
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await socket.send_text(json.dumps(message, ensure_ascii=False, separators=(",", ":")))
        except TimeoutError:
            raise WebSocketDisconnect(1006) from None


async def close(socket: WebSocket, code: int, reason: str = "") -> None:
    """Close the socket if it is open."""
    if (
        socket.application_state is WebSocketState.CONNECTED
        and socket.client_state is WebSocketState.CONNECTED
    ):
        try:
            await socket.close(code, reason)
        except (OSError, WebSocketDisconnect):
            return  # the client disconnected in the meantime


async def accept(
    socket: WebSocket,
    audio: AudioSession,
    subprotocol: str | None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Open the audio session, then accept the socket.

    The session is closed if the client has disconnected by then.

    Raises:
        CapacityError: no session is free; the socket is not accepted.
    """
    await audio.open()
    try:
        await socket.accept(subprotocol, headers)
    except BaseException:
        await audio.close()
        raise


async def forward_events(
    audio: AudioSession, socket: WebSocket, translate: Callable[[Event], Sequence[Mapping[str, Any]]]
) -> None:
    """Send the translated events of an audio session until the service ends the session.

    Raises:
        SessionOver, SlowSubscriber, WebSocketDisconnect.
    """
    while True:
        for event in await audio.next():
            await send(socket, *translate(event))
            if event["type"] == "session.closed":
                audio.end(event)


async def run_until_first_ends(*works: Coroutine[Any, Any, None]) -> StreamsvcError | None:
    """Run coroutines until the first one ends, then cancel the others.

    Returns the StreamsvcError that ended it, if any. WebSocketDisconnect is a normal end; other exceptions
    are raised.
    """
    failures: list[StreamsvcError] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]

            def cancel_all(_: asyncio.Task[None]) -> None:
                for task in tasks:
                    task.cancel()

            for task in tasks:
                task.add_done_callback(cancel_all)
    except* WebSocketDisconnect:
        pass
    except* StreamsvcError as errors:
        failures += [error for error in errors.exceptions if isinstance(error, StreamsvcError)]
    return failures[0] if failures else None
