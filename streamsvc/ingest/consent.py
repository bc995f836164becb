"""Consent of the other side (RFC 7675): asked for every few seconds, and over 30 s after the last answer.

aioice waits half a second for an answer and ends the call after six in a row that came later, while media
flows: an event loop that lags by half a second would end every call within 36 s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from aioice.ice import Connection

from streamsvc.core import clock

INTERVAL = (4.0, 6.0)  # seconds between two requests (RFC 7675 section 5.1)
EXPIRY = 30.0  # seconds since the last answer, as there
REPEATS = 2  # of a request: 3.5 s for its answer


def be_patient(connection: Connection, check: Callable[[Connection, int], Awaitable[bool]]) -> None:
    """Ask for consent this way; call it before connecting.

    Args:
        connection: is closed once consent has expired.
        check: asks once, repeats it so many times and returns whether it was answered.
    """
    closing: list[asyncio.Future[None]] = []

    async def query_consent() -> None:
        answered = clock.now()
        while clock.now() - answered < EXPIRY:
            await clock.sleep(random.uniform(*INTERVAL))
            if await check(connection, REPEATS):
                answered = clock.now()
        closing.append(asyncio.ensure_future(connection.close()))  # which waits for the end of this task

    connection.query_consent = query_consent  # type: ignore[method-assign]
