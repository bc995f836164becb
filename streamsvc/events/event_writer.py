"""Writes the durable events of one session to its store, keeps what the disk does not take, and shares it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any, Protocol

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.errors import StreamsvcError
from streamsvc.events.store import FAILURES, Store, StoredQuestion
from streamsvc.events.subscription import Entry

log = structlog.get_logger()
Row = tuple[int, str, str | None, str]  # seq, type, audience, JSON text, as the store has it


class RowSource(Protocol):
    """What one session has stored."""

    async def rows(self, after: int, limit: int) -> list[Row]:
        """Durable rows with seq > `after`, in order, at most `limit`."""
        ...


class SharedCopy(Protocol):
    """Where a session is copied for the other nodes of a cluster (`cluster.session_copy`). Raises nothing."""

    def begin(self, source: RowSource) -> None:
        """Copy what `source` has, from now on."""

    async def write(self, rows: Sequence[Row]) -> None:
        """Copy durable rows before they are shown, in a bounded time."""

    def show(self, row: Row) -> None:
        """Pass on an ephemeral row (seq 0). Does not wait."""

    def put_frame(self, at: float, jpeg: bytes) -> None:
        """Copy a thumbnail. Does not wait."""

    def put_question(self, asked: tuple[str, str, str, str | None, str]) -> None:
        """Copy the fields of a StoredQuestion. Does not wait."""

    def put_facts(self, **values: str) -> None:
        """Copy facts about the session. Does not wait."""

    async def end(self) -> None:
        """Copy the rest, in a bounded time: the session has ended here."""


class EventWriter:
    """Writes the durable events of one session.

    Args:
        session: its id.
        store: where they go.
        tell: takes the error of a first failure, to publish it.

    `unwritten`: events that are kept in memory alone, or that the disk has not taken, in their order; no more
    than the store would keep.
    """

    def __init__(self, session: str, store: Store, tell: Callable[[Mapping[str, Any]], object]) -> None:
        self.unwritten: deque[Entry] = deque()
        self._session = session
        self._store = store
        self._tell = tell
        self._failing = False  # the last write failed
        self._copy: SharedCopy | None = None

    def write_now(self, entry: Entry) -> None:
        """Store an event before anybody sees it, so that none that was seen is lost with this process.

        What is kept in memory alone, and what the disk does not take, waits for `flush`.
        """
        if self._store.folder is not None and not self.unwritten:
            began = clock.now()
            with contextlib.suppress(*FAILURES):
                self._store.append([_row(entry)])
                metrics.stage_latency.labels("store").observe(clock.now() - began)
                self._failing = False
                return
        self.unwritten.append(entry)

    def share(self, copy: SharedCopy) -> None:
        """Copy what is written to other nodes, from now on."""
        self._copy = copy
        copy.begin(self)

    async def commit(self, entries: Sequence[Entry]) -> None:
        """Store events that are shown once this returns: here where they wait for the disk, and elsewhere."""
        if self._store.waits:
            await self.write_group(entries)
        if self._copy is not None:
            await self._copy.write([_row(entry) for entry in entries])

    def show(self, entry: Entry) -> None:
        """Pass an ephemeral event on to other nodes."""
        if self._copy is not None:
            self._copy.show(_row(entry))

    async def rows(self, after: int, limit: int) -> list[Row]:
        """Durable rows with seq > `after`, in order, at most `limit`; none: there are none, or no disk."""
        waiting = list(self.unwritten)
        with contextlib.suppress(*FAILURES):
            if rows := await asyncio.to_thread(self._store.read, after, 1 << 62, limit):
                return rows
        return [_row(entry) for entry in waiting if (entry.seq or 0) > after][:limit]

    async def put_frame(self, at: float, jpeg: bytes) -> None:
        """Store a thumbnail; a first failure is told."""
        if await self.write(self._store.put_frame, at, jpeg) and self._copy is not None:
            self._copy.put_frame(at, jpeg)

    def put_question(self, asked: StoredQuestion) -> None:
        """Keep a question, before its answer is published; what the disk does not take is told with that."""
        with contextlib.suppress(*FAILURES):
            self._store.put_question(asked)
        if self._copy is not None:
            self._copy.put_question(astuple(asked))

    def put_facts(self, **values: str) -> None:
        """Let other nodes know facts about the session."""
        if self._copy is not None:
            self._copy.put_facts(**values)

    async def put_end(self, **values: str) -> None:
        """Store the facts of the session's end: nothing but late answers follows."""
        with contextlib.suppress(*FAILURES):
            await asyncio.to_thread(self._store.put_meta, **values)
        if self._copy is not None:
            self._copy.put_facts(**values)
            await self._copy.end()

    async def write_group(self, entries: Sequence[Entry]) -> None:
        """Store events that wait for the disk; what it does not take waits for `flush`."""
        if self.unwritten or not await self.write(self._store.append, [_row(entry) for entry in entries]):
            self.unwritten.extend(entries)

    async def flush(self) -> None:
        """Write what is not yet written, on a thread; what cannot be written waits for the next call."""
        if self._store.folder is not None:
            with contextlib.suppress(*FAILURES):  # then a write fails too, and tells it
                await asyncio.to_thread(self._store.checkpoint)
        batch = list(self.unwritten)
        if not batch:
            return
        rows = (_row(entry) for entry in batch)
        done = len(batch)
        if not await self.write(self._store.append, rows):
            done = max(0, done - self._store.events)  # the store would have trimmed them
            metrics.events_unwritten.inc(done)
        elif self._failing:
            self._failing = False
            log.info("events can be written again", session=self._session)
        last = batch[done - 1].seq or 0 if done else 0
        while self.unwritten and (self.unwritten[0].seq or 0) <= last:
            self.unwritten.popleft()

    async def write(self, write: Callable[..., None], *arguments: Any) -> bool:
        """Write on a thread; returns whether that succeeded.

        The first failure of a row is reported as an event.
        """
        try:
            await asyncio.to_thread(write, *arguments)
        except FAILURES as error:
            metrics.store_failures.inc()
            if not self._failing:
                self._failing = True
                log.error("events cannot be written", session=self._session, error=type(error).__name__)
                failed = StreamsvcError(
                    "what is published cannot be written to the disk now; it is tried again",
                    code="store_failed",
                )
                self._tell(failed.body())
            return False
        return True

    def give_up(self) -> None:
        """Count and log what was never written: nothing more is tried."""
        if self.unwritten:
            metrics.events_unwritten.inc(len(self.unwritten))
            log.error("events were never written", session=self._session, count=len(self.unwritten))


def _row(entry: Entry) -> Row:
    return entry.seq or 0, entry.type, entry.audience, entry.text
