"""A session whose node has died goes on at this one: claimed, made of the shared log, and run.

Its epoch goes on where the shared log holds all that anybody has seen. Where something may be missing it has
a new one, so that subscribers are told, and read it from its beginning.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from enum import Enum
from urllib.parse import urlsplit

import httpx
import structlog

from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import Claim, Owner, SharedSession
from streamsvc.core import clock, metrics
from streamsvc.core.errors import ClusterUnavailable, Conflict
from streamsvc.core.types import Gap, Speech
from streamsvc.events.log import closed_row
from streamsvc.events.stored import INTERRUPTED
from streamsvc.service.cluster_membership import facts_of
from streamsvc.service.remote_sessions import Rebuilt, RemoteSessions, rebuild
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions
from streamsvc.service.shared_directory import started

log = structlog.get_logger()
NODE_LOST = "node_lost"  # reason of the gap in the captions
_PROBE_SECONDS = 1.0  # for an answer of a node that may be dead


class Life(Enum):
    """What a node without heartbeats is found to be."""

    DEAD = "dead"  # nothing listens there
    ALIVE = "alive"  # it answers: it has lost Redis alone
    UNKNOWN = "unknown"  # it may live, and show events, where the network between is down


class Takeover:
    """Takes sessions over, and closes those that nobody takes over.

    Args:
        sessions: of this node, where they go on.
        cluster: this node's part in the cluster.
        remote: sessions of other nodes that are followed here.
    """

    def __init__(self, sessions: Sessions, cluster: ClusterNode, remote: RemoteSessions) -> None:
        self._sessions = sessions
        self._cluster = cluster
        self._remote = remote

    async def take_over(self, shared: SharedSession) -> Session:
        """Let a session go on here whose node has died. It waits for its publisher, who has come back.

        Raises:
            Conflict: it lives at another node, which answers, or was faster. ClusterUnavailable.
            CapacityError: the disk is full; then another node may take it over.
        """
        if shared.meta.get("stored") == "0":
            raise ClusterUnavailable(
                "this session was not stored, so it has ended with its node; publish again in a moment",
                code="not_stored",
            )
        life = await self.life_of(shared)
        if life is Life.ALIVE:
            raise Conflict(
                "this session has a publisher at a node that has lost touch with the cluster; try again",
                code="already_publishing",
            )
        claim = await self._claimed(shared)
        whole = claim.whole and life is Life.DEAD
        try:
            rebuilt = await self._rebuilt(shared)
            session = self._run(shared, claim, rebuilt, whole=whole)
        except BaseException:
            await asyncio.shield(self._cluster.registry.release(claim))
            raise
        kept = "kept" if whole else "new"
        metrics.cluster_takeovers.labels(kept).inc()
        log.info("session taken over", session=session.id, epoch=kept, seq=rebuilt.found.seq)
        return session

    async def adopt(self, shared: SharedSession) -> Session:
        """Have an ended session here whose node is gone, so that questions about it are answered.

        Raises:
            Conflict, ClusterUnavailable, CapacityError: as of `take_over`.
        """
        claim = await self._claimed(shared)
        try:
            rebuilt = await self._rebuilt(shared)
            session = rebuilt.session
            age = max(0.0, (clock.utc() - rebuilt.found.ended_utc).total_seconds())
            session.restore(rebuilt.found, age)
            self._share(session, claim)
        except BaseException:
            await asyncio.shield(self._cluster.registry.release(claim))
            raise
        self._sessions.adopt(session)
        return session

    async def life_of(self, shared: SharedSession) -> Life:
        """What the node of a session is found to be whose lease has run out."""
        node = shared.meta.get("node", "")
        # One that has heartbeats and has not renewed the claim is another process: the session died with it.
        # While Redis is away, and until this node has heard of the others again, none of that is known.
        if self._cluster.up and node in self._cluster.nodes:
            return Life.DEAD
        return await probe(shared.meta.get("address", ""), node)

    async def close_lost(self, shared: SharedSession) -> bool:
        """Close a session whose node has died and whose publisher has not come back; whether it was ours to.

        Raises:
            ClusterUnavailable.
        """
        claim = await self._cluster.registry.claim(shared.id)
        if isinstance(claim, Owner):
            return False
        shared_log = self._cluster.log
        seconds = lost_at(shared)
        facts = {"ended_utc": clock.stamp(clock.utc()), "seconds": str(round(seconds, 3))}
        calls = [shared_log.facts(claim, facts)]
        if shared.meta.get("stored") != "0":
            seq = await shared_log.newest(shared.id)
            epoch = shared.meta.get("epoch") or secrets.token_hex(4)
            row = closed_row(shared.id, epoch, seq + 1, round(seconds, 3), INTERRUPTED)
            calls.insert(0, shared_log.append(claim, seq, [row]))
        await shared_log.write(calls)
        await self._cluster.registry.release(claim)
        log.info("session of a lost node closed", session=shared.id)
        return True

    async def _claimed(self, shared: SharedSession) -> Claim:
        claim = await self._cluster.registry.claim(shared.id)
        if isinstance(claim, Owner) and claim.node == self._cluster.name:
            # Redis' answer to an earlier try came too late: what it said of the log is lost with it.
            return Claim(shared.id, claim, whole=False)
        if isinstance(claim, Owner):
            raise Conflict(
                "this session goes on at another node just now; try again", code="already_publishing"
            )
        return claim

    async def _rebuilt(self, shared: SharedSession) -> Rebuilt:
        folder = self._sessions.shared.settings.data_dir / shared.id
        self._sessions.stored.by_id.pop(shared.id, None)  # an older copy, of when it lived here
        stale = self._sessions.by_id.pop(shared.id, None)
        if stale is not None:
            await stale.questions.close()
            await asyncio.to_thread(stale.store.close, purge=True)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return await rebuild(self._cluster, shared, self._sessions.shared, folder)

    def _run(self, shared: SharedSession, claim: Claim, rebuilt: Rebuilt, *, whole: bool) -> Session:
        """Let a rebuilt session go on; no await between its claim's last check and here."""
        session, found = rebuilt.session, rebuilt.found
        session.clock.resume(started(shared))
        session.log.resume(found.epoch if whole else secrets.token_hex(4), found.seq, ended=False)
        session.media.take_over(found.tracks)
        session.went_on = True
        self._share(session, claim)
        self._sessions.adopt(session)
        if "audio" in found.tracks:
            _tell_gap(session, lost_at(shared) or found.seconds)
        return session

    def _share(self, session: Session, claim: Claim) -> None:
        session.log.share(self._cluster.copy_of(session.id, facts_of(session), claim, session.log.seq))


