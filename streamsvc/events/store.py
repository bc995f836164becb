"""Durable events and thumbnails of one session: SQLite (WAL) in its folder, or in memory (`no_store`).

All methods block shortly; the session calls them on a thread. No other code writes to the folder.
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

FAILURES = (OSError, sqlite3.Error)  # raised by writes when the disk is full or gone

_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, type TEXT NOT NULL, audience TEXT, json TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS frames (at REAL PRIMARY KEY, jpeg BLOB NOT NULL);
"""


class Store:
    """Store of one session.

    Args:
        folder: created if absent; None: in memory, until `close`.
        events: durable events kept; the oldest are dropped.
        frames: thumbnails kept; the oldest are dropped.

    Raises:
        CapacityError: the disk is full, or the folder cannot be created.
    """

    def __init__(self, folder: Path | None, *, events: int, frames: int) -> None:
        self.folder = folder
        self.events = events
        self._max_frames = frames
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
        """Add durable events (seq, type, audience, JSON text) in one transaction, and trim.

        Raises:
            FAILURES: no event was added.
        """
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
        """The lowest seq in the store; None: it is empty."""
        with self._lock:
            row: tuple[int | None] = self._db.execute("SELECT MIN(seq) FROM events").fetchone()
            return row[0]

    def put_frame(self, at: float, jpeg: bytes) -> None:
        """Add the thumbnail of the keyframe at session second `at`, and trim."""
        with self._lock, self._transaction():
            self._db.execute("INSERT OR REPLACE INTO frames VALUES (?, ?)", (round(at, 3), jpeg))
            self._db.execute(
                "DELETE FROM frames WHERE at < (SELECT at FROM frames ORDER BY at DESC LIMIT 1 OFFSET ?)",
                (self._max_frames - 1,),
            )

    def frame(self, at: float) -> bytes | None:
        """The newest thumbnail at or before session second `at`."""
        with self._lock:
            row = self._db.execute(
                "SELECT jpeg FROM frames WHERE at <= ? ORDER BY at DESC LIMIT 1", (at + 0.0005,)
            ).fetchone()
            return row[0] if row else None

    def close(self, *, purge: bool) -> None:
        """Close; with `purge` delete the folder. Idempotent, thread-safe."""
        with self._lock:
            self._db.close()
            if purge and self.folder is not None and not self._purged:
                self._purged = True  # a second purge could delete a new session of the same name
                shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # when the disk is full SQLite has rolled back already
                self._db.execute("ROLLBACK")
            raise


def clear(folder: Path) -> None:
    """Delete the store of an earlier session in `folder`: publishers choose the names of their sessions.

    Raises:
        Conflict: "name_taken": the folder is not a session's.
    """
    if folder.exists() and not (folder / "session.db").is_file():
        raise Conflict(
            f"the name {folder.name!r} is taken: the data folder has an entry that is no session",
            code="name_taken",
        )
    for file in folder.glob("session.db*"):
        file.unlink()


def sweep(data_dir: Path, retention: float) -> int:
    """Delete sessions of earlier runs that are older than `retention` (seconds); returns their number."""
    if not data_dir.is_dir():
        return 0
    expired = [
        folder
        for folder in data_dir.iterdir()
        if (folder / "session.db").is_file() and _age(folder) > retention
    ]
    for folder in expired:
        shutil.rmtree(folder, ignore_errors=True)
    return len(expired)


def _age(folder: Path) -> float:
    return clock.utc().timestamp() - max(file.stat().st_mtime for file in folder.iterdir())
