"""An LRU cache of `look` results: two sessions that show the same picture encode it once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator

from streamsvc.core import clock, metrics
from streamsvc.core.errors import DeadlineMissed
from streamsvc.core.roles import Payload, Role


class LookCache:
    """The see role of all sessions, where no picture is looked at twice: two sessions with the same feed encode once.

    A picture is known by the hash of the bytes that would be sent: equal bytes are equal pixels, and a hit costs no decoding. Similar
    pictures are never taken for the same. Only `look` is remembered; `read` goes through as it is. A failure is not remembered.

    Args:
        see: the worker's role.
        most: pictures remembered; the least recently asked go first. One takes 6 KB, 9 with a vision-text model's vector.
    """

    def __init__(self, see: Role, most: int = 256) -> None:
        self._see, self._most = see, most
        self._known: OrderedDict[bytes, Payload] = OrderedDict()
        self._asked: dict[bytes, asyncio.Event] = {}  # set when the answer is known, or has failed

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See worker.Role. Who asks while another session's look at the same picture runs waits for that, and asks itself if it fails."""
        if op != "look":
            return await self._see.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
        deadline = clock.now() + deadline_in_s
        key = hashlib.blake2b(payload["jpeg"], digest_size=16).digest()
        while (running := self._asked.get(key)) is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await running.wait()
            except TimeoutError:
                raise DeadlineMissed(
                    "another session's look at the same picture did not end in time"
                ) from None
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            metrics.looks.labels("hit").inc()
            return dict(known)
        metrics.looks.labels("miss").inc()
        self._asked[key] = ended = asyncio.Event()
        try:
            result = await self._see.call(
                op, payload, deadline_in_s=deadline - clock.now(), affinity=affinity
            )
            self._known[key] = result
            if len(self._known) > self._most:
                self._known.popitem(last=False)
            return dict(result)
        finally:
            del self._asked[key]
            ended.set()

    def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See worker.Role; nothing is remembered."""
        return self._see.stream(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
