"""The client of one role of a worker, however the worker carries its requests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Payload


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for.

    `affinity`: requests with the same one go to the same replica where there are several; "": to any.
    """

    kind: Literal["call", "stream", "probe"]
    role: str
    op: str
    affinity: str = ""


# What is asked, its payload, seconds until it is useless -> its results; closing it early cancels the work.
Send = Callable[[Ask, Payload, float], AsyncGenerator[Payload, None]]


@dataclass(frozen=True, slots=True, weakref_slot=True)  # the router keeps vectors as long as its role
class RoleClient:
    """One role of one worker; implements Role."""

    send: Send
    name: str

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        ask = Ask("call", self.name, op, affinity)
        async with contextlib.aclosing(self.send(ask, payload, deadline_in_s)) as items:
            async for item in items:
                return dict(item)
        raise WorkerError(f"{self.name}.{op} returned no result")

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        ask = Ask("stream", self.name, op, affinity)
        async with contextlib.aclosing(self.send(ask, payload, deadline_in_s)) as items:
            async for item in items:
                yield item
