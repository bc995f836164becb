"""Idle gate: background model work runs only while no question is in flight.

What runs in `IdleGate.background` is idle-class work: workers are told so with each request
(`idle_class`), and it counts neither for the degradation level nor for admission.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar

from streamsvc.core import clock

_background: ContextVar[bool] = ContextVar("background", default=False)


def idle_class() -> bool:
    """Whether the running task does idle-class work at this moment."""
    return _background.get()


class IdleGate:
    """Admits background work while no question is in flight; one gate for all sessions that share a model."""

    def __init__(self) -> None:
        self._questions = 0  # in flight
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: set[asyncio.Timeout] = set()  # of background work that holds the gate

    @contextlib.contextmanager
    def question(self) -> Iterator[None]:
        """Mark a question as in flight: running background work gets TimeoutError, and none is admitted."""
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
    async def background(self, patience: float) -> AsyncIterator[None]:
        """Wait for an idle moment, then run the body until a question arrives.

        Args:
            patience: seconds to wait for an idle moment, at most.

        Raises:
            TimeoutError: there was no idle moment in time, or a question has arrived.
        """
        async with asyncio.timeout(patience):
            while self._questions:  # one may have arrived between the event and this task's turn
                await self._idle.wait()
        async with asyncio.timeout(None) as until_question:
            self._running.add(until_question)
            token = _background.set(True)
            try:
                yield
            finally:
                _background.reset(token)
                self._running.discard(until_question)
