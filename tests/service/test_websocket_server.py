"""A WebSocket client that sends without pause waits for its turn, and one that does not read is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect

from streamsvc.core.config import Limits
from streamsvc.core.shared_text import SharedText
from streamsvc.service import websocket_server
from streamsvc.service.websocket_server import ABORT, WRITABLE, websocket_with
from tests.builders.http_server import listening

Talk = Callable[[Receive, Send, Scope], Awaitable[None]]
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PING = b"\x89\x80\0\0\0\0"  # a ping frame of a client, without payload
TEXT = b"\x81\x81\0\0\0\0a"  # a text frame, "a"


@contextlib.asynccontextmanager
async def serving(talk: Talk, **limits: int) -> AsyncIterator[int]:
    """A WebSocket server with these limits; yields its port."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await talk(receive, send, scope)

    protocol = websocket_with(Limits.model_validate(limits))
    config = uvicorn.Config(application, ws=protocol, lifespan="off", log_config=None)
    async with listening(config) as port:
        yield port


async def count_messages(got: list[float], receive: Receive) -> None:
    while (await receive())["type"] == "websocket.receive":
        got.append(asyncio.get_running_loop().time())


@pytest.mark.parametrize("frame", [PING, TEXT])
async def test_frames_over_the_limit_wait_unread_and_are_not_lost(frame: bytes) -> None:
    got: list[float] = []

    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        await count_messages(got, receive)

    async with serving(talk, frames_per_second=40) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        begun = asyncio.get_running_loop().time()
        writer.write(frame * 1800 + TEXT)  # 340 frames are parsed in one go
        await asyncio.sleep(0.5)
        if frame is TEXT:
            assert 40 <= len(got) <= 400, len(got)
        else:
            assert not got, "the text behind the pings came at once"
        writer.transport.abort()
        assert asyncio.get_running_loop().time() - begun < 30


async def test_what_is_within_the_limit_comes_whole_and_in_order() -> None:
    sizes: list[int] = []

    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            sizes.append(len(message["text"]))
            await send({"type": "websocket.send", "text": str(len(sizes))})

    async with serving(talk) as port, connect(f"ws://127.0.0.1:{port}/", max_size=None) as client:
        wanted = [1, 5000, 0, 300_000, 2048, 7]
        for size in wanted:
            await client.send("x" * size)
        assert [await client.recv() for _ in wanted] == [str(n + 1) for n in range(len(wanted))]
        assert sizes == wanted


async def test_one_that_sends_without_pause_does_not_stall_the_loop() -> None:
    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        await count_messages([], receive)

    async with serving(talk, frames_per_second=10**9) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        pieces: list[int] = []
        feed = WebSocketsSansIOProtocol.data_received
        with pytest.MonkeyPatch.context() as patch:

            def fed(self: Any, data: bytes) -> None:
                pieces.append(len(data))
                feed(self, data)

            patch.setattr(WebSocketsSansIOProtocol, "data_received", fed)
            writer.write(PING * 20_000)
            while sum(pieces) < 20_000 * len(PING):  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.01)
        assert max(pieces) <= 2048, "one turn of the loop took more"
        writer.transport.abort()


async def test_of_what_may_not_be_parsed_yet_hardly_more_is_read() -> None:
    """What a client sends on waits at the client, not in our memory."""

    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        await count_messages([], receive)

    async with serving(talk, frames_per_second=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PING * (64_000_000 // len(PING)))
        left = [writer.transport.get_write_buffer_size()]
        while len(left) < 20 or left[-1] < left[-20]:  # the kernel's buffers take some of it at first
            await asyncio.sleep(0.02)
            left.append(writer.transport.get_write_buffer_size())
        writer.transport.abort()
    assert left[-1] > 32_000_000


async def test_a_closed_socket_whose_peer_does_not_read_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_server, "CLOSE_SECONDS", 0.2)
    transports: list[Any] = []

    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        transports.append(scope["extensions"][ABORT].__self__)
        transports[0].set_write_buffer_limits(2**30)
        await send({"type": "websocket.send", "bytes": bytes(8 << 20)})
        await send({"type": "websocket.close", "code": 4008})

    async with serving(talk) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, UPGRADE)
            async with asyncio.timeout(5):
                while not transports or transports[0]._sock:  # noqa: ASYNC110  # nothing tells of its end
                    await asyncio.sleep(0.02)


async def test_shared_and_plain_texts_come_in_order_and_a_reader_that_stops_holds_them_back() -> None:
    sent: list[int] = []
    large = SharedText("x" * 100_000)

    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        await send({"type": "websocket.send", "text": SharedText("one")})
        await send({"type": "websocket.send", "text": "two"})
        await send({"type": "websocket.send", "text": SharedText("three")})
        await receive()
        with contextlib.suppress(OSError):
            while len(sent) < 1000:
                await send({"type": "websocket.send", "text": large})
                sent.append(scope["extensions"][WRITABLE]())

    async with serving(talk) as port:
        client = await connect(f"ws://127.0.0.1:{port}/", compression=None, max_size=None, max_queue=1)
        assert [await client.recv() for _ in range(3)] == ["one", "two", "three"]
        await client.send("more")
        await asyncio.sleep(0.5)
        assert 1 < len(sent) < 1000 and not sent[-1], "it waits until the client reads"
        assert await client.recv() == large
        client.transport.abort()


@pytest.mark.parametrize("line", [b"Sec-WebSocket-Key: short", b"Sec-WebSocket-Version: 7"])
async def test_a_handshake_that_is_none_is_refused_with_the_error_body(line: bytes) -> None:
    async def talk(receive: Receive, send: Send, scope: Scope) -> None:
        pytest.fail("accepted")

    async with serving(talk) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name = line.partition(b":")[0]
        writer.write(b"\r\n".join(line if one.startswith(name) else one for one in UPGRADE.split(b"\r\n")))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.split()[1] == b"400"
        assert b"application/json" in head
        assert json.loads(body)["error"]["code"] == "bad_handshake"
        writer.close()
        await writer.wait_closed()