def _tell_gap(session: Session, lost: float) -> None:
    """Tell what will never be captioned: from what was open when the node was lost until now."""
    since, now = session.dispatcher.open_speech.since, session.clock.position()
    if since is not None:
        session.dispatch(Speech(session.id, "main", max(since, lost), clock.now(), active=False))
    begin = lost if since is None else since
    if now > begin:
        session.dispatch(Gap(session.id, "main", begin, clock.now(), begin, now, NODE_LOST))


def lost_at(shared: SharedSession) -> float:
    """Session seconds of the last heartbeat of the node that a session was lost with."""
    renewed = float(shared.meta.get("renewed") or 0.0) / 1000
    return max(0.0, renewed - started(shared).timestamp()) if renewed else 0.0


async def probe(address: str, node: str) -> Life:
    """Whether a node that has no heartbeat lives all the same, as its address tells."""
    url = urlsplit(address)
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            port = url.port or (443 if url.scheme == "https" else 80)
            _, writer = await asyncio.open_connection(url.hostname, port)
            writer.close()
            return Life.ALIVE if await _named(address) == node else Life.UNKNOWN
    except ConnectionRefusedError:
        return Life.DEAD
    except (OSError, ValueError):  # a TimeoutError is an OSError
        return Life.UNKNOWN


async def _named(address: str) -> str:
    """The name that the node at an address tells; "": none."""
    transport = httpx.AsyncHTTPTransport(trust_env=False)
    try:
        response = await transport.handle_async_request(httpx.Request("GET", f"{address}/healthz"))
        told = json.loads(await response.aread())
        return str(told.get("node", ""))
    except (httpx.TransportError, httpx.InvalidURL, ValueError, AttributeError):
        return ""
    finally:
        await transport.aclose()
