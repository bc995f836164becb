"""An event is shown once it is stored, in its order, and many share one wait for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streamsvc.core import clock, metrics
from streamsvc.events import group_commit
from streamsvc.events.group_commit import GROUP_SECONDS, GroupCommit
from streamsvc.events.subscription import Entry


class Disk:
    """Takes a second for each group. `log`: what was stored and shown, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[str, list[str]]] = []
        self.groups = GroupCommit(self.store, self.show)

    def show(self, entry: Entry) -> None:
        self.log.append(("shown", [entry.text]))

    async def store(self, entries: Sequence[Entry]) -> None:
        await clock.sleep(1.0)
        self.log.append(("stored", [entry.text for entry in entries]))

    def put(self, *texts: str) -> None:
        for text in texts:
            self.groups.put(Entry(int(text) if text.isdigit() else None, "pong", None, text))


def test_events_are_stored_in_groups_and_shown_in_order_after_that(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        disk = Disk()
        disk.put("a", "1", "b", "2")
        assert disk.log == [("shown", ["a"])], "nothing was before it"
        began = clock.now()
        await clock.sleep(0.5)
        disk.put("3", "c")
        assert len(disk.log) == 1
        await disk.groups.drain()
        first = [("stored", ["1", "2"]), *[("shown", [text]) for text in ("1", "b", "2")]]
        assert disk.log[1:] == [*first, ("stored", ["3"]), ("shown", ["3"]), ("shown", ["c"])]
        assert clock.now() - began < 2.0 + 3 * GROUP_SECONDS
        disk.put("d")
        assert disk.log[-1] == ("shown", ["d"])
        await disk.groups.drain()

    virtual.run(main())


def test_the_wait_for_a_group_is_short() -> None:
    assert GROUP_SECONDS <= 0.05


def test_a_disk_that_hangs_costs_ephemeral_events_and_no_durable_ones(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MOST", 3)

    async def main() -> None:
        before = metrics.events_dropped.labels("pong")._value.get()
        disk = Disk()
        disk.put("1", "a", "2", "b", "c", "3")
        await disk.groups.drain()
        assert [text for what, [*text] in disk.log if what == "shown"] == [["1"], ["a"], ["2"], ["3"]]
        assert metrics.events_dropped.labels("pong")._value.get() - before == 2

    virtual.run(main())


def test_events_that_do_not_gather_are_stored_at_once_and_those_that_come_meanwhile_together(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        disk = Disk()
        disk.groups = GroupCommit(disk.store, disk.show, gather=0)
        began = clock.now()
        disk.put("1")
        await clock.sleep(0.5)
        disk.put("2", "a", "3")
        await disk.groups.drain()
        assert [texts for what, texts in disk.log if what == "stored"] == [["1"], ["2", "3"]]
        assert clock.now() - began == 2.0

    virtual.run(main())
