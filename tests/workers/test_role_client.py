"""A role's client passes on what is asked, and closes what is not read to its end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import pytest

from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Payload
from streamsvc.workers.role_client import Ask, RoleClient


class Sender:
    """Remembers what was sent; yields three items."""

    def __init__(self, items: int = 3) -> None:
        self.sent: list[tuple[Ask, float]] = []
        self.closed = 0
        self._items = items

    async def send(self, ask: Ask, payload: Payload, seconds: float) -> AsyncGenerator[Payload, None]:
        self.sent.append((ask, seconds))
        try:
            for number in range(self._items):
                yield {**payload, "n": number}
        finally:
            self.closed += 1


async def test_a_call_returns_the_first_item_and_closes_the_request() -> None:
    sender = Sender()
    role = RoleClient(sender.send, "hear")
    assert await role.call("vad", {"a": 1}, deadline_in_s=2.0, affinity="s1") == {"a": 1, "n": 0}
    assert sender.sent == [(Ask("call", "hear", "vad", "s1"), 2.0)]
    assert sender.closed == 1


async def test_a_stream_that_is_left_early_closes_the_request() -> None:
    sender = Sender()
    stream = RoleClient(sender.send, "think").stream("generate", {}, deadline_in_s=1.0, affinity="s1")
    async with contextlib.aclosing(stream):  # type: ignore[type-var]
        assert (await anext(stream))["n"] == 0
    assert sender.sent == [(Ask("stream", "think", "generate", "s1"), 1.0)]
    assert sender.closed == 1


async def test_a_call_without_a_result_is_an_error() -> None:
    with pytest.raises(WorkerError, match=r"hear\.vad returned no result"):
        await RoleClient(Sender(items=0).send, "hear").call("vad", {}, deadline_in_s=1.0)
