"""Worker processes, supervised: started, pinged, killed, restarted, and sent requests.

A worker serves one or more roles (hear, see, think, embed) and holds only caches: its death costs time, never
content. The supervisor kills a worker that hangs and restarts it with exponential backoff. Pending requests
of a dead worker fail with WorkerError; new ones wait for the restart, within their deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.degradation import WorkRate
from streamsvc.core.errors import DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.idle_gate import idle_class
from streamsvc.core.roles import Payload, Role
from streamsvc.workers.framing import PREFIX, error_from, pack, sizes, unpack

log = structlog.get_logger()
_STREAM_ITEMS = 256  # unread items of one stream; more end the stream with CapacityError
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1") | {
    "MALLOC_ARENA_MAX": "2"
}
# glibc: return large blocks at once, and keep what every step needs again.
_ENVIRONMENT |= {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}

LOAD_SECONDS = 120.0  # time limit for loading the models
PING_SECONDS = 2.0  # between pings
HANG_SECONDS = 20.0  # of one batch, or without a pong: the worker is killed
BACKOFF = (0.2, 10.0)  # seconds before a restart: after a long run, at most; doubled after each short run
STABLE_SECONDS = 30.0  # a worker that ran longer resets the backoff


class Worker:
    """One supervised worker process.

    Args:
        name: of the process, for logs.
        roles: dotted engine module by role, e.g. {"hear": "engines.asr"}.
        options: passed to `load` of every module.
        nice: added to the niceness of the process.
        lazy: start at the first request instead of at once.
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
        self._start_requested = asyncio.Event()
        if not lazy:
            self._start_requested.set()
        self._up = asyncio.Event()
        self._tried = asyncio.Event()  # the first start has ended, well or not
        self._requests = 0
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Queue[tuple[str, Any]]] = {}
        self._pong = 0.0  # monotonic seconds of the last one
        self._busy = 0.0  # seconds that the oldest running batch had run at the last pong
        self._work = WorkRate()

    def role(self, name: str) -> Role:
        """The client of one role of this worker."""
        if name not in self.roles:
            raise ValueError(f"worker {self.name} serves {sorted(self.roles)}, not {name}")
        return _RoleClient(self, name)

    @property
    def ready(self) -> bool:
        """Whether the process serves requests."""
        return self._up.is_set()

    @property
    def cost(self) -> float:
        """CPU seconds a second that the process spends, idle-class work left out; 1.0 is one core."""
        return self._work.value

    async def wait_ready(self) -> None:
        """Wait until the process serves requests.

        Raises:
            StreamsvcError: its first start failed (ModelMissing, WorkerError).
        """
        await self._tried.wait()
        if not self._up.is_set() and self.failure is not None:
            raise self.failure

    async def run(self) -> None:
        """Run and restart the process until cancelled."""
        await self._start_requested.wait()
        pause = BACKOFF[0]
        with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
            for run in itertools.count():
                if run:
                    metrics.worker_restarts.labels(self.name).inc()
                started = clock.now()
                try:
                    await self._run_once(Path(folder) / f"{self.name}-{run}.sock")
                except StreamsvcError as error:
                    self.failure = error
                    log.warning("worker ended", worker=self.name, reason=error.message)
                finally:
                    self._tried.set()
                pause = BACKOFF[0] if clock.now() - started > STABLE_SECONDS else min(pause * 2, BACKOFF[1])
                await clock.sleep(pause)

    async def _run_once(self, path: Path) -> None:
        """Start the process, serve until it ends or hangs, and kill it.

        Raises:
            StreamsvcError: it could not load its models, ended or hung.
        """
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
            await self._load(process, path)
            reader, writer = await asyncio.open_unix_connection(path)
            self._writer = writer
            self._pong = clock.now()
            self._busy = 0.0
            self.failure = None
            reading = asyncio.create_task(self._read(reader))
            self._up.set()
            self._tried.set()
            log.info("worker ready", worker=self.name, pid=process.pid)
            await self._watch(process, reading)
        finally:
            self._up.clear()
            self._work = WorkRate()
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
            await asyncio.shield(_reap(process))

    async def _load(self, process: asyncio.subprocess.Process, path: Path) -> None:
        """Send the process its job and wait until its models are loaded."""
        assert process.stdin is not None and process.stdout is not None
        job = {"socket": str(path), "roles": self.roles, "options": self.options, "nice": self._nice}
        process.stdin.write(json.dumps(job, default=str).encode() + b"\n")
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            raise WorkerError(
                f"the {self.name} worker had not loaded its models after {LOAD_SECONDS:.0f} s"
            ) from None
        if not line:
            raise WorkerError(f"the {self.name} worker died while it loaded its models")
        reply = json.loads(line)
        if "error" in reply:
            raise error_from(reply["error"])

    async def _watch(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        """Ping until the process ends or hangs, then raise WorkerError."""
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
                head_size, blob_size = sizes(await reader.readexactly(PREFIX.size))
                header, payload = unpack(
                    await reader.readexactly(head_size), await reader.readexactly(blob_size)
                )
                if header["kind"] == "pong":
                    self._pong = clock.now()
                    self._busy = payload["busy_s"]
                    self._work.add(payload["work_s"], self._pong)
                    continue
                replies = self._pending.get(header["id"])
                if replies is None:
                    continue  # cancelled
                if "batch" in header:
                    metrics.batch_size.labels(header["role"]).observe(header["batch"])
                try:
                    replies.put_nowait((header["kind"], header.get("error") or payload))
                except asyncio.QueueFull:
                    self._cancel(header["id"])
                    replies.get_nowait()
                    replies.put_nowait(
                        ("error", {"class": "CapacityError", "message": "the stream was not read in time"})
                    )

    def _send(self, header: dict[str, Any], payload: Payload) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(header, payload))

    def _fail_pending(self) -> None:
        for replies in self._pending.values():
            while replies.full():
                replies.get_nowait()
            replies.put_nowait(("error", {"class": "WorkerError", "message": f"the {self.name} worker died"}))

    def _cancel(self, number: int) -> None:
        """Forget a request and cancel its work; no-op once it has ended."""
        if self._pending.pop(number, None) is not None:
            self._send({"id": number, "kind": "cancel"}, {})

    async def request(
        self, kind: str, role: str, op: str, payload: Payload, deadline_in_s: float
    ) -> AsyncGenerator[Payload, None]:
        """Send one request and yield its results; closing the generator early cancels the work."""
        self._start_requested.set()
        deadline = clock.now() + deadline_in_s
        self._requests += 1
        number = self._requests
        try:
            async with asyncio.timeout_at(deadline):
                await self._up.wait()
                replies: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(_STREAM_ITEMS)
                self._pending[number] = replies
                header = {
                    "id": number,
                    "kind": kind,
                    "role": role,
                    "op": op,
                    "deadline_in_s": max(0.0, deadline - clock.now()),
                    "idle": idle_class(),
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
                        reply, body = await replies.get()
                except TimeoutError:
                    raise DeadlineMissed(f"{role}.{op} did not answer in time") from None
                if reply == "error":
                    self._pending.pop(number, None)
                    raise error_from(body)
                if reply != "end":
                    yield body
                if reply in ("end", "result"):
                    self._pending.pop(number, None)
                    return
        finally:
            self._cancel(number)


@dataclass(frozen=True, slots=True, weakref_slot=True)  # the router keeps vectors as long as its role
class _RoleClient:
    """One role of one worker; implements Role."""

    worker: Worker
    name: str

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        async with contextlib.aclosing(self._request("call", op, payload, deadline_in_s)) as items:
            async for item in items:
                return dict(item)
        raise WorkerError(f"{self.name}.{op} returned no result")

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        async with contextlib.aclosing(self._request("stream", op, payload, deadline_in_s)) as items:
            async for item in items:
                yield item

    def _request(
        self, kind: str, op: str, payload: Payload, deadline_in_s: float
    ) -> AsyncGenerator[Payload, None]:
        return self.worker.request(kind, self.name, op, payload, deadline_in_s)


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait for a killed process and close its pipes."""
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
    transport = getattr(process, "_transport", None)  # asyncio has no public way to close the stdout pipe
    if transport is not None:
        transport.close()
