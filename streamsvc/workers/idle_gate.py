"""Idle gate: background model work runs only while no question is in flight."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from streamsvc.core import clock


class IdleGate:
    """Gates background work; shared by all sessions that share a model."""

    def __init__(self) -> None:
        self._questions = 0  # in flight
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: set[asyncio.Timeout] = set()  # of the background work

    @contextlib.contextmanager
    def question_in_flight(self) -> Iterator[None]:
        """Mark a question in flight: running background work gets TimeoutError, and none is started."""
        self._questions += 1
        self._idle.clear()
        while self._running:
            self._running.pop().reschedule(clock.now())
        try:
            yield
        finally:
            self._questions -= 1
            if not self._questions:
                self._idle.set()

    @contextlib.asynccontextmanager
    async def while_idle(self, patience: float) -> AsyncIterator[None]:
        """Wait until no question is in flight, then run the body; a new question cancels it.

        Args:
            patience: seconds to wait at most.

        Raises:
            TimeoutError: the wait took too long, or a question arrived.
        """
        async with asyncio.timeout(patience):
            while self._questions:  # another may have arrived since the event was set
                await self._idle.wait()
        async with asyncio.timeout(None) as until_question:
            self._running.add(until_question)
            try:
                yield
            finally:
                self._running.discard(until_question)
