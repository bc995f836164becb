"""What is written is written in turn; what the disk refuses is kept, as much as the store would keep."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from streamsvc.core import metrics
from streamsvc.events.event_writer import EventWriter
from streamsvc.events.store import Store
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
