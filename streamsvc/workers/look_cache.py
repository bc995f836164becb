"""LRU cache of `look` results: the vision models run once per picture, not per session."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from cachetools import LRUCache

from streamsvc.core import clock, metrics
from streamsvc.core.errors import DeadlineMissed
from streamsvc.core.roles import Payload, Role


class LookCache:
    """The role `see` of all sessions, with cached `look` results; other ops pass through.

    The key is a hash of the JPEG bytes, so only identical pictures share a result, and a hit needs no
    decoding. Failures are not cached.

    Args:
        see: the worker's role.
        most: cached results; one takes 6 KB, 9 KB with a vision-text model's embedding.
    """

    def __init__(self, see: Role, most: int = 256) -> None:
        self._see = see
        self._results: LRUCache[bytes, Payload] = LRUCache(most)
        self._running: dict[bytes, asyncio.Event] = {}  # set when the call has ended, well or not

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role. Concurrent looks at one picture wait for the first, and retry if it fails."""
        if op != "look":
            return await self._see.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
        deadline = clock.now() + deadline_in_s
        key = hashlib.blake2b(payload["jpeg"], digest_size=16).digest()
        while (running := self._running.get(key)) is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await running.wait()
            except TimeoutError:
                raise DeadlineMissed(
                    "another session's look at the same picture did not end in time"
                ) from None
        if (cached := self._results.get(key)) is not None:
            metrics.looks.labels("hit").inc()
            return dict(cached)
        metrics.looks.labels("miss").inc()
        self._running[key] = ended = asyncio.Event()
        try:
            result = await self._see.call(
                op, payload, deadline_in_s=deadline - clock.now(), affinity=affinity
            )
            self._results[key] = result
            return dict(result)
        finally:
            del self._running[key]
            ended.set()

    def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role; not cached."""
        return self._see.stream(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
