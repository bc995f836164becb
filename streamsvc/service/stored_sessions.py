"""Ended sessions that are on disk alone: those of earlier runs. They are read when somebody asks for them.

Sessions of other nodes are read elsewhere: `Elsewhere`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import structlog

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, StreamsvcError
from streamsvc.core.units import Reply
from streamsvc.events.replay import LoggedEvent, answer_of, translations_of, units_of
from streamsvc.events.schema import EVENTS
from streamsvc.events.store import FAILURES, Store, StoredQuestion
from streamsvc.events.stored import StoredSession, last_change, look
from streamsvc.service import broadcast_ids
from streamsvc.service.session import Session, SharedResources

log = structlog.get_logger()
_PAGE = 2000  # events read from the disk at once
_ANSWER = {"question_id"}.union(*EVENTS["answer.done"][1:])  # fields of its body
_UNREADABLE = (*FAILURES, CapacityError, ValueError, KeyError, TypeError)


class Elsewhere(Protocol):
    """What of a cluster finds and erases sessions of other nodes (`cluster_sessions`)."""

    async def open(self, address: str) -> Session | None:
        """A session that does not live here; None: it lives here, or nowhere."""

    async def delete(self, address: str, *, purge: bool) -> str | None:
        """Delete a session that no node has in its hands; None: this node has it, or it is nowhere."""

    async def check_name(self, name: str) -> None:
        """Raise Conflict where a live session of another node has a name, or is getting it now."""

    async def forget(self, session_id: str) -> None:
        """Erase what the cluster keeps of a session of this node."""


class StoredSessions:
    """The sessions of a data folder that are not in memory.

    Args:
        data_dir: parent of the session folders.

    `by_id`: what the list shows of each.
    """

    def __init__(self, data_dir: Path) -> None:
        self.by_id: dict[str, StoredSession] = {}
        self._data_dir = data_dir
        self._reading = asyncio.Lock()  # one log at a time

    async def find_all(self) -> None:
        """Find the sessions of earlier runs; before any session is started."""
        self.by_id = await asyncio.to_thread(self._look_at_all)
        if self.by_id:
            log.info("sessions of earlier runs found", count=len(self.by_id))

    def _look_at_all(self) -> dict[str, StoredSession]:
        found: dict[str, StoredSession] = {}
        for folder in _folders(self._data_dir):
            try:
                found[folder.name] = look(folder)
            except _UNREADABLE as error:
                log.warning("a session cannot be read", session=folder.name, error=type(error).__name__)
        return found

    async def look(self, name: str) -> StoredSession | None:
        """What the list shows of an ended session whose files are there; None: they cannot be read."""
        async with self._reading:
            try:
                return await asyncio.to_thread(look, self._data_dir / name)
            except _UNREADABLE:
                return None

    async def load(self, name: str, shared: SharedResources) -> Session | None:
        """A session with all that its log holds, no longer kept here; None: there is no such session.

        Raises:
            StreamsvcError: "unreadable": its files are broken. It can be erased.
        """
        async with self._reading:
            found = self.by_id.get(name)
            if found is None:
                return None
            keep = shared.settings.store
            store: Store | None = None
            try:
                store = Store(found.folder, events=keep.events, frames=keep.frames)
                session = Session(name, shared, store)
                await asyncio.to_thread(fill, session, found)
            except _UNREADABLE as error:
                if store is not None:
                    await asyncio.to_thread(store.close, purge=False)
                log.error("a session cannot be read", session=name, error=type(error).__name__)
                raise StreamsvcError(
                    "the files of this session cannot be read; it can be erased", code="unreadable"
                ) from None
            if self.by_id.pop(name, None) is None:  # erased meanwhile
                await asyncio.to_thread(store.close, purge=False)
                return None
            age = max(0.0, (clock.utc() - found.ended_utc).total_seconds())
            session.restore(found, age)
            return session

    async def erase(self, name: str) -> None:
        """Erase a session's files, where it is here."""
        found = self.by_id.pop(name, None)
        if found is not None:
            await asyncio.to_thread(shutil.rmtree, found.folder, ignore_errors=True)

    async def sweep(self, retention: float, in_memory: set[str]) -> None:
        """Erase what is older than `retention` seconds, folders that cannot be read included."""
        now = clock.utc()
        for name, found in list(self.by_id.items()):
            if (now - found.ended_utc).total_seconds() > retention:
                await self.erase(name)
        known = in_memory | set(self.by_id)
        await asyncio.to_thread(self._sweep_unreadable, retention, known)

    def _sweep_unreadable(self, retention: float, known: set[str]) -> None:
        for folder in _folders(self._data_dir, unfinished=True):
            with contextlib.suppress(OSError):
                age = (clock.utc() - last_change(folder)).total_seconds()
                if folder.name not in known and age > retention:
                    shutil.rmtree(folder, ignore_errors=True)


def _folders(data_dir: Path, *, unfinished: bool = False) -> Iterator[Path]:
    """The folders of sessions; `unfinished`: those too of which there is the folder alone."""
    if data_dir.is_dir():
        for folder in sorted(data_dir.iterdir()):
            named = unfinished and broadcast_ids.is_id(folder.name) and folder.is_dir()
            if named or (folder / "session.db").is_file():
                yield folder


def fill(session: Session, found: StoredSession, *, going_on: bool = False) -> dict[str, tuple[float, float]]:
    """Put what the session's store holds on its timeline. On a thread: a long log takes seconds.

    `going_on`: see `Dispatcher.restore`. Returns start and end of its captions, by their ids.
    """
    after = 0
    asked = {(question.id, question.audience): question for question in session.store.questions()}
    originals: dict[str, tuple[float, float]] = {}
    while rows := session.store.read(after, found.seq + 1, _PAGE):
        after = rows[-1][0]
        events = [json.loads(row[3] + "}") for row in rows]
        units = [*units_of(events), *translations_of(events, originals)]
        session.dispatcher.restore(units, going_on=going_on)
        for (_, kind, audience, _), event in zip(rows, events, strict=True):
            if kind == "answer.done" and (question := asked.get((event["question_id"], audience or ""))):
                restore_answer(session, question, audience, event)
    session.store.rest()
    return originals


def restore_answer(
    session: Session, question: StoredQuestion, audience: str | None, event: LoggedEvent
) -> None:
    """Let an answer of an earlier run be read by whoever could read it then."""
    if question.reader is not None:
        body = {name: event[name] for name in event if name in _ANSWER}
        session.questions.kept.restore(question.reader, audience, body)
    if "error" not in event:
        told = Reply(question.id, event["at"], 0.0, answer_of(event), audience, question=question.text)
        session.dispatcher.questions.restore(question.asker, told)
