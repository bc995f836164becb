"""Sessions of other nodes, followed here: whatever reads a session reads them as if they lived on this node.

A followed session is a `Session` that is never run. Its store, in memory, is filled with the shared log, its
timeline with what that holds, and both go on with the log. Nothing of it is written here; what changes a
session goes to its owner (`forwarding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import Row, SharedSession
from streamsvc.core import clock, metrics
from streamsvc.core.errors import CapacityError, ClusterUnavailable
from streamsvc.core.options import SessionOptions
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.events.replay import translations_of, units_of
from streamsvc.events.store import Store, StoredQuestion
from streamsvc.events.stored import StoredSession, described
from streamsvc.events.subscription import Entry
from streamsvc.service.broadcast_ids import name_of
from streamsvc.service.media_input import State
from streamsvc.service.session import Session, SharedResources
from streamsvc.service.shared_directory import SharedDirectory, started, state_after
from streamsvc.service.stored_sessions import fill, restore_answer

log = structlog.get_logger()
MOST = 64  # sessions followed at once; the longest unused makes room
IDLE_SECONDS = 60.0  # without a reader, after which a session is followed no longer
GONE_SECONDS = (
    10.0  # after which what Redis does not have was erased; before, Redis may have lost it for a moment
)
LOOK_SECONDS = 1.0  # between two looks whether the nodes of the followed sessions live
_PAGE = 500  # events read at once


@dataclass(slots=True)
class _Followed:
    """One followed session.

    `originals`: start and end of its captions by id, for translations. `seen_at`: when Redis last had it
    (monotonic seconds).
    """

    session: Session
    task: asyncio.Task[None] | None = None
    originals: dict[str, tuple[float, float]] = field(default_factory=dict)
    seen_at: float = field(default_factory=clock.now)


class RemoteSessions:
    """The sessions of other nodes that somebody reads here.

    Args:
        cluster: this node's part in it.
        tasks: where sessions are followed.

    `directory`: finds sessions of the cluster.
    """

    def __init__(self, cluster: ClusterNode, tasks: BackgroundTasks) -> None:
        self.directory = SharedDirectory(cluster)
        self._cluster = cluster
        self._tasks = tasks
        self._followed: dict[str, _Followed] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    @property
    def by_id(self) -> Mapping[str, Session]:
        """The followed sessions."""
        return {name: followed.session for name, followed in self._followed.items()}

    async def open(self, shared: SharedSession, resources: SharedResources) -> Session:
        """A session of another node, as it is known here; from now on it is followed.

        Raises:
            ClusterUnavailable: Redis does not answer, or holds no events of this session. CapacityError: too
                many are followed.
        """
        lock = self._opening.setdefault(shared.id, asyncio.Lock())
        try:
            async with lock:
                followed = self._followed.get(shared.id)
                if followed is None:
                    followed = await self._follow(shared, resources)
        finally:
            if not lock.locked():
                self._opening.pop(shared.id, None)
        followed.session.used_at = clock.now()
        return followed.session

    def held(self, address: str) -> Session | None:
        """A session that is followed already, by its id or name; the newest of a name."""
        named = [one for name, one in self.by_id.items() if address in (name, name_of(name))]
        return max(named, key=lambda session: session.clock.started_utc, default=None)

    async def frame(self, session_id: str, at: float) -> bytes | None:
        """The newest thumbnail of any session at or before session second `at`; None too without Redis."""
        with contextlib.suppress(ClusterUnavailable):
            return await self._cluster.log.frame_at(session_id, at)
        return None

    async def run(self) -> None:
        """Look after the followed sessions, until cancelled."""
        while True:
            await clock.sleep(LOOK_SECONDS)
            with contextlib.suppress(ClusterUnavailable):
                await self.look()

    async def look(self) -> None:
        """Let go of what nobody reads; show as stalled what has lost its node."""
        now = clock.now()
        for name, followed in list(self._followed.items()):
            session = followed.session
            if not session.log.followed and now - session.used_at > IDLE_SECONDS:
                await self.drop(name)
        known = await self._cluster.log.look(list(self._followed)) if self._followed else {}
        for name, followed in list(self._followed.items()):
            shared = known.get(name)
            if shared is not None:
                followed.seen_at = now
            elif now - followed.seen_at >= GONE_SECONDS:
                await self.drop(name)
            if shared is not None and shared.stalled and followed.session.state is State.LIVE:
                media = followed.session.media
                media.show(State.STALLED, media.summary()["tracks"])

    async def drop(self, session_id: str) -> None:
        """Follow a session no longer, and end its subscriptions: it was erased, or lives here now."""
        followed = self._followed.pop(session_id, None)
        if followed is None:
            return
        metrics.cluster_followed.set(len(self._followed))
        if followed.task is not None:
            followed.task.cancel()
            await asyncio.gather(followed.task, return_exceptions=True)
        followed.session.log.cut(moved(session_id))
        await followed.session.questions.close()
        await asyncio.to_thread(followed.session.store.close, purge=False)

    async def close(self) -> None:
        """Follow nothing any more."""
        for name in list(self._followed):
            await self.drop(name)

    # --- following ---

    async def _follow(self, shared: SharedSession, resources: SharedResources) -> _Followed:
        if shared.meta.get("stored") == "0":
            raise ClusterUnavailable(
                "this session is not stored: only the node that it lives on can tell of it"
            )
        await self._make_room()
        rebuilt = await rebuild(self._cluster, shared, resources)
        session = rebuilt.session
        await asyncio.to_thread(_stand, session, shared, rebuilt.found)
        followed = _Followed(session, originals=rebuilt.originals)
        self._followed[shared.id] = followed
        metrics.cluster_followed.set(len(self._followed))
        if not shared.ended:
            followed.task = self._tasks.spawn(self._go_on(followed))
        return followed

    async def _make_room(self) -> None:
        """Drop the longest unused session where there are too many. Raises CapacityError: all are in use."""
        if len(self._followed) < MOST:
            return
        unused = [one.session for one in self._followed.values() if not one.session.log.followed]
        if not unused:
            raise CapacityError(
                f"{MOST} sessions of other nodes are followed here already; ask their nodes (GET /v1/nodes)",
                code="too_many_followed",
            )
        await self.drop(min(unused, key=lambda session: session.used_at).id)

    async def _go_on(self, followed: _Followed) -> None:
        """Take what the session's owner publishes, until the session has ended."""
        session = followed.session
        rows: AsyncGenerator[list[Row], None]
        async with contextlib.aclosing(self._cluster.followers.follow(session.id, session.log.seq)) as rows:
            async for some in rows:
                for row in some:
                    try:
                        await self._take(followed, row)
                    except (ValueError, KeyError, TypeError) as error:  # of another version of ours
                        log.warning("event not understood", session=session.id, error=type(error).__name__)
                if session.state is State.ENDED:
                    return

    async def _take(self, followed: _Followed, row: Row) -> None:
        """Take one event: to the store and the timeline, then to the subscribers."""
        seq, kind, audience, text = row
        session, event = followed.session, json.loads(text + "}")
        if seq:
            session.store.append([row])
            units = [*units_of([event]), *translations_of([event], followed.originals)]
            session.dispatcher.restore(units)
            if kind == "answer.done":
                await self._restore_answer(session, audience, event)
        _show_state(session, kind, event)
        session.log.take(Entry(seq or None, kind, audience, text), str(event["epoch"]))
        if kind == "session.closed":
            await self._end(session)

    async def _restore_answer(self, session: Session, audience: str | None, event: Mapping[str, Any]) -> None:
        """Let an answer be read by whoever may read it."""
        key = (event["question_id"], audience or "")
        with contextlib.suppress(ClusterUnavailable):
            for found in await self._cluster.log.questions(session.id):
                if (found[0], found[1]) == key:
                    asked = StoredQuestion(*found)
                    session.store.put_question(asked)
                    restore_answer(session, asked, audience, event)

    async def _end(self, session: Session) -> None:
        """Stand as an ended session from now on."""
        meta: Mapping[str, str] = {}
        with contextlib.suppress(ClusterUnavailable):
            meta = await self._cluster.log.meta(session.id)
        session.store.put_meta(**meta)
        session.restore(described(session.store, Path(session.id), clock.utc()), 0.0)
        await session.log.end()


