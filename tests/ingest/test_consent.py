"""Consent ends a call 30 s after the last answer, and an answer that is slow is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aioice import stun
from aioice.ice import Connection
from aiortc.mediastreams import AudioStreamTrack

from streamsvc.core import clock
from streamsvc.ingest import aiortc_hooks, consent
from tests.builders.webrtc import publishing


class Closing:
    """A connection that can only be closed."""

    closed: float | None = None
    query_consent: Any = None

    async def close(self) -> None:
        """Note when."""
        self.closed = clock.now()


def asked(
    virtual: asyncio.Runner, answers: Callable[[float], bool], seconds: float
) -> tuple[float | None, int]:
    """After how long the connection was closed, within so many seconds, and how often it asked."""
    count = 0

    async def main() -> float | None:
        connection: Any = Closing()
        begun = clock.now()

        async def check(which: Connection, repeats: int) -> bool:
            nonlocal count
            assert which is connection and repeats > 0
            count += 1
            return answers(clock.now() - begun)

        consent.be_patient(connection, check)
        task = asyncio.ensure_future(connection.query_consent())
        await clock.sleep(seconds)
        task.cancel()
        return None if connection.closed is None else connection.closed - begun

    return virtual.run(main()), count


def test_a_call_whose_other_side_is_gone_ends_after_half_a_minute(virtual: asyncio.Runner) -> None:
    closed, _ = asked(virtual, lambda at: at < 60, 200)
    assert closed == pytest.approx(60 + consent.EXPIRY, abs=2 * consent.INTERVAL[1])


def test_a_call_that_is_answered_now_and_then_goes_on(virtual: asyncio.Runner) -> None:
    closed, count = asked(virtual, lambda at: at % 20 < 6, 600)
    assert closed is None
    assert 600 / consent.INTERVAL[1] - 1 <= count <= 600 / consent.INTERVAL[0]


async def test_a_publisher_s_connection_asks_this_way() -> None:
    async with publishing(AudioStreamTrack()) as call:
        await call.until(lambda: call.frames)
        (connection,) = call.peer._connections
        assert connection.query_consent.__module__ == consent.__name__
        asked = []

        async def request(*_: object, retransmissions: int, **__: object) -> None:
            asked.append(retransmissions)
            raise stun.TransactionTimeout

        for pair in connection._nominated.values():
            pair.protocol.request = request
        assert not await aiortc_hooks.check_consent(connection, 7)
        assert 7 in asked
