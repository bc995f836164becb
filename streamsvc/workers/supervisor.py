"""Worker processes, supervised: started, pinged, killed, restarted, and sent requests.

A worker serves one or more roles (hear, see, think, embed) and holds only caches: its death costs time, never
content. The supervisor kills a worker that freezes or hangs and starts another; one that keeps dying is
started ever more rarely. Pending requests of a dead worker fail with WorkerError; new ones wait for the
restart, within their deadlines. A *spare* is a second process with its models loaded, which takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.degradation import WorkRate
from streamsvc.core.errors import DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.idle_gate import idle_class
from streamsvc.core.roles import Payload, Role
from streamsvc.workers.framing import PREFIX, error_from, pack, sizes, unpack
from streamsvc.workers.lanes import HANG_SECONDS, LONG_BATCHES
from streamsvc.workers.process import CHILD, Job, WorkerProcess
from streamsvc.workers.role_client import Ask, RoleClient

log = structlog.get_logger()
_STREAM_ITEMS = 256  # unread items of one stream; more end the stream with CapacityError

PING_SECONDS = 0.25  # between pings
SILENT_SECONDS = 0.75  # without a pong: the worker is said to be silent
FREEZE_SECONDS = 2.0  # without a pong: the worker is killed. A pong needs no model, only the process to run
PROBE_SECONDS = 5.0  # without a result: a tiny inference is asked for
RESULT_SECONDS = 10.0  # a worker whose last result is older is not ready
# Seconds before a restart, the later ones after more short runs: at most five starts in the first minute.
PAUSES = (0.2, 2.0, 10.0, 30.0, 60.0)
STABLE_SECONDS = 30.0  # a run that lasted longer is not short
SPARE_SECONDS = 30.0  # after a start, before the spare is started: loading it takes a core for a second


class Worker:
    """One supervised worker process.

    Args:
        name: of the process, for logs.
        roles: dotted engine module by role, e.g. {"hear": "engines.asr"}.
        options: passed to `load` of every module.
        nice: added to the niceness of the process.
        lazy: start at the first request instead of at once.
        spare: keep a second process ready to take over.
    """

    program: ClassVar[str] = CHILD  # dotted module of the process

    def __init__(
        self,
        name: str,
        roles: Mapping[str, str],
        options: Mapping[str, Any],
        *,
        nice: int = 0,
        lazy: bool = False,
        spare: bool = False,
    ) -> None:
        self.name = name
        self.roles = dict(roles)
        self.pid: int | None = None
        self.failure: StreamsvcError | None = None  # why the last start failed
        self.options = dict(options)
        self._job = Job(name, self.roles, self.options, nice, self.program)
        metrics.worker_restarts.labels(name)  # begins at 0 (metrics.KNOWN_LABELS)
        self._keeps_spare = spare
        self._spare: asyncio.Task[WorkerProcess] | None = None
        self._start_requested = asyncio.Event()
        if not lazy:
            self._start_requested.set()
        self._up = asyncio.Event()
        self._tried = asyncio.Event()  # the first start has ended, well or not
        self._requests = 0
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Queue[tuple[str, Any]]] = {}
        self._pong = 0.0  # monotonic seconds of the last one
        self._result_at = 0.0  # monotonic seconds of the last result of an op
        self._busy = 0.0  # seconds that the oldest running batch had run at the last pong
        self._away = False  # at the last pong: what the process passes requests on to did not answer
        self._work = WorkRate()

    def role(self, name: str) -> Role:
        """The client of one role of this worker."""
        if name not in self.roles:
            raise ValueError(f"worker {self.name} serves {sorted(self.roles)}, not {name}")
        return RoleClient(self.request, name)

    @property
    def ready(self) -> bool:
        """Whether the process serves requests."""
        return self._up.is_set()

    @property
    def silent(self) -> bool:
        """Whether the models do not answer at the moment.

        The process has ended, freezes, or is being restarted, or what it passes requests on to is away.
        """
        if not self._tried.is_set():
            return False  # it has not been started
        return not self._up.is_set() or self._away or clock.now() - self._pong > SILENT_SECONDS

    @property
    def fresh(self) -> bool:
        """Whether the process serves requests, and one of them had a result in the last RESULT_SECONDS."""
        return self._up.is_set() and not self.silent and clock.now() - self._result_at <= RESULT_SECONDS

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
        short_runs = 0
        with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
            paths = (Path(folder) / f"{self.name}-{number}.sock" for number in itertools.count())
            try:
                while True:
                    started = clock.now()
                    try:
                        await self._serve(await self._next_process(paths), paths)
                    except StreamsvcError as error:
                        self.failure = error
                        log.warning("worker ended", worker=self.name, reason=error.message)
                    finally:
                        self._tried.set()
                    short_runs = 0 if clock.now() - started > STABLE_SECONDS else short_runs + 1
                    await clock.sleep(PAUSES[min(max(short_runs - 1, 0), len(PAUSES) - 1)])
                    metrics.worker_restarts.labels(self.name).inc()
            finally:
                if self._spare is not None:
                    await _ended(self._spare)

    async def _next_process(self, paths: Iterator[Path]) -> WorkerProcess:
        """The spare, if it is ready, else a new process. Raises StreamsvcError."""
        spare, self._spare = self._spare, None
        if spare is not None:
            if _is_usable(spare):
                return spare.result()
            await _ended(spare)
        return await WorkerProcess.start(self._job, next(paths))

    async def _start_spare(self, paths: Iterator[Path]) -> WorkerProcess:
        await clock.sleep(SPARE_SECONDS)  # captions have begun, or the worker has died again
        return await WorkerProcess.start(self._job, next(paths))

    async def _serve(self, process: WorkerProcess, paths: Iterator[Path]) -> None:
        """Serve until the process ends, freezes or hangs; close it.

        Raises:
            WorkerError: which of these it was.
        """
        self.pid = process.pid
        self._writer = process.writer
        self._pong = self._result_at = clock.now()  # loading ends with an inference
        self._busy = 0.0
        self._away = False
        self.failure = None
        reading = asyncio.create_task(self._read(process.reader))
        if self._keeps_spare:
            self._spare = asyncio.create_task(self._start_spare(paths))
        self._up.set()
        self._tried.set()
        log.info("worker ready", worker=self.name, pid=process.pid, runtimes=dict(process.runtimes))
        try:
            await self._watch(process, reading)
        finally:
            self._up.clear()
            self._work = WorkRate()
            self.pid = None
            self._writer = None
            self._fail_pending()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await process.close()

    async def _watch(self, process: WorkerProcess, reading: asyncio.Task[None]) -> None:
        """Ping, and probe where no result comes, until the process ends, freezes or hangs.

        Raises:
            WorkerError: which of these it was.
        """
        exited = asyncio.create_task(process.process.wait())
        probing: asyncio.Task[None] | None = None
        try:
            while True:
                self._send({"id": 0, "kind": "ping"}, {})
                due = clock.now() + PING_SECONDS
                await asyncio.wait(
                    {exited, reading}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                now = clock.now()
                if exited.done():
                    raise WorkerError(f"the {self.name} worker ended with status {exited.result()}")
                if reading.done():
                    raise WorkerError(f"the {self.name} worker closed its socket")
                if self._busy > LONG_BATCHES.get(self.name, HANG_SECONDS):
                    raise WorkerError(f"the {self.name} worker hung and was killed")
                if now - due > PING_SECONDS:  # we were held up ourselves: its pongs may not be read yet
                    self._pong = max(self._pong, now - SILENT_SECONDS)
                if now - self._pong > FREEZE_SECONDS:
                    raise WorkerError(f"the {self.name} worker froze and was killed")
                if now - self._result_at > PROBE_SECONDS and (probing is None or probing.done()):
                    probing = asyncio.create_task(self._probe())
        finally:
            for task in (exited, probing):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    async def _probe(self) -> None:
        """Ask each role for a tiny inference; `fresh` tells what became of it."""
        for role in self.roles:
            with contextlib.suppress(StreamsvcError):
                request = self.request(Ask("probe", role, ""), {}, PROBE_SECONDS)
                async with contextlib.aclosing(request) as results:
                    async for _ in results:
                        pass

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
                    self._away = payload.get("away", False)
                    self._work.add(payload["work_s"], self._pong)
                    continue
                if header["kind"] != "error":
                    self._result_at = clock.now()
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
        self, ask: Ask, payload: Payload, deadline_in_s: float
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
                    "kind": ask.kind,
                    "role": ask.role,
                    "op": ask.op,
                    "affinity": ask.affinity,
                    "deadline_in_s": max(0.0, deadline - clock.now()),
                    "idle": idle_class() or ask.kind == "probe",
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
                    raise DeadlineMissed(f"{ask.role}.{ask.op} did not answer in time") from None
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


def _is_usable(spare: asyncio.Task[WorkerProcess]) -> bool:
    return spare.done() and not spare.cancelled() and spare.exception() is None and spare.result().alive


async def _ended(spare: asyncio.Task[WorkerProcess]) -> None:
    """Stop a spare that is being started, or end the one that was."""
    spare.cancel()
    with contextlib.suppress(asyncio.CancelledError, StreamsvcError):
        await (await spare).close()
