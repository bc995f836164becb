"""Credentials in whatever way they come, silence that is noticed, events told, and tasks that end together."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from streamsvc.core.errors import InvalidRequest
from streamsvc.service.compat.audio_session import Line, SessionOver
from streamsvc.service.compat.websocket import Idle, bearer, hear, opened, tell, together


@pytest.mark.parametrize(
    ("headers", "offered"),
    [
        ({"authorization": "Bearer KEY"}, ()),
        ({"authorization": "bearer KEY"}, ()),
        ({"authorization": "Token KEY"}, ()),
        ({}, ("realtime", "openai-insecure-api-key.KEY")),
        ({}, ("token", "KEY")),
        ({}, ("bearer", "KEY")),
    ],
)
def test_a_key_is_found_wherever_a_client_puts_it(headers: dict[str, str], offered: tuple[str, ...]) -> None:
    assert bearer(headers, offered) == {"authorization": "Bearer KEY"}


def test_what_is_no_key_is_no_credential_and_host_and_origin_are_kept() -> None:
    headers = {"host": "h", "origin": "o", "authorization": "Basic eDp5", "cookie": "c"}
    assert bearer(headers) == {"host": "h", "origin": "o"}
    assert bearer({}, ("realtime",)) == {}
    assert bearer({}, ("streamsvc.v1", "KEY")) == {}


class Client:
    """A socket whose messages are put in by the test."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)

    async def receive(self) -> dict[str, Any]:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


def test_messages_are_text_or_bytes_and_silence_is_noticed(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gone = {"type": "websocket.disconnect", "code": 1001}
        client = cast(
            WebSocket,
            Client(
                {"type": "websocket.receive", "text": "a"}, {"type": "websocket.receive", "bytes": b""}, gone
            ),
        )
        assert await hear(client, 5.0) == "a"
        assert await hear(client, 5.0) == b""
        with pytest.raises(WebSocketDisconnect):
            await hear(client, 5.0)
        with pytest.raises(Idle):
            await hear(client, 5.0)

    virtual.run(main())


class Talk:
    """A line of which the test says what comes."""

    def __init__(self, *batches: list[dict[str, Any]]) -> None:
        self._batches = list(batches)
        self.held = 0

    async def open(self) -> None:
        self.held += 1

    async def close(self) -> None:
        self.held -= 1

    async def next(self) -> list[dict[str, Any]]:
        return self._batches.pop(0)

    def over(self, event: dict[str, Any]) -> None:
        if event["reason"] != "flushed":
            raise SessionOver("over")


async def test_a_client_that_has_gone_at_the_handshake_leaves_no_session_behind() -> None:
    class Gone:
        async def accept(self, *_: Any) -> None:
            raise WebSocketDisconnect(1006)

    line = Talk()
    with pytest.raises(WebSocketDisconnect):
        await opened(cast(Line, line), cast(WebSocket, Gone()), None)
    assert line.held == 0


async def test_events_are_told_until_the_service_ends_the_session() -> None:
    class Open:
        application_state = WebSocketState.CONNECTED

        def __init__(self) -> None:
            self.sent: list[Any] = []

        async def send_text(self, text: str) -> None:
            self.sent.append(json.loads(text))

    flushed, going = {"type": "session.flushed"}, {"type": "session.closed", "reason": "shutdown"}
    line, client = Talk([{"type": "a"}, flushed], [{"type": "b"}, going, {"type": "never"}]), Open()
    with pytest.raises(SessionOver):
        await tell(cast(Line, line), cast(WebSocket, client), lambda event: [{"kind": event["type"]}])
    assert [message["kind"] for message in client.sent] == ["a", "session.flushed", "b", "session.closed"]


def test_tasks_end_together_and_the_error_of_the_first_is_told(virtual: asyncio.Runner) -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("forever")

    async def fails(error: Exception) -> None:
        raise error

    async def returns() -> None:
        return

    async def main() -> None:
        error = InvalidRequest("no")
        assert await together(forever(), fails(error)) is error
        assert await together(forever(), returns()) is None
        assert await together(forever(), fails(WebSocketDisconnect(1001))) is None
        with pytest.raises(ExceptionGroup):
            await together(forever(), fails(ValueError("a fault of ours is not swallowed")))

    virtual.run(main())
    assert ended == ["forever"] * 4
