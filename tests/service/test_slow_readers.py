"""A client that does not read is cut off, at every door, and its place is free."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from streamsvc.service.session import Session
from streamsvc.service.slow_readers import SlowReaders
from streamsvc.service.websocket_server import ABORT, WRITABLE
from tests.builders.service import open_session, serving

SOCKET = (
    "GET /v1/sessions/{}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SSE = "GET /v1/sessions/{}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextlib.asynccontextmanager
async def deaf(place: str, request: str) -> AsyncIterator[None]:
    """A client that sends a request and never reads."""
    host, _, port = place.partition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        await asyncio.get_running_loop().sock_sendall(client, request.encode())
        yield


def publish(session: Session) -> None:
    """Publish a large event: a dozen of them are more than all buffers hold."""
    session.log.emit("caption.partial", {"text": "x" * 500_000, "stable": 0, "words": []})


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("request_text", [SOCKET, SSE])
async def test_a_subscriber_that_never_reads_loses_its_place(
    request_text: str, ended: bool, tmp_path: Path
) -> None:
    limits = {"subscriber_seconds": 0.5, "subscriber_bytes": 64 << 20}
    async with serving(tmp_path, limits=limits) as (service, place, client):
        name = await open_session(client, no_store=True)
        session = service.sessions.find(name)
        async with deaf(place, request_text.format(name)):
            async with asyncio.timeout(10):
                while not session.log._subscribers:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.02)
            for _ in range(20):
                publish(session)
                await asyncio.sleep(0.01)
            if ended:
                await client.delete(f"/v1/sessions/{name}", params={"purge": 1})
            async with asyncio.timeout(10):
                while session.log._subscribers:
                    publish(session)
                    await asyncio.sleep(0.05)


async def test_others_have_their_turn_between_two_parts_though_the_client_takes_all_at_once() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(100):
            await send({"type": "websocket.send", "text": "a"})

    async def receive() -> Message:
        return {"type": "websocket.receive"}

    async def send(message: Message) -> None:
        """Room for all."""

    beside = asyncio.create_task(others())
    scope: Scope = {"type": "websocket", "extensions": {ABORT: lambda: None}}
    await SlowReaders(parts, 10.0)(scope, receive, send)
    beside.cancel()
    assert turns >= 99


@pytest.mark.parametrize("writable", [True, False])
async def test_only_a_message_that_may_wait_has_a_time_limit(writable: bool) -> None:
    aborted: list[bool] = []

    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "a"})

    async def receive() -> Message:
        return {"type": "websocket.receive"}

    async def send(message: Message) -> None:
        await asyncio.sleep(0.05)

    extensions = {ABORT: lambda: aborted.append(True), WRITABLE: lambda: writable}
    await SlowReaders(parts, 0.01)({"type": "websocket", "extensions": extensions}, receive, send)
    assert bool(aborted) is not writable
