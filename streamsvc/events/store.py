"""Durable events and thumbnails of one session: SQLite (WAL) in the session's folder, or memory (`no_store`).

All methods are short and blocking; the session calls them on a thread. Nothing else writes the folder.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, Conflict

FAILURES = (OSError, sqlite3.Error)  # what a write raises when the disk is full or gone

_TABLES = """
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, type TEXT NOT NULL, audience TEXT, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS frames (at REAL PRIMARY KEY, jpeg BLOB NOT NULL);
"""


class Store:
    """What is kept of one session.

    Args:
        folder: made when absent; None: everything stays in memory and is gone after `close`.
        events: the most durable events kept; the oldest go first.
        frames: the most thumbnails kept; the oldest go first.

    Raises:
        CapacityError: the disk takes no more, or the folder cannot be made.
    """

    def __init__(self, folder: Path | None, *, events: int, frames: int) -> None:
        self.folder, self.events = folder, events
        self._most_frames = frames
        self._lock = threading.Lock()
        self._purged = False
        with contextlib.ExitStack() as failed:
            try:
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(
                    folder / "session.db" if folder else ":memory:",
                    check_same_thread=False,
                    isolation_level=None,
                )
                failed.callback(self._db.close)
                if folder is not None:
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(_TABLES)
            except FAILURES:
                raise CapacityError(
                    "sessions cannot be written to the disk of this server now", code="store_failed"
                ) from None
            failed.pop_all()

    def append(self, events: Iterable[tuple[int, str, str | None, str]]) -> None:
        """Add durable events (seq, type, audience, JSON text) in one transaction, and trim; after any of FAILURES nothing was added."""
        with self._lock, self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?)", events)
            self._db.execute(
                "DELETE FROM events WHERE seq <= (SELECT MAX(seq) FROM events) - ?", (self.events,)
            )

    def read(self, after: int, before: int, limit: int) -> list[tuple[int, str, str | None, str]]:
        """Events with after < seq < before, in order, at most `limit`."""
        with self._lock:
            return self._db.execute(
                "SELECT seq, type, audience, json FROM events WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?",
                (after, before, limit),
            ).fetchall()

    def oldest(self) -> int | None:
        """The lowest seq still held."""
        with self._lock:
            row: tuple[int | None] = self._db.execute("SELECT MIN(seq) FROM events").fetchone()
            return row[0]

    def put_frame(self, at: float, jpeg: bytes) -> None:
        """Keep the thumbnail of the keyframe at session second `at`, and trim."""
        with self._lock, self._transaction():
            self._db.execute("INSERT OR REPLACE INTO frames VALUES (?, ?)", (round(at, 3), jpeg))
            self._db.execute(
                "DELETE FROM frames WHERE at < (SELECT at FROM frames ORDER BY at DESC LIMIT 1 OFFSET ?)",
                (self._most_frames - 1,),
            )

    def frame(self, at: float) -> bytes | None:
        """The newest thumbnail at or before session second `at`."""
        with self._lock:
            row = self._db.execute(
                "SELECT jpeg FROM frames WHERE at <= ? ORDER BY at DESC LIMIT 1", (at + 0.0005,)
            ).fetchone()
            return row[0] if row else None

    def close(self, *, purge: bool) -> None:
        """Close; with `purge` nothing is left on the disk. May be called twice, from two threads too."""
        with self._lock:
            self._db.close()
            if purge and self.folder is not None and not self._purged:
                self._purged = (
                    True  # the next to purge would erase what a new session of that name keeps there by then
                )
                shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back by itself where the disk was full
                self._db.execute("ROLLBACK")
            raise


def clear(folder: Path) -> None:
    """A publisher chooses its session's name: what an earlier run has kept under it goes, but nothing that is not ours.

    Raises:
        Conflict: "name_taken": there is something else of that name.
    """
    if folder.exists() and not (folder / "session.db").is_file():
        raise Conflict(
            f"the name {folder.name!r} is taken by something else in the folder of sessions",
            code="name_taken",
        )
    for file in folder.glob("session.db*"):
        file.unlink()


def sweep(data_dir: Path, retention: float) -> int:
    """Remove what an earlier run left behind and whose retention (seconds) has passed; returns how many sessions."""
    if not data_dir.is_dir():
        return 0
    old = [
        folder
        for folder in data_dir.iterdir()
        if (folder / "session.db").is_file() and _age(folder) > retention
    ]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return len(old)


def _age(folder: Path) -> float:
    return clock.utc().timestamp() - max(file.stat().st_mtime for file in folder.iterdir())
