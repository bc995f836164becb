"""Credentials, idle clients, the handshake, forwarded events, and tasks that end together."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from streamsvc.core.errors import InvalidRequest
from streamsvc.service.compat.audio_session import AudioSession, SessionOver
from streamsvc.service.compat.websocket import (
    Idle,
    accept,
    forward_events,
    receive,
    run_until_first_ends,
)


class Client:
    """A socket that receives the given messages."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)

    async def receive(self) -> dict[str, Any]:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


def test_a_message_is_text_or_bytes_and_an_idle_client_raises(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gone = {"type": "websocket.disconnect", "code": 1001}
        client = cast(
            WebSocket,
            Client(
                {"type": "websocket.receive", "text": "a"}, {"type": "websocket.receive", "bytes": b""}, gone
            ),
        )
        assert await receive(client, 5.0) == "a"
        assert await receive(client, 5.0) == b""
        with pytest.raises(WebSocketDisconnect):
            await receive(client, 5.0)
        with pytest.raises(Idle):
            await receive(client, 5.0)

    virtual.run(main())


class FakeAudio:
    """An audio session with the given batches of events."""

    def __init__(self, *batches: list[dict[str, Any]]) -> None:
        self._batches = list(batches)
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    async def next(self) -> list[dict[str, Any]]:
        return self._batches.pop(0)

    def end(self, event: dict[str, Any]) -> None:
        if event["reason"] != "flushed":
            raise SessionOver("over")


async def test_a_client_that_disconnects_at_the_handshake_leaves_no_session() -> None:
    class DisconnectedSocket:
        async def accept(self, *_: Any) -> None:
            raise WebSocketDisconnect(1006)

    audio = FakeAudio()
    with pytest.raises(WebSocketDisconnect):
        await accept(cast(WebSocket, DisconnectedSocket()), cast(AudioSession, audio), None)
    assert audio.opened == 0


async def test_events_are_forwarded_until_the_service_ends_the_session() -> None:
    class OpenSocket:
        application_state = WebSocketState.CONNECTED

        def __init__(self) -> None:
            self.sent: list[Any] = []

        async def send_text(self, text: str) -> None:
            self.sent.append(json.loads(text))

    flushed = {"type": "session.flushed"}
    closed = {"type": "session.closed", "reason": "shutdown"}
    audio = FakeAudio([{"type": "a"}, flushed], [{"type": "b"}, closed, {"type": "never"}])
    socket = OpenSocket()
    with pytest.raises(SessionOver):
        await forward_events(
            cast(AudioSession, audio), cast(WebSocket, socket), lambda event: [{"kind": event["type"]}]
        )
    assert [message["kind"] for message in socket.sent] == ["a", "session.flushed", "b", "session.closed"]


def test_tasks_end_together_and_the_error_of_the_first_is_returned(virtual: asyncio.Runner) -> None:
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
        assert await run_until_first_ends(forever(), fails(error)) is error
        assert await run_until_first_ends(forever(), returns()) is None
        assert await run_until_first_ends(forever(), fails(WebSocketDisconnect(1001))) is None
        with pytest.raises(ExceptionGroup):
            await run_until_first_ends(forever(), fails(ValueError("an internal error is not swallowed")))

    virtual.run(main())
    assert ended == ["forever"] * 4
