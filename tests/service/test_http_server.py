"""Connections that send nothing, or are too many, are closed; those in use are not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from streamsvc.core import clock, metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError
from streamsvc.service import http_server
from streamsvc.service.http_server import (
    ACCEPTED_AT_ONCE,
    READ_BYTES,
    Connections,
    Listener,
    protocol_with,
)
from tests.builders.http_server import listening


class Application:
    """Answers, and says of every request that it was authenticated if the path is /known."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/known":
            self.connections.authenticated(scope["client"])
        if scope["path"] == "/slow":
            await asyncio.sleep(0.6)
        headers = [(b"content-length", b"4" if scope["path"] == "/half" else b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": scope["path"] == "/half"})
        if scope["path"] == "/half":
            await receive()


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[int]:
    """An HTTP server with these limits; yields its port."""
    connections = Connections(Limits.model_validate(limits))
    protocol = protocol_with(connections)
    config = uvicorn.Config(Application(connections), http=protocol, lifespan="off", log_config=None)
    async with listening(config) as port:
        yield port


class Client:
    """A connection of a raw client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str) -> bool:
        """Whether a request is answered."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return (await self._line()).endswith(b"200 OK\r\n") and await self._rest()

    async def closed(self) -> bool:
        """Whether the server closes the connection within a second."""
        try:
            async with asyncio.timeout(1):
                return await self.reader.read(1000) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def _line(self) -> bytes:
        try:
            return await self.reader.readline()
        except ConnectionError:
            return b""

    async def _rest(self) -> bool:
        while await self.reader.readline() != b"\r\n":
            pass
        return await self.reader.readexactly(2) == b"ok"

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def test_a_connection_that_sends_no_header_is_closed() -> None:
    before = metrics.connections_refused.labels("header_seconds")._value.get()
    async with serving(header_seconds=0.2) as port:
        silent, slow = await Client.to(port), await Client.to(port)
        for _ in range(2):
            slow.writer.write(b"GET / HT")
            await asyncio.sleep(0.02)
        assert await silent.closed()
        assert await slow.closed()
        await silent.close()
        await slow.close()
    assert metrics.connections_refused.labels("header_seconds")._value.get() == before + 2


async def test_a_request_may_take_longer_than_its_header() -> None:
    async with serving(header_seconds=0.2) as port:
        client = await Client.to(port)
        assert await client.get("/slow")
        assert await client.get("/")
        client.writer.write(b"GET / HTTP/1.1\r\nHo")  # the second header of a kept connection
        assert await client.closed()
        await client.close()


async def test_of_a_body_that_was_answered_already_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_LINGER_SECONDS", 0.5)
    protocols: list[http_server.LimitedProtocol] = []
    made = http_server.LimitedProtocol.connection_made

    def noted(protocol: http_server.LimitedProtocol, transport: asyncio.Transport) -> None:
        protocols.append(protocol)
        made(protocol, transport)

    monkeypatch.setattr(http_server.LimitedProtocol, "connection_made", noted)
    async with serving() as port:
        client = await Client.to(port)
        client.writer.write(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 100_000
        )
        assert (await client._line()).endswith(b"200 OK\r\n")
        assert await client._rest()
        parsed: list[bytes] = []
        monkeypatch.setattr(protocols[0].conn, "receive_data", parsed.append)
        for _ in range(20):
            client.writer.write(b"x" * 100_000)
            await client.writer.drain()
            assert not protocols[0].cycle.body
        assert not protocols[0].conn._receive_buffer  # h11's
        assert await client.closed()
        await client.close()
    assert not parsed
    assert protocols[0].cycle is None  # which knows the protocol: a circle


async def test_what_one_connection_sends_is_read_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    received = http_server.LimitedProtocol.data_received

    def note(self: http_server.LimitedProtocol, data: bytes) -> None:
        sizes.append(len(data))
        received(self, data)

    monkeypatch.setattr(http_server.LimitedProtocol, "data_received", note)
    async with serving() as port:
        client = await Client.to(port)
        client.writer.write(
            b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)
        )
        await client.writer.drain()
        assert await client.reader.readline()
        await client.close()
    assert READ_BYTES // 2 < max(sizes) <= READ_BYTES


async def test_one_address_has_so_many_connections_without_a_token() -> None:
    async with serving(connections_per_address=3) as port:
        known = await Client.to(port)
        assert await known.get("/known")
        others = [await Client.to(port) for _ in range(3)]
        for other in others:
            assert await other.get("/")
        late = await Client.to(port)
        assert await late.closed()
        assert await known.get("/")
        await others[0].close()
        await asyncio.sleep(0.05)
        again = await Client.to(port)  # a place is free
        assert await again.get("/")
        for client in (known, late, again, *others[1:]):
            await client.close()


def test_behind_a_trusted_proxy_are_many_clients() -> None:
    connections = Connections(Limits(connections_per_address=1), frozenset({"192.0.2.9", "198.51.100.0/24"}))
    admitted = [
        connections.admit((host, port), Transport())
        for host in ("192.0.2.1", "192.0.2.9", "198.51.100.7")
        for port in range(3)
    ]
    assert admitted == [True, False, False] + 6 * [True]


async def test_all_addresses_have_so_many_connections() -> None:
    async with serving(connections=16) as port:
        clients = [await Client.to(port) for _ in range(16)]
        for client in clients:
            assert await client.get("/known")
        late = await Client.to(port)
        assert await late.closed()
        for client in (late, *clients):
            await client.close()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n"])
async def test_what_is_no_http_request_has_the_error_body(sent: bytes) -> None:
    async with serving() as port:
        client = await Client.to(port)
        client.writer.write(sent)
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"application/json" in head
        assert json.loads(body)["error"]["code"] == "bad_http"
        await client.close()


def test_some_descriptors_stay_free_for_other_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    assert Connections(Limits())._most == 300 - 256
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert Connections(Limits())._most == 16


class Transport(asyncio.Transport):
    """A transport that notes whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


def test_refused_connections_are_logged_now_and_then_with_their_number(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        connections = Connections(Limits(connections_per_address=1))
        with capture_logs() as lines:
            for port in range(100):
                connections.admit(("192.0.2.1", port), Transport())
            assert [line["count"] for line in lines] == [1]
            await clock.sleep(11)
            connections.admit(("192.0.2.1", 100), Transport())
        assert [line["count"] for line in lines] == [1, 99]
        assert "192.0.2.1" not in str(lines)

    virtual.run(main())


class _Transport(asyncio.Transport):
    closing = False

    def is_closing(self) -> bool:
        return self.closing


def test_one_token_has_so_many_connections_and_they_are_free_again() -> None:
    connections = Connections(Limits(connections_per_token=2))
    transports = [_Transport() for _ in range(4)]
    for port, transport in enumerate(transports):
        assert connections.admit(("192.0.2.1", port), transport)
    for _ in range(2):
        for port in (0, 1):
            connections.authenticated(("192.0.2.1", port), "mallory")
    with pytest.raises(CapacityError) as refused:
        connections.authenticated(("192.0.2.1", 2), "mallory")
    assert refused.value.code == "too_many_of_token"
    connections.authenticated(("192.0.2.1", 2), "alice")
    connections.authenticated(("192.0.2.1", 3), "")
    connections.authenticated(("192.0.2.9", 0), "mallory")  # of a client behind a proxy: not one of ours
    transports[0].closing = True
    connections.authenticated(("192.0.2.1", 3), "mallory")


@pytest.mark.parametrize("path", ["/", "/half"])
async def test_what_is_no_http_after_an_answer_closes_the_connection_without_a_second_one(path: str) -> None:
    async with serving() as port:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        client = await Client.to(port)
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.writer.write(head.encode())
        async with asyncio.timeout(5):
            answer = await client.reader.readuntil(b"ok")
            client.writer.write(b"zz\r\n")
            rest = await client.reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert rest == b""
        assert faults == []
        await client.close()


class CountedListener(Listener):
    """Notes in which pass of the event loop each connection is accepted."""

    passes: list[int]
    now = 0

    def accept(self) -> tuple[socket.socket, object]:
        """See socket.accept."""
        accepted = super().accept()
        self.passes.append(self.now)
        return accepted


async def test_many_that_come_at_once_wait_and_are_accepted_in_parts() -> None:
    handled: asyncio.Queue[None] = asyncio.Queue()

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        handled.put_nowait(None)

    with CountedListener() as listener, contextlib.ExitStack() as clients:
        listener.passes = []
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        for _ in range(100):  # nobody accepts them yet
            clients.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        async with await asyncio.start_server(close, sock=listener, backlog=ACCEPTED_AT_ONCE):
            while len(listener.passes) < 100:
                await asyncio.sleep(0)
                listener.now += 1
            for _ in range(100):
                await handled.get()
    assert max(Counter(listener.passes).values()) < 20
