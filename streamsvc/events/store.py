"""Durable events, thumbnails, questions of one session: SQLite (WAL) in its folder, or memory (`no_store`).

A write survives the death of this process: it goes to the write-ahead log. Where it is asked for, it waits
for the disk, and survives the death of the machine too (https://sqlite.org/wal.html, section 2). All methods
block shortly; the session calls them on a thread, but for those that write little and do not wait for the
disk. No other code writes to the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from streamsvc.core.errors import CapacityError, ConfigError

FAILURES = (OSError, sqlite3.Error)  # raised by writes when the disk is full or gone

_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, type TEXT NOT NULL, audience TEXT, json TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS frames (at REAL PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS questions (
    id TEXT NOT NULL, audience TEXT NOT NULL, asker TEXT NOT NULL, reader TEXT, text TEXT NOT NULL,
    PRIMARY KEY (id, audience)
);
"""
_QUESTIONS = 500  # kept of one session; the oldest are dropped
_CACHE_KIB = 200  # of pages in memory: SQLite's 2 MiB fill in half an hour, and few events are read again
_WAL_BYTES = 4 << 20  # of the write-ahead log, beyond which it is moved into the database


@dataclass(frozen=True, slots=True)
class StoredQuestion:
    """What the event of an answer does not tell of its question.

    `audience`: of that event; "": all. `asker`, `reader`: hashes of who has asked it, and of who may read the
    answer at its address; "": anybody; None: nobody.
    """

    id: str
    audience: str
    asker: str
    reader: str | None
    text: str


