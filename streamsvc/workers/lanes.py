"""Loaded engines and their lanes: each op has a bounded queue and its threads.

Batching across sessions happens here and nowhere else, whatever transport brings the requests.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from streamsvc.core import malloc
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.core.roles import Payload

QUEUED = 64  # requests per op; more are refused with CapacityError
HANG_SECONDS = 20.0  # of one batch: whoever supervises the engines ends their process
LONG_BATCHES = {
    "sight": 180.0
}  # the same of a worker: one picture is ten seconds of a core that others leave it


class WorkMeter:
    """CPU seconds of this process, but for the time in which nothing but idle-class work ran.

    Where both kinds run at once, all counts as work: threads of native libraries cannot be told apart.

    Args:
        cpu: CPU seconds of this process so far.
    """

    def __init__(self, cpu: Callable[[], float] = time.process_time) -> None:
        self._cpu = cpu
        self._lock = threading.Lock()
        self._running = [0, 0]  # runs of work, and of idle-class work
        self._since = cpu()
        self._idle = 0.0

    @contextlib.contextmanager
    def run(self, idle: bool) -> Iterator[None]:
        """Count the body as one run."""
        self._change(idle, 1)
        try:
            yield
        finally:
            self._change(idle, -1)

    def _change(self, idle: bool, by: int) -> None:
        with self._lock:
            self._settle()
            self._running[idle] += by

    def _settle(self) -> None:
        now = self._cpu()
        if self._running[True] and not self._running[False]:
            self._idle += now - self._since
        self._since = now

    @property
    def seconds(self) -> float:
        """CPU seconds of work so far."""
        with self._lock:
            self._settle()
            return self._since - self._idle


class Replies(Protocol):
    """Where what becomes of requests goes. Called from the threads of lanes."""

    def result(self, request: Request, payload: Payload, batch: int) -> None:
        """The whole result of a request that ran in a batch of so many; nothing follows."""
        ...

    def item(self, request: Request, payload: Payload) -> None:
        """One item of a stream."""
        ...

    def end(self, request: Request) -> None:
        """The end of a stream."""
        ...

    def fail(self, request: Request, error: BaseException) -> None:
        """The failure of a request; nothing follows."""
        ...

    def forget(self, request: Request) -> None:
        """The request was cancelled; nothing follows."""
        ...


@dataclass(slots=True)
class Request:
    """One request that is queued or running. `idle`: idle-class work."""

    replies: Replies
    number: int
    role: str
    deadline: float  # monotonic seconds
    payload: Payload
    idle: bool = False
    cancelled: bool = False


class Lane:
    """One op of one role: its bounded queue and its threads."""

    def __init__(self, role: str, op: Any, meter: WorkMeter) -> None:
        self.op = op
        self._meter = meter
        self.queue: queue.Queue[Request | None] = queue.Queue(QUEUED)  # None: a thread is to end
        self.running: dict[int, float] = {}  # thread id -> monotonic start of its batch
        target = self._run_batches if hasattr(op, "batch") else self._run_streams
        for _ in range(op.threads):
            threading.Thread(target=target, name=f"lane {role}", daemon=True).start()

    def close(self) -> None:
        """Have the threads end after what is queued now."""
        for _ in range(self.op.threads):
            self.queue.put(None)

    def _next(self) -> Request | None:
        while (request := self.queue.get()) is not None:
            if self._is_wanted(request):
                return request
        return None

    def _is_wanted(self, request: Request) -> bool:
        """Whether to start a request: it is neither cancelled nor past its deadline."""
        if request.cancelled:
            request.replies.forget(request)
            return False
        if time.monotonic() > request.deadline:
            request.replies.fail(request, DeadlineMissed("the deadline passed before the work began"))
            return False
        return True

    def _batch(self, first: Request) -> list[Request]:
        """The first request and those that wait behind it, as many as the op takes at once."""
        batch = [first]
        while len(batch) < self.op.batch:
            try:
                request = self.queue.get_nowait()
            except queue.Empty:
                break
            if request is None:
                self.queue.put(None)
                break
            if self._is_wanted(request):
                batch.append(request)
        return batch

    def _run_batches(self) -> None:
        thread = threading.get_ident()
        while (first := self._next()) is not None:
            batch = self._batch(first)
            self.running[thread] = time.monotonic()
            results: Sequence[Payload | Exception]
            try:
                with self._meter.run(all(request.idle for request in batch)):
                    results = self.op.run([request.payload for request in batch])
            except Exception as error:  # any failure of an engine fails the request, not the worker
                results = [error] * len(batch)
            self.running.pop(thread, None)
            for request, result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    request.replies.fail(request, result)
                else:
                    request.replies.result(request, result, len(batch))

    def _run_streams(self) -> None:
        thread = threading.get_ident()
        while (request := self._next()) is not None:
            items = self.op.run(request.payload)
            try:
                while True:
                    self.running[thread] = time.monotonic()
                    with self._meter.run(request.idle):
                        item = next(items, None)
                    if item is None or request.cancelled:
                        break
                    if time.monotonic() > request.deadline:
                        raise DeadlineMissed("the deadline passed before the stream ended")
                    request.replies.item(request, item)
                request.replies.end(request)
            except Exception as error:  # as above
                request.replies.fail(request, error)
            finally:
                self.running.pop(thread, None)
                items.close()


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one worker, loaded.

    `probes`: the tiny request of each role; None: nothing of it computes here. `runtimes`: what computes, by
    role, where an engine tells.
    """

    lanes: Mapping[tuple[str, str], Lane]
    probes: Mapping[str, tuple[str, Payload] | None]
    runtimes: Mapping[str, str]
    meter: WorkMeter = field(default_factory=WorkMeter)

    @classmethod
    def load(cls, roles: Mapping[str, str], options: Mapping[str, Any]) -> Self:
        """Load the engines of `roles`, dotted module by role. Raises whatever an engine raises."""
        lanes: dict[tuple[str, str], Lane] = {}
        probes, runtimes = {}, {}
        meter = WorkMeter()
        for role, module in roles.items():
            engine = importlib.import_module(module).load(options)
            probes[role] = engine.probe
            if "runtime" in engine.describe:
                runtimes[role] = engine.describe["runtime"]
            lanes.update({(role, name): Lane(role, op, meter) for name, op in engine.ops.items()})
        malloc.trim()
        return cls(lanes, probes, runtimes, meter)

    def close(self) -> None:
        """Have the threads of all lanes end after what is queued now."""
        for lane in self.lanes.values():
            lane.close()

    @property
    def busy_seconds(self) -> float:
        """That the oldest running batch has run."""
        starts = [start for lane in self.lanes.values() for start in list(lane.running.values())]
        return time.monotonic() - min(starts) if starts else 0.0

    def submit(self, op: str, request: Request) -> None:
        """Queue a request. Raises WorkerError: there is no such op; CapacityError: its queue is full."""
        lane = self.lanes.get((request.role, op))
        if lane is None:
            raise WorkerError(f"no op {request.role}.{op} in this worker")
        try:
            lane.queue.put_nowait(request)
        except queue.Full:
            raise CapacityError(f"{QUEUED} requests are queued for {request.role}.{op}") from None
