"""Writes the durable events of one session to its store, and keeps what the disk does not take."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.errors import StreamsvcError
from streamsvc.events.store import FAILURES, Store
from streamsvc.events.subscription import Entry

log = structlog.get_logger()
Row = tuple[int, str, str | None, str]  # seq, type, audience, JSON text, as the store has it


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
