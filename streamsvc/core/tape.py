"""Tape: what a session's parts tell of all that depends on time, for a recording, or are told by a replay.

Whatever comes from outside (media, clients, models) and every choice that the moment makes (how much of a
queue a stage has taken) passes here, in one order. This base class does nothing: it is the tape of a session
that is neither recorded nor replayed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Role
from streamsvc.core.session_clock import SessionClock

T = TypeVar("T")


class Tape:
    """The tape of one session.

    `decides`: the outcomes come from a recording, so nobody is to act by a timer of his own.
    """

    decides = False

    def begin(self, session_clock: SessionClock, on_stop: Callable[[str], None]) -> None:
        """The session is made. `on_stop`: called with the reason where the recording ends before it."""

    def note(self, kind: str, told: object = None) -> None:
        """Something has come from outside, or was published. Never blocks, never raises."""

    def idle(self, name: str) -> None:
        """A `take` was given up, since nothing had come for so long."""

    async def point(self, name: str) -> None:
        """A stage goes on here, after something whose length the moment decides."""

    async def take(
        self, name: str, ring: Ring[T], most: int | None = None, *, wanted: bool = True
    ) -> list[T]:
        """`ring.take(most)`, or nothing where none is wanted. Raises Closed."""
        return await ring.take(most) if wanted else []

    async def batches(self, name: str, ring: Ring[T], most: int | None = None) -> AsyncIterator[list[T]]:
        """Yield the results of `take` until the ring is closed and empty."""
        with contextlib.suppress(Closed):
            while True:
                yield await self.take(name, ring, most)

    def role(self, name: str, role: Role) -> Role:
        """The role as the session is to call it."""
        return role

    def close(self) -> None:
        """Everything is told. Blocks until it is written; idempotent."""


LIVE = Tape()
