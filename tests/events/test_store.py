"""The store writes, trims, reads in pages and purges."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from streamsvc.core.errors import CapacityError, ConfigError
from streamsvc.events.store import FAILURES, FolderLock, Store, StoredQuestion


def rows(first: int, last: int) -> list[tuple[int, str, str | None, str]]:
    return [(seq, "caption.final", None, f'{{"n":{seq}') for seq in range(first, last + 1)]


@pytest.mark.parametrize("on_disk", [True, False])
def test_events_come_back_in_order_and_in_pages(tmp_path: Path, on_disk: bool) -> None:
    store = Store(tmp_path / "s" if on_disk else None, events=100, frames=5)
    store.append(rows(1, 10))
    assert [row[0] for row in store.read(3, 9, 100)] == [4, 5, 6, 7, 8]
    assert [row[0] for row in store.read(0, 99, 3)] == [1, 2, 3]
    assert store.read(0, 10**6, 1)[0][0] == 1
    store.close(purge=True)
    assert not (tmp_path / "s").exists()


def test_the_oldest_events_go_first() -> None:
    store = Store(None, events=10, frames=5)
    store.append(rows(1, 8))
    store.append(rows(9, 25))
    assert store.read(0, 10**6, 1)[0][0] == 16
    assert len(store.read(0, 1000, 1000)) == 10
    store.close(purge=True)


def test_a_frame_is_read_by_the_time_it_was_shown() -> None:
    store = Store(None, events=10, frames=3)
    for at in (1.0, 2.5, 4.0, 5.25):
        store.put_frame(at, f"jpeg {at}".encode())
    assert store.frame(5.25) == b"jpeg 5.25"
    assert store.frame(4.9) == b"jpeg 4.0"
    assert store.frame(1.5) is None, "the oldest frame was trimmed"
    store.close(purge=True)


def test_an_interrupted_write_leaves_the_store_as_it_was() -> None:
    store = Store(None, events=10, frames=3)
    store.append(rows(1, 2))
    with pytest.raises(sqlite3.Error):
        store.append([(3, "caption.final", None, "{}"), ("not a number", "x", None, "{}")])  # type: ignore[list-item]
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2]
    store.append(rows(3, 3))
    store.close(purge=True)


def test_a_full_disk_fails_a_write_as_a_whole_and_takes_it_when_there_is_room(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", events=1000, frames=3)
    store.append(rows(1, 2))
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    long = [(seq, "caption.final", None, "x" * 50_000) for seq in (3, 4)]
    for _ in range(2):
        with pytest.raises(FAILURES, match="full"):
            store.append(long)
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2]
    store._db.execute("PRAGMA max_page_count = 100000")
    store.append(long)
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2, 3, 4]
    store.close(purge=True)


@pytest.mark.parametrize("place", ["file/s", "s"])
def test_a_session_that_cannot_be_stored_is_refused_and_leaves_nothing_open(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "session.db").write_bytes(b"no database " * 100)
    with pytest.raises(CapacityError) as caught:
        Store(tmp_path / place, events=10, frames=3)
    assert (caught.value.code, caught.value.status) == ("store_failed", 503)


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", events=10, frames=3)
    store.append(rows(1, 1))
    store._db.execute("CREATE TABLE other (seq INTEGER REFERENCES events DEFERRABLE INITIALLY DEFERRED)")
    store._db.execute(
        "CREATE TRIGGER bad AFTER INSERT ON events WHEN NEW.seq = 2 BEGIN INSERT INTO other VALUES (99); END"
    )
    store._db.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(FAILURES):  # SQLite checks a deferred key at COMMIT
        store.append(rows(2, 2))
    store.append(rows(3, 3))
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 3]
    store.close(purge=True)


def test_a_second_purge_leaves_the_folder_of_a_new_session(tmp_path: Path) -> None:
    old = Store(tmp_path / "s", events=10, frames=3)
    old.close(purge=False)
    old.close(purge=True)
    assert not (tmp_path / "s").exists()
    new = Store(tmp_path / "s", events=10, frames=3)
    old.close(purge=True)
    assert (tmp_path / "s" / "session.db").is_file()
    new.close(purge=True)


@pytest.mark.parametrize("before", [True, False])
def test_nobody_else_on_the_machine_can_read_a_session(tmp_path: Path, before: bool) -> None:
    """Also one that an earlier version has left open to all."""
    if before:
        (tmp_path / "s").mkdir(mode=0o755)
        (tmp_path / "s" / "session.db").touch(0o644)
    old = os.umask(0o022)
    try:
        store = Store(tmp_path / "s", events=10, frames=3)
    finally:
        os.umask(old)
    store.append(rows(1, 1))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "s").iterdir()}
    assert modes == {"session.db": 0o600, "session.db-wal": 0o600, "session.db-shm": 0o600}
    store.close(purge=True)


def test_a_closed_store_takes_nothing_and_opens_no_file_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", events=10, frames=3)
    store.append(rows(1, 1))
    store.close(purge=False)
    with pytest.raises(FAILURES):
        store.append(rows(2, 2))
    with pytest.raises(FAILURES):
        store.read(0, 9, 9)
    assert store.resting


def test_a_store_at_rest_has_no_file_open_and_opens_again(tmp_path: Path) -> None:
    def open_files() -> list[str]:
        links = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        return [link for link in links if str(tmp_path) in link]

    store = Store(tmp_path / "s", events=10, frames=3)
    store.append(rows(1, 2))
    assert open_files()
    store.rest()
    assert store.resting
    assert open_files() == []
    assert [row[0] for row in store.read(0, 9, 9)] == [1, 2]
    store.append(rows(3, 3))
    store.rest()
    store.close(purge=False)
    with pytest.raises(FAILURES, match="closed"):
        store.read(0, 9, 9)
    memory = Store(None, events=10, frames=3)
    memory.append(rows(1, 1))
    memory.rest()
    assert memory.read(0, 10**6, 1)[0][0] == 1, "what is in memory alone is kept"
    memory.close(purge=True)


def test_a_long_write_ahead_log_is_moved_into_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsvc.events.store._WAL_BYTES", 100_000)
    store = Store(tmp_path / "s", events=1000, frames=3)
    log = tmp_path / "s" / "session.db-wal"
    for seq in range(1, 41):
        store.append([(seq, "caption.final", None, "x" * 20_000)])
        store.checkpoint()
    assert log.stat().st_size < 300_000
    assert len(store.read(0, 99, 99)) == 40
    store.close(purge=True)
    store.checkpoint()


def test_a_data_folder_is_one_process_s_alone(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "data")
    with pytest.raises(ConfigError, match="another streamsvc") as caught:
        FolderLock(tmp_path / "data")
    assert caught.value.code == "data_dir_taken"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    lock.close()
    (tmp_path / "data/.lock").chmod(0o644)  # by an earlier version, or restored from a copy
    FolderLock(tmp_path / "data").close()
    assert (tmp_path / "data/.lock").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written .*set server.data_dir"):
        FolderLock(tmp_path / "file" / "data")


@pytest.mark.parametrize(("sync", "levels"), [("process", [0, 0]), ("power", [1, 2])])
def test_an_event_waits_for_the_disk_where_power_loss_is_to_be_survived(
    tmp_path: Path, sync: Literal["process", "power"], levels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []
    whole = os.fsync

    def sync_noted(opened: int) -> None:
        folders.append(str(Path(f"/proc/self/fd/{opened}").readlink()))
        whole(opened)

    monkeypatch.setattr(os, "fsync", sync_noted)
    store = Store(tmp_path / "s", events=10, frames=10, sync=sync)
    assert (str(tmp_path / "s") in folders) is (str(tmp_path) in folders) is (sync == "power")

    def level() -> int:
        row: tuple[int] = store._db.execute("PRAGMA synchronous").fetchone()
        return row[0]

    found = [level()]

    def while_they_are_written() -> Iterator[tuple[int, str, str | None, str]]:
        found.append(level())
        yield from rows(1, 3)

    store.append(while_they_are_written())
    assert found == levels
    assert level() == levels[0], "what is not an event does not wait"
    store.rest()
    store.append(rows(4, 5))
    assert [level(), len(store.read(0, 9, 9))] == [levels[0], 5]
    assert store.waits is (sync == "power")
    store.close(purge=True)


def test_the_oldest_questions_go_first_and_one_of_another_s_has_its_own_place() -> None:
    store = Store(None, events=10, frames=10)
    for number in range(510):
        store.put_question(StoredQuestion(str(number), "", "a", None, "What?"))
    store.put_question(StoredQuestion("509", "somebody", "b", "", "Why?"))
    kept = store.questions()
    assert (len(kept), kept[0].id) == (500, "11")
    assert [(one.id, one.audience, one.reader, one.text) for one in kept[-2:]] == [
        ("509", "", None, "What?"),
        ("509", "somebody", "", "Why?"),
    ]
    store.close(purge=True)
