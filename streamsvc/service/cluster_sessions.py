"""Where in the cluster a session lives, and what this node may do with one that does not live here."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import SharedSession
from streamsvc.cluster.redis_client import Argument, text
from streamsvc.core.errors import ClusterUnavailable, Conflict
from streamsvc.events.stored import StoredSession
from streamsvc.service.auth import covers
from streamsvc.service.broadcast_ids import name_of
from streamsvc.service.media_input import State
from streamsvc.service.remote_sessions import RemoteSessions
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions
from streamsvc.service.shared_directory import SharedEntry, standing

ERASED = "erased"  # key of the ids of sessions that were erased, by Redis' milliseconds
_BEGINNING_SECONDS = 3.0  # in which one node alone begins a broadcast of a name
STALLED = "session_stalled"  # code of what a session cannot do whose node has died
# States that a session may be in by what is known without its events: ended, and without a node.
_POSSIBLE = {
    (True, False): {"ended"},
    (False, True): {"stalled"},
    (False, False): {"created", "live", "stalled"},
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session lives.

    `id`: its id, or the address where it leads nowhere. `shared`: what the cluster tells of a session that
    does not live here; None: it lives here, or nowhere. `node`: where this node reaches the one that has it;
    "": none has it. `advertise`: where clients reach that one.
    """

    id: str
    shared: SharedSession | None = None
    node: str = ""
    advertise: str = ""


class ClusterSessions:
    """Finds and reads sessions of the whole cluster.

    Args:
        sessions: of this node.
        cluster: this node's part in it.
        remote: follows sessions of other nodes.
    """

    def __init__(self, sessions: Sessions, cluster: ClusterNode, remote: RemoteSessions) -> None:
        self.remote = remote
        self._sessions = sessions
        self._cluster = cluster

    async def locate(self, address: str) -> Place:
        """Where the session at an address, which is an id or a name, lives.

        Raises:
            ClusterUnavailable: Redis does not answer, and this node knows no such session.
        """
        own_id = self._sessions.resolve(address)
        own = self._sessions.by_id.get(own_id) or self._sessions.stored.by_id.get(own_id)
        if isinstance(own, Session) and own.state is not State.ENDED:
            return Place(own_id)
        try:
            shared = await self.remote.directory.find(address)
        except ClusterUnavailable:
            if own is None:
                raise
            return Place(own_id)
        if shared is None or (own is not None and self._is_ours(own, shared)):
            return Place(own_id)
        holder = shared.owner.node if shared.owner is not None else ""
        if shared.ended:  # who had it last has it on disk
            holder = holder or shared.meta.get("node", "")
        if holder == self._cluster.name:  # an earlier process of this node
            holder = ""
        node, advertise = self._cluster.reach_of(holder), self._cluster.advertise_of(holder)
        return Place(shared.id, shared, node or "", advertise or "")

    def _is_ours(self, own: Session | StoredSession, shared: SharedSession) -> bool:
        """Whether an ended session of this node answers, and not the one that the cluster has found."""
        if own.id != shared.id:
            return _standing(own) > standing(shared)
        elsewhere = shared.owner is not None and shared.owner.node != self._cluster.name
        seq = own.log.seq if isinstance(own, Session) else own.seq
        return not elsewhere and seq >= shared.seq  # else it has gone on at another node

    def is_live_here(self, address: str) -> bool:
        """Whether the session at an address, which is an id or a name, lives on this node."""
        session = self._sessions.by_id.get(self._sessions.resolve(address))
        return session is not None and session.state is not State.ENDED

    async def begin(self, name: str) -> None:
        """Be the one node that begins a broadcast of a name now.

        Raises:
            Conflict: another node begins one. ClusterUnavailable.
        """
        redis = self._cluster.redis
        door, mine = redis.key("door", name), self._cluster.name
        lasts = ("PX", round(_BEGINNING_SECONDS * 1000))
        if await redis.run("SET", door, mine, "NX", *lasts) is not None:
            return
        if text(await redis.run("GET", door)) not in ("", mine):
            raise Conflict("another node begins a broadcast of this name now", code="already_publishing")

    async def check_name(self, name: str) -> None:
        """See Elsewhere. While Redis is away nothing is checked."""
        with contextlib.suppress(ClusterUnavailable):
            place = await self.locate(name)
            if place.shared is not None and not place.shared.ended:
                raise Conflict(f"a live session is named {name!r} already", code="name_taken")
            await self.begin(name)

    async def open(self, address: str) -> Session | None:
        """A session of another node, followed here; None: it lives here, or nowhere.

        Raises:
            ClusterUnavailable, CapacityError: it cannot be followed now.
        """
        try:
            place = await self.locate(address)
        except ClusterUnavailable:
            if (followed := self.remote.held(address)) is not None:
                return followed  # as it was known last
            raise
        if place.shared is None:
            return None
        return await self.remote.open(place.shared, self._sessions.shared)

    async def listed(
        self,
        known: Collection[str],
        granted: str,
        states: Sequence[str],
        count: int,
        before: datetime | None,
    ) -> list[SharedEntry]:
        """The newest sessions of the cluster that this node does not know; none while Redis is away.

        Args:
            known: ids of those that it knows.
            granted: sessions that are shown: as of Grants.
            states: those wanted; empty: all.
            count: of sessions, at most.
            before: they have begun before; None: now.
        """

        def wanted(shared: SharedSession) -> bool:
            possible = _POSSIBLE[shared.ended, shared.stalled]
            fits = not states or bool(possible & {*states})
            return fits and shared.id not in known and covers(granted, shared.id)

        try:
            return await self.remote.directory.listed(wanted, count, before)
        except ClusterUnavailable:
            return []

    async def delete(self, address: str, *, purge: bool) -> str | None:
        """Erase an ended session that no node has in its hands; None: this node has it, or it is nowhere.

        Returns its id. Nodes that still have it on disk erase it with their next heartbeat.
        """
        place = await self.locate(address)
        if place.shared is None:
            return None
        if purge:
            await self.remote.drop(place.id)
            await self.forget(place.id)
        return place.id

    async def forget(self, session_id: str) -> None:
        """Erase what the cluster keeps of a session, and have all nodes do so, those too that are away now.

        Raises:
            ClusterUnavailable: it stays where it is not erased yet.
        """
        redis, registry = self._cluster.redis, self._cluster.registry
        now, erased = await registry.now(), redis.key(ERASED)
        commands: list[list[Argument]] = [
            ["ZREMRANGEBYSCORE", erased, "-inf", now - registry.keep_ms],
            ["ZADD", erased, now, session_id],
        ]
        await redis.pipeline(commands)
        await self._cluster.log.delete(session_id, name_of(session_id))


def stalled(place: Place) -> ClusterUnavailable:
    """Why a session cannot do what its owner alone can: its node has died."""
    return ClusterUnavailable(
        f"the node that {place.id} lives on has died; it goes on once its publisher is back, at any node",
        code=STALLED,
    )


def _standing(own: Session | StoredSession) -> tuple[int, datetime]:
    """As `shared_directory.standing`, of an ended session of this node."""
    if isinstance(own, StoredSession):
        return int(bool(own.tracks)), own.started_utc
    return int(own.media.state is not State.CREATED), own.clock.started_utc
