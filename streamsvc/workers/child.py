"""The worker process: loads engines and serves their ops on a Unix socket.

The parent writes one JSON line to stdin (socket path, roles, options, niceness) and keeps stdin open; its end
tells the child to exit. The child answers with one JSON line on stdout: `ready` with the `runtimes` by role,
or `error` as in `framing`.

Each op has a lane: a bounded queue and its threads. Batching across sessions happens here and nowhere else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamsvc.core import malloc
from streamsvc.core.errors import CapacityError, DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.redaction import redact_libraries
from streamsvc.core.roles import Payload
from streamsvc.workers.framing import PREFIX, error_payload, pack, sizes, unpack

_QUEUED = 64  # requests per op; more are refused with CapacityError


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


@dataclass(slots=True)
class _Request:
    """One request that is queued or running. `idle`: idle-class work."""

    connection: _Connection
    number: int
    deadline: float  # monotonic seconds
    payload: Payload
    idle: bool = False
    cancelled: bool = False


class _Connection:
    """The socket of one connected serve process."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.requests: dict[int, _Request] = {}
        self._lock = threading.Lock()

    def send(self, header: Mapping[str, Any], payload: Payload) -> None:
        """Write one frame; a closed socket is ignored."""
        with self._lock, contextlib.suppress(OSError):
            self.sock.sendall(pack(header, payload))

    def fail(self, request: _Request, error: BaseException) -> None:
        """Send an error frame for a request."""
        self.requests.pop(request.number, None)
        self.send({"id": request.number, "kind": "error", "error": error_payload(error)}, {})

    def frames(self) -> Iterator[tuple[dict[str, Any], Payload]]:
        """Read frames until the socket is closed."""
        with self.sock, self.sock.makefile("rb") as file, contextlib.suppress(OSError):
            while prefix := file.read(PREFIX.size):
                head, blob = sizes(prefix)
                yield unpack(file.read(head), file.read(blob))


class _Lane:
    """One op of one role: its bounded queue and its threads."""

    def __init__(self, role: str, op: Any, meter: WorkMeter) -> None:
        self.role = role
        self.op = op
        self._meter = meter
        self.queue: queue.Queue[_Request] = queue.Queue(_QUEUED)
        self.running: dict[int, float] = {}  # thread id -> monotonic start of its batch
        target = self._run_batches if hasattr(op, "batch") else self._run_streams
        for _ in range(op.threads):
            threading.Thread(target=target, daemon=True).start()

    def _next(self) -> _Request:
        while True:
            request = self.queue.get()
            if self._is_wanted(request):
                return request

    def _is_wanted(self, request: _Request) -> bool:
        """Whether to start a request: it is neither cancelled nor past its deadline."""
        if request.cancelled:
            request.connection.requests.pop(request.number, None)
            return False
        if time.monotonic() > request.deadline:
            request.connection.fail(request, DeadlineMissed("the deadline passed before the work began"))
            return False
        return True

    def _run_batches(self) -> None:
        thread = threading.get_ident()
        while True:
            batch = [self._next()]
            while len(batch) < self.op.batch:
                try:
                    request = self.queue.get_nowait()
                except queue.Empty:
                    break
                if self._is_wanted(request):
                    batch.append(request)
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
                    request.connection.fail(request, result)
                else:
                    request.connection.requests.pop(request.number, None)
                    header = {"id": request.number, "kind": "result", "role": self.role, "batch": len(batch)}
                    request.connection.send(header, result)

    def _run_streams(self) -> None:
        thread = threading.get_ident()
        while True:
            request = self._next()
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
                    request.connection.send({"id": request.number, "kind": "item"}, item)
                request.connection.requests.pop(request.number, None)
                request.connection.send({"id": request.number, "kind": "end"}, {})
            except Exception as error:  # as above
                request.connection.fail(request, error)
            finally:
                self.running.pop(thread, None)
                items.close()


def _serve(
    connection: _Connection,
    lanes: Mapping[tuple[str, str], _Lane],
    probes: Mapping[str, Any],
    meter: WorkMeter,
) -> None:
    """Route the requests of one connection to their lanes."""
    for header, payload in connection.frames():
        kind, number = header["kind"], header["id"]
        if kind == "ping":
            starts = [start for lane in lanes.values() for start in list(lane.running.values())]
            busy = time.monotonic() - min(starts) if starts else 0.0
            connection.send({"id": number, "kind": "pong"}, {"busy_s": busy, "work_s": meter.seconds})
        elif kind == "cancel":
            if (request := connection.requests.get(number)) is not None:
                request.cancelled = True
        else:
            role, op = header["role"], header["op"]
            if kind == "probe":
                if probes.get(role) is None:  # nothing of it computes here
                    connection.send({"id": number, "kind": "result", "role": role}, {})
                    continue
                op, payload = probes[role]
            due = time.monotonic() + header["deadline_in_s"]
            request = _Request(connection, number, due, payload, bool(header.get("idle")))
            connection.requests[number] = request
            lane = lanes.get((role, op))
            try:
                if lane is None:
                    raise WorkerError(f"no op {role}.{op} in this worker")
                lane.queue.put_nowait(request)
            except queue.Full:
                connection.fail(
                    request,
                    CapacityError(f"{_QUEUED} requests are queued for {role}.{op}"),
                )
            except WorkerError as error:
                connection.fail(request, error)
    for request in list(connection.requests.values()):
        request.cancelled = True


def main() -> None:
    """Load the engines, then serve until stdin is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    job = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print; stdout carries the ready line only
    redact_libraries(lambda event, fields: print(event, fields, file=sys.stderr))
    os.nice(job["nice"])
    try:
        lanes = {}
        probes = {}
        runtimes = {}
        meter = WorkMeter()
        for role, module in job["roles"].items():
            engine = importlib.import_module(module).load(job["options"])
            probes[role] = engine.probe
            if "runtime" in engine.describe:
                runtimes[role] = engine.describe["runtime"]
            lanes.update({(role, name): _Lane(role, op, meter) for name, op in engine.ops.items()})
        malloc.trim()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(job["socket"])
        Path(job["socket"]).chmod(0o600)
        listener.listen(16)
    except Exception as error:  # any failure is reported to the parent
        print(json.dumps({"error": error_payload(error)}), file=out, flush=True)
        if not isinstance(error, StreamsvcError):
            raise
        return
    print(json.dumps({"ready": True, "runtimes": runtimes}), file=out, flush=True)

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(
                target=_serve, args=(_Connection(sock), lanes, probes, meter), daemon=True
            ).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()  # returns when the parent closes the pipe or dies
    os._exit(0)  # do not wait for the engines' threads


if __name__ == "__main__":
    main()