class Store:
    """Store of one session.

    Args:
        folder: created if absent; None: in memory, until `close`.
        events: durable events kept; the oldest are dropped.
        frames: thumbnails kept; the oldest are dropped.
        sync: what an event survives: "process": the death of this process; "power": that of the machine too.

    Raises:
        CapacityError: the disk is full, or the folder cannot be created.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        events: int,
        frames: int,
        sync: Literal["process", "power"] = "process",
    ) -> None:
        self.folder = folder
        self.events = events
        self.sync = sync
        self._max_frames = frames
        self._lock = threading.Lock()
        self._closed = False
        self._purged = False
        try:
            if folder is not None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)  # it may be from an earlier version
            self._opened: sqlite3.Connection | None = self._connect()
            if folder is not None and sync == "power":
                for named in (folder, folder.parent):  # SQLite waits for what is in a file, not for its name
                    sync_folder(named)
        except FAILURES:
            raise CapacityError(
                "sessions cannot be written to the disk of this server now", code="store_failed"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / "session.db" if self.folder else None
        if path is not None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its log the same mode
            path.chmod(0o600)
        with contextlib.ExitStack() as failed:
            db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            failed.callback(db.close)
            if path is not None:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute(f"PRAGMA synchronous={self._unhurried}")
                db.execute("PRAGMA wal_autocheckpoint=0")
                db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            db.executescript(_TABLES)
            failed.pop_all()
        return db

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection, opened again after `rest`."""
        if self._closed:
            raise sqlite3.ProgrammingError("the store is closed")
        if self._opened is None:
            self._opened = self._connect()
        return self._opened

    @property
    def waits(self) -> bool:
        """Whether `append` waits for the disk."""
        return self.sync == "power" and self.folder is not None

    @property
    def resting(self) -> bool:
        """Whether no file is open."""
        return self._opened is None

    def append(self, events: Iterable[tuple[int, str, str | None, str]]) -> None:
        """Add durable events (seq, type, audience, JSON text) in one transaction, and trim.

        Raises:
            FAILURES: no event was added.
        """
        with self._lock, self._transaction(waits=self.waits):
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

    def newest(self, *kinds: str) -> tuple[int, str] | None:
        """The seq and JSON text of the newest event of some types; none given: of all."""
        where = f"WHERE type IN ({','.join('?' * len(kinds))})" if kinds else ""
        with self._lock:
            row: tuple[int, str] | None = self._db.execute(
                f"SELECT seq, json FROM events {where} ORDER BY seq DESC LIMIT 1", kinds
            ).fetchone()
            return row

    def first_title(self) -> str | None:
        """The JSON text of the first `screen.text` that has a title."""
        with self._lock:
            row: tuple[str] | None = self._db.execute(
                "SELECT json FROM events WHERE type = 'screen.text' AND json NOT LIKE '%,\"title\":null%' "
                'AND json NOT LIKE \'%,"title":""%\' ORDER BY seq LIMIT 1'
            ).fetchone()
            return row[0] if row else None

    def newest_frame(self) -> float | None:
        """Session seconds of the newest thumbnail; None: there is none."""
        with self._lock:
            row: tuple[float | None] = self._db.execute("SELECT MAX(at) FROM frames").fetchone()
            return row[0]

    def put_question(self, asked: StoredQuestion) -> None:
        """Keep a question, before its answer is appended, and trim."""
        with self._lock, self._transaction():
            self._db.execute("INSERT OR REPLACE INTO questions VALUES (?, ?, ?, ?, ?)", astuple(asked))
            self._db.execute(
                "DELETE FROM questions WHERE rowid <= (SELECT MAX(rowid) FROM questions) - ?", (_QUESTIONS,)
            )

    def questions(self) -> list[StoredQuestion]:
        """The questions of `put_question`, the oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM questions ORDER BY rowid").fetchall()
            return [StoredQuestion(*row) for row in rows]

    def put_meta(self, **values: str) -> None:
        """Keep facts about the session by name; earlier ones of the same name are replaced."""
        with self._lock, self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def meta(self) -> dict[str, str]:
        """The facts of `put_meta`."""
        with self._lock:
            return dict(self._db.execute("SELECT name, value FROM meta").fetchall())

    def checkpoint(self) -> None:
        """Move a long write-ahead log into the database, on a connection of its own: no writer waits for it.

        Raises:
            FAILURES: it stays as it is.
        """
        if self.folder is None or self._closed:
            return
        log = self.folder / "session.db-wal"
        if log.exists() and log.stat().st_size > _WAL_BYTES:
            with contextlib.closing(sqlite3.connect(self.folder / "session.db", timeout=0)) as db:
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def rest(self) -> None:
        """Close the files until the next call needs them: nothing more is expected to come."""
        with self._lock:
            if self.folder is not None and self._opened is not None:
                self._opened.close()
                self._opened = None

    def close(self, *, purge: bool) -> None:
        """Close; with `purge` delete the folder. Idempotent, thread-safe."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            if purge and self.folder is not None and not self._purged:
                self._purged = True
                shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _unhurried(self) -> str:
        """SQLite's `synchronous` of writes that do not wait for the disk.

        With NORMAL they are there before what is moved out of the log, and before the next that waits.
        """
        return "NORMAL" if self.sync == "power" else "OFF"

    @contextlib.contextmanager
    def _transaction(self, *, waits: bool = False) -> Iterator[None]:
        if waits:
            self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # when the disk is full SQLite has rolled back already
                self._db.execute("ROLLBACK")
            raise
        finally:
            if waits:
                self._db.execute(f"PRAGMA synchronous={self._unhurried}")


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def size_of(folder: Path) -> int:
    """Bytes of a session's files; 0: they are gone."""
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0


class FolderLock:
    """Keeps other processes from a data folder, which is created; `close` gives it back.

    Raises:
        ConfigError: another process has it, or it cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(data_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the data folder {data_dir} cannot be written ({os.strerror(error.errno or 0)}): "
                "set server.data_dir to another one"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConfigError(
                f"another streamsvc keeps its sessions in {data_dir}: stop it, or set server.data_dir to "
                "another folder",
                code="data_dir_taken",
            ) from None
        os.fchmod(self._file, 0o600)

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._file)
