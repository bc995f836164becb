"""Ephemeral events of one session on their way to followers at other nodes; none waits long."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from streamsvc.cluster.contact import CopyTools
from streamsvc.cluster.records import Claim, Row
from streamsvc.cluster.shared_log import Fenced
from streamsvc.core import metrics
from streamsvc.core.errors import ClusterUnavailable

WAITING = 64  # ephemeral events; the oldest are dropped


class LiveRows:
    """Sends rows as they come, several at once where Redis is slower than they.

    Args:
        tools: of the node.
        fenced: is called where another node owns the session.
    """

    def __init__(self, tools: CopyTools, fenced: Callable[[], None]) -> None:
        self._tools = tools
        self._fenced = fenced
        self._rows: deque[Row] = deque()
        self._sending: asyncio.Task[None] | None = None

    def put(self, claim: Claim, row: Row) -> None:
        """Send a row soon."""
        if len(self._rows) >= WAITING:
            self._rows.popleft()
            metrics.cluster_dropped.labels("ephemeral").inc()
        self._rows.append(row)
        if self._sending is None or self._sending.done():
            self._sending = self._tools.spawn(self._send(claim))

    async def _send(self, claim: Claim) -> None:
        while self._rows:
            rows = list(self._rows)
            self._rows.clear()
            if not self._tools.contact.up:
                metrics.cluster_dropped.labels("ephemeral").inc(len(rows))
                continue
            try:
                await self._tools.log.write([self._tools.log.live(claim, rows)])
            except ClusterUnavailable:
                metrics.cluster_dropped.labels("ephemeral").inc(len(rows))
                self._tools.contact.lost()
            except Fenced:
                self._fenced()
                return

    async def sent(self) -> None:
        """Wait until all is sent."""
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def stop(self) -> None:
        """Send nothing more."""
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
