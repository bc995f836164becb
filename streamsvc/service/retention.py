"""Retention: ended sessions leave the disk by time and by bytes, and the memory when nobody reads them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import structlog

from streamsvc.core import clock, metrics
from streamsvc.events.store import FAILURES, size_of
from streamsvc.service.auth import root_of
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions

log = structlog.get_logger()
SECONDS = 5.0  # between two sweeps
IDLE_SECONDS = 60.0  # without a reader, after which an ended session leaves the memory
UNSTORED = 200  # ended sessions in memory alone, of a token and those made with it; its oldest go first


async def run(sessions: Sessions) -> None:
    """Sweep from time to time, until cancelled; a sweep that fails is tried again."""
    while True:
        await clock.sleep(SECONDS)
        try:
            await sweep(sessions)
        except FAILURES as error:  # the data folder cannot be read now
            log.error("ended sessions could not be erased", error=type(error).__name__)


async def sweep(sessions: Sessions) -> None:
    """Erase ended sessions that are kept no longer, and close the others' files.

    Those on disk go by time and by bytes, the oldest first; those in memory alone by time, and by how many
    their holder has.
    """
    keep = sessions.shared.settings.store
    ended = [session for session in sessions.by_id.values() if session.ended_at is not None]
    ended.sort(key=lambda session: session.ended_at or 0.0)
    crowded = _crowded(ended)
    for session in ended:
        if session in crowded or clock.now() - (session.ended_at or 0.0) > keep.retention:
            await sessions.erase(session)
        elif _idle(session):
            await _unload(sessions, session)
        elif not session.store.resting:
            await asyncio.to_thread(session.store.rest)
    await sessions.stored.sweep(keep.retention, set(sessions.by_id))
    await erase_over(sessions, keep.bytes)
    metrics.retention_sweeps.inc()


def _crowded(ended: Sequence[Session]) -> set[Session]:
    """Those in memory alone of which their holder has newer ones enough."""
    newer: Counter[str] = Counter()
    found = set()
    for session in reversed(ended):
        if not session.options.stored:
            root = root_of(session.holder)
            newer[root] += 1
            if newer[root] > UNSTORED:
                found.add(session)
    return found


def _idle(session: Session) -> bool:
    """Whether the disk can say all that is known of an ended session, and nobody reads it."""
    if not session.options.stored or session.pushes or session.log.followed or not session.questions.idle:
        return False
    unused = clock.now() - max(session.used_at, session.ended_at or 0.0)
    return unused > IDLE_SECONDS and not _has_more(session)


def _has_more(session: Session) -> bool:
    """Whether models keep of a session what its log does not hold: what they read, vectors of pictures."""
    if session.restored or session.media.state is State.CREATED:
        return False
    roles = session.context.roles
    return roles.reads or roles.vlm is not None or session.settings.see.clip is not None


async def _unload(sessions: Sessions, session: Session) -> None:
    """Leave a session to the disk alone; it is read again when somebody asks for it."""
    used = session.used_at
    found = await sessions.stored.look(session.id)
    unused = session.used_at == used and _idle(session)  # somebody may have come meanwhile
    if found is not None and unused and sessions.by_id.get(session.id) is session:
        del sessions.by_id[session.id]
        sessions.stored.by_id[session.id] = found
    await asyncio.to_thread(session.store.rest)


async def erase_over(sessions: Sessions, most: int) -> None:
    """Erase the oldest ended sessions until the others have at most so many bytes on disk."""
    now, utc = clock.now(), clock.utc()
    by_age: list[tuple[float, str, Path]] = [
        ((utc - found.ended_utc).total_seconds(), name, found.folder)
        for name, found in sessions.stored.by_id.items()
    ]
    by_age += [
        (now - session.ended_at, name, session.store.folder)
        for name, session in sessions.by_id.items()
        if session.ended_at is not None and session.store.folder is not None
    ]
    by_age.sort()
    sizes = await asyncio.to_thread(lambda: [size_of(folder) for _, _, folder in by_age])
    kept = 0
    for (_, name, _), total in zip(by_age, itertools.accumulate(sizes), strict=True):
        session = sessions.by_id.get(name)
        if total <= most:
            kept = total
        if total > most and session is None:
            await sessions.stored.erase(name)
        elif total > most and session is not None and session.ended_at is not None:
            await sessions.erase(session)
    metrics.stored.set(kept)
    metrics.stored_limit.set(most)
