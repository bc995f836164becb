"""A role whose engine runs in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from streamsvc.core import clock
from streamsvc.core.errors import DeadlineMissed
from streamsvc.core.roles import Payload
from streamsvc.workers.framing import error_from, error_payload


class LocalRole:
    """The contract of a worker without a process; each op runs in a thread."""

    def __init__(self, engine: Any) -> None:
        self.ops = engine.ops

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        try:
            async with asyncio.timeout(deadline_in_s):
                (result,) = await asyncio.to_thread(self.ops[op].run, [payload])
        except TimeoutError:
            raise DeadlineMissed(f"{op} did not answer in time") from None
        if isinstance(result, Exception):
            raise error_from(error_payload(result))
        return dict(result)

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        deadline = clock.now() + deadline_in_s
        items = self.ops[op].run(payload)
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            if clock.now() > deadline:
                raise DeadlineMissed(f"{op} did not answer in time")
            yield item
