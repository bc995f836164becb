"""Requests for the owner of a session: what is passed on, and what is said of an owner that is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streamsvc.core.errors import ClusterUnavailable, StreamsvcError
from streamsvc.core.types import Grants
from streamsvc.service.forwarding import Forwarder
from streamsvc.service.node_signature import HEADER, Forwarded, NodeSignature
from tests.builders.free_ports import free_tcp_port

GRANTS = Grants("t", "talk", frozenset({"ask"}), None, "abcdefghijkl")
ASKED = Forwarded("POST", "/v1/sessions/talk/questions?x=1", b"{}", GRANTS, "192.0.2.7")


@asynccontextmanager
async def owner(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A node that answers so, once; its address, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@asynccontextmanager
async def forwarding() -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(NodeSignature("a" * 32))
    try:
        yield forwarder
    finally:
        await forwarder.close()


async def test_a_request_is_passed_on_without_the_clients_token_and_its_answer_back() -> None:
    answer = b"HTTP/1.1 202 Accepted\r\nLocation: /there\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\n{}"
    headers = {"accept": "text/event-stream", "authorization": "Bearer secret", "cookie": "secret"}
    async with owner(answer) as (address, asked), forwarding() as forwarder:
        response = await forwarder.forward(address, ASKED, headers)
        sent: list[dict[str, object]] = []

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        async def receive() -> dict[str, object]:
            await asyncio.Event().wait()
            return {}

        await response({"type": "http", "method": "POST"}, receive, send)  # type: ignore[arg-type]
    head = asked[0].lower()
    assert head.startswith(b"post /v1/sessions/talk/questions?x=1 ")
    assert b"accept: text/event-stream" in head and HEADER.encode() in head
    assert b"secret" not in head
    assert sent[0]["status"] == 202
    given = dict(sent[0]["headers"])  # type: ignore[call-overload]
    assert given[b"location"] == b"/there" and b"x-other" not in given
    assert b"".join(message.get("body", b"") for message in sent[1:]) == b"{}"  # type: ignore[misc]


async def test_an_owner_that_is_silent_or_errs_is_said_so() -> None:
    async with forwarding() as forwarder:
        with pytest.raises(ClusterUnavailable) as silent:
            await forwarder.forward(f"http://127.0.0.1:{free_tcp_port()}", ASKED, {})
        assert silent.value.code == "owner_unreachable"
        half = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"
        async with owner(half) as (address, _):
            with pytest.raises(ClusterUnavailable):
                await forwarder.message(address, "talk", "{}", GRANTS, "me")
        error = b'{"error": {"type": "t", "code": "c", "message": "m", "retryable": true}}'
        told = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
        async with owner(told) as (address, _):
            with pytest.raises(StreamsvcError) as refused:
                await forwarder.message(address, "talk", "{}", GRANTS, "me")
        found = refused.value
        assert (found.status, found.type, found.code, found.retryable) == (409, "t", "c", True)


async def test_an_answer_to_a_message_is_read_up_to_its_limit() -> None:
    long = b'{"replies": [], "more": "' + b"x" * (1 << 21) + b'"}'
    told = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(long), long)
    async with owner(told) as (address, _), forwarding() as forwarder:
        with pytest.raises(ClusterUnavailable) as refused:
            await forwarder.message(address, "talk", "{}", GRANTS, "me")
        assert refused.value.code == "owner_unreachable"
