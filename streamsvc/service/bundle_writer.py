"""The thread that writes a recording: bounded, so that no session ever waits for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from streamsvc.workers.framing import pack

MAGIC = b"streamsvc bundle 1\n"  # the first line of a bundle
_QUEUE_BYTES = 16 << 20  # that wait to be written, at most


class BundleWriter:
    """Writes records to a file on a thread of its own.

    Args:
        path: of the file; one that is there is replaced.
        most: bytes of the whole file; more stops it.
        on_stop: called on the loop with the reason where writing stops by itself: "queue", "limit" or "disk".

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, most: int, on_stop: Callable[[str], None]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.fchmod(self._file, 0o600)
        self._most = most
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque([MAGIC])
        self._waiting_bytes = len(MAGIC)  # the batch that is being written included
        self._size = len(MAGIC)
        self._open = True  # takes records
        self._thread = threading.Thread(target=self._write_all, name="recording", daemon=True)
        self._thread.start()

    @property
    def open(self) -> bool:
        """Whether records are still taken."""
        return self._open

    def put(self, record: bytes) -> None:
        """Queue a record. Never waits for the disk; ignored once stopped."""
        if not self._open:
            return
        if self._waiting_bytes + len(record) > _QUEUE_BYTES:
            self.stop("queue")
        elif self._size + len(record) > self._most:
            self.stop("limit")
        else:
            self._queue(record)

    def stop(self, reason: str) -> None:
        """Stop, with a last record that says so."""
        if self._open:
            self._queue(pack({"kind": "cut", "reason": reason}, {}))
            self._end()
            self._loop.call_soon(self._on_stop, reason)

    def close(self) -> None:
        """Write what waits, and close the file. Blocks; idempotent."""
        if self._open:
            self._end()
        self._thread.join()

    def _queue(self, record: bytes) -> None:
        with self._changed:
            self._waiting.append(record)
            self._waiting_bytes += len(record)
            self._size += len(record)
            self._changed.notify()

    def _end(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()

    def _write_all(self) -> None:
        try:
            while batch := self._next():
                with memoryview(batch) as left:
                    while left:
                        left = left[os.write(self._file, left) :]
                with self._changed:
                    self._waiting_bytes -= len(batch)
        except OSError:
            with self._changed:
                was_open, self._open = self._open, False
                self._waiting.clear()
            if was_open:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._on_stop, "disk")
        finally:
            os.close(self._file)

    def _next(self) -> bytes:
        """All that waits, as soon as there is some; empty: the end."""
        with self._changed:
            while not self._waiting and self._open:
                self._changed.wait()
            batch = b"".join(self._waiting)
            self._waiting.clear()
            return batch
