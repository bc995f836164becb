"""What is written is written in turn; what the disk refuses is kept, as much as the store would keep."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamsvc.core import metrics
from streamsvc.events.event_writer import EventWriter, Row, RowSource
from streamsvc.events.store import Store, StoredQuestion
from streamsvc.events.subscription import Entry


class FullDisk(Store):
    """A store whose writes fail while `full`."""

    full = True

    def append(self, events: Iterable[tuple[int, str, str | None, str]]) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().append(events)


def entry(seq: int) -> Entry:
    return Entry(seq, "caption.final", None, f'{{"n":{seq}')


async def test_nothing_is_written_out_of_turn_and_the_first_failure_is_told_once(tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    store = FullDisk(tmp_path / "s", events=100, frames=1)
    writer = EventWriter("s", store, told.append)
    writer.write_now(entry(1))
    await writer.flush()
    await writer.flush()
    await writer.write_group([entry(2), entry(3)])
    assert [error["error"]["code"] for error in told] == ["store_failed"]
    store.full = False
    writer.write_now(entry(4))
    await writer.write_group([entry(5)])
    assert store.newest() is None, "the first ones wait still"
    await writer.flush()
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2, 3, 4, 5]
    await writer.write_group([entry(6), entry(7)])
    assert store.newest() == (7, entry(7).text)
    assert not writer.unwritten
    store.close(purge=True)


async def test_what_is_never_written_is_counted(tmp_path: Path) -> None:
    before = metrics.events_unwritten._value.get()
    store = FullDisk(tmp_path / "s", events=2, frames=1)
    writer = EventWriter("s", store, lambda body: None)
    for seq in range(1, 6):
        writer.write_now(entry(seq))
    await writer.flush()
    assert [one.seq for one in writer.unwritten] == [4, 5]
    writer.give_up()
    assert metrics.events_unwritten._value.get() - before == 5
    store.close(purge=True)


class Copy:
    """Where a session is copied: notes what it is given. `rows`: those of the store at that moment."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.source: RowSource | None = None
        self.log: list[tuple[Any, ...]] = []

    def begin(self, source: RowSource) -> None:
        self.source = source

    async def write(self, rows: Sequence[Row]) -> None:
        stored = [row[0] for row in self.store.read(0, 99, 99)]
        self.log.append(("write", [row[0] for row in rows], stored))

    def show(self, row: Row) -> None:
        self.log.append(("show", row))

    def put_frame(self, at: float, jpeg: bytes) -> None:
        self.log.append(("frame", at, jpeg))

    def put_question(self, asked: tuple[str, str, str, str | None, str]) -> None:
        self.log.append(("question", asked))

    def put_facts(self, **values: str) -> None:
        self.log.append(("facts", values))

    async def end(self) -> None:
        self.log.append(("end", self.store.meta()))


async def test_what_waits_for_the_disk_is_stored_before_it_is_copied(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", events=100, frames=1, sync="power")
    writer, copy = EventWriter("s", store, lambda body: None), Copy(store)
    writer.share(copy)
    await writer.commit([entry(1), entry(2)])
    assert copy.log == [("write", [1, 2], [1, 2])]
    store.close(purge=True)


async def test_what_does_not_wait_is_copied_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", events=100, frames=1)
    writer, copy = EventWriter("s", store, lambda body: None), Copy(store)
    writer.share(copy)
    await writer.commit([entry(1)])
    assert copy.log == [("write", [1], [])], "`write_now` has stored it"
    writer.show(Entry(None, "pong", "me", "{"))
    assert copy.log[-1] == ("show", (0, "pong", "me", "{"))
    store.close(purge=True)


async def test_the_rest_of_a_session_is_copied_once_it_is_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", events=100, frames=1)
    writer, copy = EventWriter("s", store, lambda body: None), Copy(store)
    writer.share(copy)
    await writer.put_frame(1.5, b"jpeg")
    asked = StoredQuestion("q", "", "asker", None, "what?")
    writer.put_question(asked)
    writer.put_facts(options="{}")
    await writer.put_end(ended_utc="now")
    assert copy.log == [
        ("frame", 1.5, b"jpeg"),
        ("question", ("q", "", "asker", None, "what?")),
        ("facts", {"options": "{}"}),
        ("facts", {"ended_utc": "now"}),
        ("end", {"ended_utc": "now"}),
    ]
    assert store.questions() == [asked]
    store.close(purge=True)
    await writer.put_frame(2.5, b"lost")  # it cannot be stored
    assert copy.log[-1][0] == "end"


async def test_a_copy_reads_what_is_stored_and_what_the_disk_has_not_taken(tmp_path: Path) -> None:
    store = FullDisk(tmp_path / "s", events=100, frames=1)
    store.full = False
    writer = EventWriter("s", store, lambda body: None)
    for seq in (1, 2, 3):
        writer.write_now(entry(seq))
    store.full = True
    for seq in (4, 5):
        writer.write_now(entry(seq))
    assert [row[0] for row in await writer.rows(0, 2)] == [1, 2]
    assert [row[0] for row in await writer.rows(2, 9)] == [3]
    assert [row[0] for row in await writer.rows(3, 9)] == [4, 5]
    assert await writer.rows(3, 1) == [(4, "caption.final", None, entry(4).text)]
    assert await writer.rows(5, 9) == []
    store.close(purge=True)
    assert [row[0] for row in await writer.rows(0, 9)] == [4, 5]
