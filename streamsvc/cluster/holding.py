"""What a node holds of one session: its claim, and its place in the lists of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import inf

from streamsvc.cluster.records import Claim, Owner
from streamsvc.cluster.registry import Registry
from streamsvc.cluster.shared_log import Fenced, SharedLog
from streamsvc.core import clock


class Holding:
    """The claim of one session. Every coroutine raises ClusterUnavailable.

    Args:
        session: its id.
        registry: of claims.
        log: with the lists.
        claim: that is held already; None: the first `claimed` makes it.
    """

    def __init__(self, session: str, registry: Registry, log: SharedLog, claim: Claim | None) -> None:
        self.claim = claim
        self._session = session
        self._registry = registry
        self._log = log
        self._entered_at = -inf

    async def claimed(self) -> Claim:
        """The claim. Raises Fenced: another node has it."""
        if self.claim is None:
            found = await self._registry.claim(self._session)
            if isinstance(found, Owner):
                if found.node != self._registry.node:
                    raise Fenced
                found = Claim(self._session, found)  # ours: Redis had made it, and its reply came too late
            self.claim = found
        return self.claim

    async def release(self) -> None:
        """Give the claim back, if there is one."""
        if self.claim is not None:
            await self._registry.release(self.claim)

    @property
    def listed(self) -> bool:
        """Whether the lists hold the session for a while yet."""
        return clock.now() - self._entered_at < self._registry.keep_ms / 4000

    async def enter(self, facts: Mapping[str, str]) -> None:
        """Have it listed. After its facts are written: what is listed without any is taken for gone."""
        started = datetime.fromisoformat(facts["started_utc"])
        await self._log.enter(self._session, round(started.timestamp() * 1000), facts.get("name") or None)
        self._entered_at = clock.now()

    def forgotten(self) -> None:
        """Note that Redis has lost its data: it is to be listed again."""
        self._entered_at = -inf
