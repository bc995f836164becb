"""A recording is written in order, by a thread, within bounds; nobody waits for the disk."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsvc.evaluation.bundle import records
from streamsvc.service.bundle_writer import BundleWriter
from streamsvc.workers.framing import pack


def record(number: int, size: int = 0) -> bytes:
    return pack({"kind": "point", "number": number, "filler": "x" * size}, {})


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes nothing until the event is set."""
    free, write = threading.Event(), os.write

    def slowly(file: int, data: memoryview) -> int:
        free.wait(10)
        return write(file, data)

    monkeypatch.setattr(os, "write", slowly)
    yield free
    free.set()


async def test_records_are_written_in_order_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(b"of an earlier session")
    path.chmod(0o644)
    writer = BundleWriter(path, 1 << 20, pytest.fail)
    for number in range(50):
        writer.put(record(number))
    writer.close()
    writer.close()
    writer.put(record(51))
    assert [found.fields["number"] for found in records(path)] == list(range(50))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_full_queue_stops_the_recording_and_nobody_waits(
    tmp_path: Path, disk: threading.Event
) -> None:
    stopped: list[str] = []
    writer = BundleWriter(tmp_path / "b", 1 << 40, stopped.append)
    loop = asyncio.get_running_loop()
    for number in range(40):
        writer.put(record(number, 1 << 20))  # a `put` that waited would wait for ever: the disk is not free
    assert not writer.open
    await asyncio.sleep(0)
    assert stopped == ["queue"]
    disk.set()
    await loop.run_in_executor(None, writer.close)
    found = list(records(tmp_path / "b"))
    assert 10 <= len(found) < 20
    assert (found[-1].kind, found[-1].fields) == ("cut", {"reason": "queue"})


async def test_the_limit_of_the_file_stops_the_recording(tmp_path: Path) -> None:
    stopped: list[str] = []
    writer = BundleWriter(tmp_path / "b", 10_000, stopped.append)
    for number in range(40):
        writer.put(record(number, 1000))
    await asyncio.sleep(0)
    writer.close()
    assert stopped == ["limit"]
    assert (tmp_path / "b").stat().st_size < 10_100
    assert list(records(tmp_path / "b"))[-1].fields == {"reason": "limit"}


async def test_a_disk_that_fails_stops_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "full")

    stopped: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(os, "write", full)
    writer = BundleWriter(tmp_path / "b", 1 << 20, stopped.put_nowait)
    assert await asyncio.wait_for(stopped.get(), 10) == "disk"
    assert not writer.open
    writer.put(record(1))
    writer.close()