def moved(session_id: str) -> ClusterUnavailable:
    """Why subscriptions of a session end here: they may resume, at this node too."""
    return ClusterUnavailable(f"{session_id} is followed here no longer: resume", code="moved")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A session made of the shared log; it stands nowhere yet, and is not run.

    `found`: what its events say of it. `originals`: start and end of its captions, by their ids.
    """

    session: Session
    found: StoredSession
    originals: dict[str, tuple[float, float]]


async def rebuild(
    cluster: ClusterNode, shared: SharedSession, resources: SharedResources, folder: Path | None = None
) -> Rebuilt:
    """Make a session of the shared log, with a store of its own.

    Args:
        cluster: where it is read.
        shared: what is known of it.
        resources: what sessions share here.
        folder: of the store of a session that goes on here; None: it is followed, and kept in memory.

    Raises:
        ClusterUnavailable; CapacityError: the store cannot be written.
    """
    keep = resources.settings.store
    store = Store(folder, events=keep.events, frames=keep.frames, sync=keep.sync)
    try:
        after = 0
        while rows := await cluster.log.read(shared.id, after, _PAGE):
            await asyncio.to_thread(store.append, rows)
            after = rows[-1][0]
        for asked in await cluster.log.questions(shared.id):
            store.put_question(StoredQuestion(*asked))
        store.put_meta(**shared.meta)
        found = described(store, Path(shared.id), clock.utc())
        session = Session(shared.id, resources, store, options_of(shared.meta))
        session.holder = shared.meta.get("holder", "")
        going_on = folder is not None and not shared.ended
        originals = await asyncio.to_thread(functools.partial(fill, session, found, going_on=going_on))
    except BaseException:
        await asyncio.to_thread(store.close, purge=folder is not None)
        raise
    return Rebuilt(session, found, originals)


def options_of(meta: Mapping[str, str]) -> SessionOptions:
    """The options of a session as its owner has told them; defaults where it has not."""
    try:
        return SessionOptions.from_json(meta["options"])
    except (ValueError, KeyError, TypeError):
        return SessionOptions()


def _stand(session: Session, shared: SharedSession, found: StoredSession) -> None:
    """Let a session stand as the one that another node has."""
    if shared.ended:
        session.restore(found, max(0.0, (clock.utc() - found.ended_utc).total_seconds()))
        return
    session.restored = True
    session.clock.resume(started(shared))
    session.log.resume(found.epoch, found.seq, ended=False)
    session.questions.end()
    session.watches.close()
    state = "created"
    for _, kind, _, text in session.store.read(0, found.seq + 1, -1):
        if kind.startswith("session."):
            state = state_after(state, kind, json.loads(text + "}").get("tracks"))
    session.media.show(State.STALLED if shared.stalled else State(state), found.tracks)


def _show_state(session: Session, kind: str, event: Mapping[str, Any]) -> None:
    """Follow the state and the tracks of a session on another node; its end: see `session.closed`."""
    if not kind.startswith("session.") or kind == "session.closed":
        return
    tracks = event.get("tracks")
    state = State(state_after(session.media.state.value, kind, tracks))
    session.media.show(state, session.media.summary()["tracks"] if tracks is None else tracks)
