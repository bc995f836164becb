"""The time in which no session answers a question: what nobody waits for is done in it, and given up as soon as somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from streamsvc.core import clock


class IdleGate:
    """One for all sessions that share a model."""

    def __init__(self) -> None:
        self._questions = 0  # at work
        self._quiet = asyncio.Event()  # there are none
        self._quiet.set()
        self._begun: set[asyncio.Timeout] = set()  # what is being done in it

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """While this is entered a question is at work. What was being done gets TimeoutError, and nothing is begun."""
        self._questions += 1
        self._quiet.clear()
        while self._begun:
            self._begun.pop().reschedule(clock.now())
        try:
            yield
        finally:
            self._questions -= 1
            if not self._questions:
                self._quiet.set()

    @contextlib.asynccontextmanager
    async def lasting(self, patience: float) -> AsyncIterator[None]:
        """Wait for it; the body has it until somebody asks.

        Args:
            patience: seconds that it is waited for, at most.

        Raises:
            TimeoutError: it has not come, or somebody has asked.
        """
        async with asyncio.timeout(patience):
            while self._questions:  # another may have come since it was quiet
                await self._quiet.wait()
        async with asyncio.timeout(None) as until_asked:
            self._begun.add(until_asked)
            try:
                yield
            finally:
                self._begun.discard(until_asked)
