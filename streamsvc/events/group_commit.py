"""Events that wait for the disk, or for other nodes: stored in groups, then shown, in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from streamsvc.core import clock, metrics
from streamsvc.events.subscription import Entry

GROUP_SECONDS = 0.02  # in which events gather that wait for the disk together
MOST = 4096  # that wait; beyond it ephemeral ones are dropped, durable ones never


class GroupCommit:
    """Stores the durable events of one session before anybody sees them; ephemeral ones keep their places.

    Args:
        store: stores a group, on a thread; never raises but when it is cancelled.
        show: takes each event once it is stored.
        gather: seconds in which events gather; 0: those that come while the ones before are stored.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Entry]], Awaitable[None]],
        show: Callable[[Entry], None],
        gather: float = GROUP_SECONDS,
    ) -> None:
        self._store = store
        self._show = show
        self._gather = gather
        self._waiting: deque[tuple[float, Entry]] = deque()  # each with the monotonic second of its coming
        self._task: asyncio.Task[None] | None = None

    def put(self, entry: Entry) -> None:
        """Store an event and show it, soon."""
        if entry.seq is None and not self._waiting:
            self._show(entry)
            return
        if entry.seq is None and len(self._waiting) >= MOST:
            metrics.events_dropped.labels(entry.type).inc()
            return
        self._waiting.append((clock.now(), entry))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def drain(self) -> None:
        """Wait until all that was put is shown."""
        while self._waiting and self._task is not None:
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        while self._waiting:
            if self._gather:
                await clock.sleep(self._gather)
            group = list(self._waiting)
            await self._store([entry for _, entry in group if entry.seq is not None])
            stored = clock.now()
            for came, entry in group:
                self._waiting.popleft()
                if entry.seq is not None:
                    metrics.stage_latency.labels("store").observe(stored - came)
                self._show(entry)
