"""What a stream holds is given back at its end, and when the client goes, also before the first piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from streamsvc.service.closing_stream import ClosingStream

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


@pytest.mark.parametrize("asked", [0, 1, 2])
async def test_what_a_stream_holds_is_given_back_when_the_client_goes(asked: int) -> None:
    said: list[str] = []
    gone = asyncio.Event()

    async def pieces() -> AsyncGenerator[str, None]:
        try:
            yield "first"
            yield "second"
            await asyncio.Event().wait()
        finally:
            said.append("closed")

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    bodies = 0

    async def send(message: Message) -> None:
        nonlocal bodies
        bodies += message["type"] == "http.response.body"
        if bodies >= asked:
            gone.set()
            await asyncio.Event().wait()  # the client reads no more

    response = ClosingStream(pieces(), lambda: said.append("released"), "text/plain", {})
    async with asyncio.timeout(5):
        await response(SCOPE, receive, send)
    assert said == (["released"] if asked == 0 else ["released", "closed"])
