"""What the nodes of a cluster keep equal: revoked tokens, erased sessions, and the end of lost ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import SharedSession
from streamsvc.cluster.redis_client import Argument, items, number, text
from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, ClusterUnavailable
from streamsvc.service.cluster_sessions import ERASED
from streamsvc.service.revocations import Revocations
from streamsvc.service.sessions import Sessions
from streamsvc.service.shared_directory import started
from streamsvc.service.takeover import Life, Takeover

log = structlog.get_logger()
LOST_SECONDS = 5.0  # between two looks of any node for lost sessions; with more nodes each looks less often
_PAGE = 200  # sessions that are looked at in one round trip
_MOST = 10_000  # sessions that are looked through at once


class ClusterUpkeep:
    """Keeps this node equal to the others.

    Args:
        cluster: this node's part in the cluster.
        sessions: of this node.
        revoked: tokens that are valid no longer, here.
        takeover: closes lost sessions.
    """

    def __init__(
        self, cluster: ClusterNode, sessions: Sessions, revoked: Revocations, takeover: Takeover
    ) -> None:
        self._cluster = cluster
        self._sessions = sessions
        self._revoked = revoked
        self._takeover = takeover
        self._version = -1  # of the revocations in Redis, as last read
        self._known: Mapping[str, float] = {}  # those that Redis has
        self._erased_at = 0  # Redis' milliseconds up to which erased sessions were read
        self._looked_at = clock.now()

    async def run(self) -> None:
        """Keep equal with each heartbeat, until cancelled."""
        while True:
            try:
                await self.share_revocations()
                await self.erase()
                period = LOST_SECONDS * max(1, len(self._cluster.nodes))
                if clock.now() - self._looked_at > period:
                    self._looked_at = clock.now()
                    await self.close_lost()
            except ClusterUnavailable:
                self._version = -1  # all is read again
            await clock.sleep(self._cluster.settings.heartbeat_seconds)

    # --- revoked tokens ---

    async def share_revocations(self) -> None:
        """Tell the others what was revoked here, and take what they have revoked.

        Raises ClusterUnavailable.
        """
        redis = self._cluster.redis
        revoked, versioned = redis.key("revoked"), redis.key("revoked", "version")
        version = number(await redis.run("GET", versioned))
        now = clock.utc().timestamp()
        if version != self._version:
            found = items(await redis.run("ZRANGEBYSCORE", revoked, now, "+inf", "WITHSCORES"))
            others = {
                text(one): float(text(until)) for one, until in zip(found[::2], found[1::2], strict=True)
            }
            await asyncio.to_thread(self._take_revocations, others)
            self._known = others
            self._version = version
        ours = {one: until for one, until in self._revoked.all().items() if until > now}
        if new := {one: until for one, until in ours.items() if one not in self._known}:
            pairs: list[Argument] = [part for one, until in new.items() for part in (until, one)]
            commands: list[list[Argument]] = [
                ["ZREMRANGEBYSCORE", revoked, "-inf", now],
                ["ZADD", revoked, *pairs],
                ["INCR", versioned],
            ]
            await redis.pipeline(commands, atomic=True)
            self._known = {**self._known, **new}

    def _take_revocations(self, others: Mapping[str, float]) -> None:
        try:
            self._revoked.merge(others)
        except CapacityError as error:
            log.error("a revocation of another node cannot be kept", code=error.code)

    # --- erased sessions ---

    async def erase(self) -> None:
        """Erase what was erased at other nodes. Raises ClusterUnavailable."""
        redis = self._cluster.redis
        found = items(
            await redis.run("ZRANGEBYSCORE", redis.key(ERASED), self._erased_at, "+inf", "WITHSCORES")
        )
        for name, at in zip(map(text, found[::2]), map(text, found[1::2]), strict=True):
            self._erased_at = max(self._erased_at, int(float(at)))
            session = self._sessions.by_id.get(name)
            if session is not None and session.ended_at is not None:
                await self._sessions.erase(session)
            await self._sessions.stored.erase(name)

    async def forget_stale(self) -> None:
        """Leave sessions to the cluster that were cut off here, and have not ended or have gone on there.

        Those stay of which this node's disk holds more than Redis. Raises ClusterUnavailable.
        """
        stored = self._sessions.stored
        names = list(stored.by_id)
        for first in range(0, len(names), _PAGE):
            known = await self._cluster.log.look(names[first : first + _PAGE])
            for name, shared in known.items():
                own = stored.by_id.get(name)
                # One event more is the end that was found missing when the disk was read.
                if (
                    own is not None
                    and shared.seq >= own.seq - 1
                    and (not shared.ended or shared.seq > own.seq)
                ):
                    await stored.erase(name)

    # --- lost sessions ---

    async def close_lost(self) -> None:
        """Close sessions whose node has died and whose publisher has not come back in time.

        Those of a node that answers stay: it has lost Redis alone, and tells of them once it is back. Raises
        ClusterUnavailable.
        """
        if not self._cluster.up:
            return  # it was away: the others may not have told yet that they live
        before: int | None = None
        lives: dict[str, Life] = {}  # of nodes, each asked once
        for _ in range(_MOST // _PAGE):
            ids = await self._cluster.log.recent(_PAGE, before)
            known = await self._cluster.log.look(ids) if ids else {}
            now = await self._cluster.registry.now()
            for shared in known.values():
                if not shared.stalled or not self._is_over(shared, now):
                    continue
                node = shared.meta.get("node", "")
                if node not in lives:
                    lives[node] = await self._takeover.life_of(shared)
                if lives[node] is not Life.ALIVE:
                    await self._takeover.close_lost(shared)
            if len(ids) < _PAGE or not known:
                return
            before = min(_started_ms(shared) for shared in known.values())

    def _is_over(self, shared: SharedSession, now: int) -> bool:
        """Whether its publisher has had its time to come back; one without a heartbeat has just begun.

        While Redis was away no node could renew a lease: the time begins when it is back.
        """
        renewed = float(shared.meta.get("renewed") or _started_ms(shared))
        renewed = max(renewed, self._cluster.registry.back)
        patience = self._sessions.shared.settings.ingest.resume_seconds
        return now - renewed > (patience + self._cluster.settings.lease_seconds) * 1000


def _started_ms(shared: SharedSession) -> int:
    return round(started(shared).timestamp() * 1000)
