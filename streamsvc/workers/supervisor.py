"""Roles, and the supervised processes that serve them.

A role ("hear", "see", "think") is what a room asks for; a worker is a process that serves one or more roles on a Unix
socket. The contract is two calls, `call` and `stream`, with relative deadlines; batching across sessions happens inside
the worker and nowhere else. A worker holds only caches: its death costs time, never content. The supervisor pings it,
kills it when it hangs, and starts it again with backoff.

Wire: `!II` (header bytes, blob bytes), a JSON header, then the arrays named in the header, one after the other.

    to the worker     {"id", "kind": "call" | "stream" | "cancel" | "ping", "op", "deadline_in_s", "payload", "arrays"}
    from the worker   {"id", "kind": "result" | "item" | "end" | "error" | "pong", "payload" | "error", "arrays"}
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.errors import DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.roles import Payload, Role
from streamsvc.workers.framing import FRAME, error_from, pack, sizes, unpack

log = structlog.get_logger()
_STREAM_ITEMS = 256  # items of one stream not yet taken by the asker; more end the stream
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1") | {
    "MALLOC_ARENA_MAX": "2"
}
# One long window must not keep a hundred megabytes for good: what is large goes back at once, what each step needs again stays.
_ENVIRONMENT |= {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}

LOAD_SECONDS = 120.0  # until a worker must have loaded its models
PING_SECONDS = 2.0  # between pings
HANG_SECONDS = 20.0  # a batch that runs longer, or a ping unanswered for so long: the worker is killed
BACKOFF = (0.2, 10.0)  # seconds before a restart, first and most


# --- the asking side ------------------------------------------------------------------------------------------------


class Worker:
    """One supervised process.

    Args:
        name: of the process, for logs.
        roles: the dotted engine module of each role served, e.g. {"hear": "engines.asr"}.
        options: handed to every module's `load`.
        nice: added to the process's niceness.
        lazy: start at the first call instead of at once.
    """

    def __init__(
        self,
        name: str,
        roles: Mapping[str, str],
        options: Mapping[str, Any],
        *,
        nice: int = 0,
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.roles = dict(roles)
        self.pid: int | None = None
        self.failure: StreamsvcError | None = None  # why the last start failed
        self.options = dict(options)
        self._nice = nice
        self._wanted = asyncio.Event()
        if not lazy:
            self._wanted.set()
        self._up = asyncio.Event()
        self._tried = asyncio.Event()  # at least one start has ended, well or not
        self._ids = 0
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Queue[tuple[str, Any]]] = {}
        self._pong = 0.0
        self._busy = 0.0  # seconds that the longest running batch had run at the last pong

    def role(self, name: str) -> Role:
        """The asking end of one role."""
        if name not in self.roles:
            raise ValueError(f"worker {self.name} serves {sorted(self.roles)}, not {name}")
        return _Asker(self, name)

    @property
    def ready(self) -> bool:
        """Whether the process is up."""
        return self._up.is_set()

    async def wait_ready(self) -> None:
        """Wait until the process is up.

        Raises:
            StreamsvcError: its first start failed (ModelMissing, WorkerError).
        """
        await self._tried.wait()
        if not self._up.is_set() and self.failure is not None:
            raise self.failure

    async def run(self) -> None:
        """Keep the process alive until cancelled."""
        await self._wanted.wait()
        pause = BACKOFF[0]
        with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
            for life in itertools.count():
                if life:
                    metrics.worker_restarts.labels(self.name).inc()
                started = clock.now()
                try:
                    await self._live(Path(folder) / f"{self.name}-{life}.sock")
                except StreamsvcError as error:
                    self.failure = error
                    log.warning("worker ended", worker=self.name, reason=error.message)
                finally:
                    self._tried.set()
                pause = BACKOFF[0] if clock.now() - started > 30 else min(pause * 2, BACKOFF[1])
                await clock.sleep(pause)

    async def _live(self, path: Path) -> None:
        """One life of the process: start, serve, and be gone when this returns or raises."""
        env = {**os.environ, **_ENVIRONMENT}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamsvc.workers.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=env,
        )
        self.pid = process.pid
        reading: asyncio.Task[None] | None = None
        try:
            assert process.stdin is not None and process.stdout is not None
            job = {"socket": str(path), "roles": self.roles, "options": self.options, "nice": self._nice}
            process.stdin.write(
                json.dumps(job, default=str).encode() + b"\n"
            )  # stdin stays open: its end tells the child that we are gone
            try:
                async with asyncio.timeout(LOAD_SECONDS):
                    line = await process.stdout.readline()
            except TimeoutError:
                raise WorkerError(
                    f"the {self.name} worker had not loaded its models after {LOAD_SECONDS:.0f} s"
                ) from None
            if not line:
                raise WorkerError(f"the {self.name} worker died while it loaded its models")
            told = json.loads(line)
            if "error" in told:
                raise error_from(told["error"])
            reader, self._writer = await asyncio.open_unix_connection(path)
            self._pong, self._busy, self.failure = clock.now(), 0.0, None
            reading = asyncio.create_task(self._read(reader))
            self._up.set()
            self._tried.set()
            log.info("worker ready", worker=self.name, pid=process.pid)
            await self._watch(process, reading)
        finally:
            self._up.clear()
            self.pid = None
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            self._fail_pending()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(_reaped(process))

    async def _watch(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        """Ping until the process ends or hangs."""
        exited = asyncio.create_task(process.wait())
        try:
            while True:
                self._send({"id": 0, "kind": "ping"}, {})
                await asyncio.wait(
                    {exited, reading}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if exited.done():
                    raise WorkerError(f"the {self.name} worker ended with status {exited.result()}")
                if reading.done():
                    raise WorkerError(f"the {self.name} worker closed its socket")
                if self._busy > HANG_SECONDS or clock.now() - self._pong > HANG_SECONDS:
                    raise WorkerError(f"the {self.name} worker hung and was killed")
        finally:
            exited.cancel()
            await asyncio.gather(exited, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head_size, blob_size = sizes(await reader.readexactly(FRAME.size))
                header, payload = unpack(
                    await reader.readexactly(head_size), await reader.readexactly(blob_size)
                )
                if header["kind"] == "pong":
                    self._pong, self._busy = clock.now(), payload["busy_s"]
                    continue
                box = self._pending.get(header["id"])
                if box is None:
                    continue  # the asker has left
                if "batch" in header:
                    metrics.batch_size.labels(header["role"]).observe(header["batch"])
                try:
                    box.put_nowait((header["kind"], header.get("error") or payload))
                except asyncio.QueueFull:  # an asker that does not take its stream loses it
                    self._drop(header["id"])
                    box.get_nowait()
                    box.put_nowait(
                        ("error", {"class": "CapacityError", "message": "the stream was not read in time"})
                    )

    def _send(self, header: dict[str, Any], payload: Payload) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(header, payload))

    def _fail_pending(self) -> None:
        for box in self._pending.values():
            while box.full():
                box.get_nowait()
            box.put_nowait(("error", {"class": "WorkerError", "message": f"the {self.name} worker died"}))

    def _drop(self, number: int) -> None:
        if self._pending.pop(number, None) is not None:
            self._send({"id": number, "kind": "cancel"}, {})

    async def ask(
        self, kind: str, role: str, op: str, payload: Payload, deadline_in_s: float
    ) -> AsyncIterator[Payload]:
        """Send one request and yield what comes back; leaving early cancels the work."""
        self._wanted.set()
        deadline = clock.now() + deadline_in_s
        self._ids += 1
        number = self._ids
        try:
            async with asyncio.timeout_at(deadline):
                await self._up.wait()
                box: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(_STREAM_ITEMS)
                self._pending[number] = box
                header = {
                    "id": number,
                    "kind": kind,
                    "role": role,
                    "op": op,
                    "deadline_in_s": max(0.0, deadline - clock.now()),
                }
                self._send(header, payload)
        except TimeoutError:
            if self.failure is not None:
                raise WorkerError(f"the {self.name} worker is not up: {self.failure.message}") from None
            raise DeadlineMissed(f"the {self.name} worker was not up in time") from None
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        kind_back, body = await box.get()
                except TimeoutError:
                    raise DeadlineMissed(f"{role}.{op} did not answer in time") from None
                if kind_back == "error":
                    self._pending.pop(number, None)
                    raise error_from(body)
                if kind_back != "end":
                    yield body
                if kind_back in ("end", "result"):
                    self._pending.pop(number, None)
                    return
        finally:
            self._drop(number)


@dataclass(frozen=True, slots=True)
class _Asker:
    """The asking end of one role of one worker."""

    worker: Worker
    name: str

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        async with contextlib.aclosing(self._ask("call", op, payload, deadline_in_s)) as items:
            async for item in items:
                return dict(item)
        raise WorkerError(f"{self.name}.{op} gave no result")

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        async with contextlib.aclosing(self._ask("stream", op, payload, deadline_in_s)) as items:
            async for item in items:
                yield item

    def _ask(self, kind: str, op: str, payload: Payload, deadline_in_s: float) -> Any:
        return self.worker.ask(kind, self.name, op, payload, deadline_in_s)


async def _reaped(process: asyncio.subprocess.Process) -> None:
    """Wait for a killed process, and close its pipes."""
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
    transport = getattr(
        process, "_transport", None
    )  # the only way to close the stdout pipe before it is garbage
    if transport is not None:
        transport.close()
