"""The worker process: loads engines and serves their ops on a Unix socket.

The parent writes one JSON line to stdin (socket path, roles, options, niceness) and keeps stdin open; its end
tells the child to exit. The child answers with one JSON line on stdout: `ready` with the `runtimes` by role,
or `error` as in `framing`.

What it is asked goes to the lanes of its engines (`lanes`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Payload
from streamsvc.workers.child_startup import Startup
from streamsvc.workers.framing import PREFIX, error_payload, pack, sizes, unpack
from streamsvc.workers.lanes import Engines, Request


class _Connection:
    """The socket of one connected serve process; what becomes of its requests is written to it (Replies)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.requests: dict[int, Request] = {}
        self._lock = threading.Lock()

    def send(self, header: Mapping[str, Any], payload: Payload) -> None:
        """Write one frame; a closed socket is ignored."""
        with self._lock, contextlib.suppress(OSError):
            self.sock.sendall(pack(header, payload))

    def result(self, request: Request, payload: Payload, batch: int) -> None:
        """See Replies, here and below."""
        self.forget(request)
        header = {"id": request.number, "kind": "result", "role": request.role, "batch": batch}
        self.send(header, payload)

    def item(self, request: Request, payload: Payload) -> None:
        self.send({"id": request.number, "kind": "item"}, payload)

    def end(self, request: Request) -> None:
        self.forget(request)
        self.send({"id": request.number, "kind": "end"}, {})

    def fail(self, request: Request, error: BaseException) -> None:
        self.forget(request)
        self.send({"id": request.number, "kind": "error", "error": error_payload(error)}, {})

    def forget(self, request: Request) -> None:
        self.requests.pop(request.number, None)

    def frames(self) -> Iterator[tuple[dict[str, Any], Payload]]:
        """Read frames until the socket is closed."""
        with self.sock, self.sock.makefile("rb") as file, contextlib.suppress(OSError):
            while prefix := file.read(PREFIX.size):
                head, blob = sizes(prefix)
                yield unpack(file.read(head), file.read(blob))


def _serve(connection: _Connection, engines: Engines) -> None:
    """Route the requests of one connection to their lanes."""
    for header, payload in connection.frames():
        kind, number = header["kind"], header["id"]
        if kind == "ping":
            told = {"busy_s": engines.busy_seconds, "work_s": engines.meter.seconds}
            connection.send({"id": number, "kind": "pong"}, told)
        elif kind == "cancel":
            if (request := connection.requests.get(number)) is not None:
                request.cancelled = True
        else:
            role, op = header["role"], header["op"]
            if kind == "probe":
                if (probe := engines.probes.get(role)) is None:  # nothing of it computes here
                    connection.send({"id": number, "kind": "result", "role": role}, {})
                    continue
                op, payload = probe
            due = time.monotonic() + header["deadline_in_s"]
            request = Request(connection, number, role, due, payload, bool(header.get("idle")))
            connection.requests[number] = request
            try:
                engines.submit(op, request)
            except StreamsvcError as error:
                connection.fail(request, error)
    for request in list(connection.requests.values()):
        request.cancelled = True


def main() -> None:
    """Load the engines, then serve until stdin is closed."""
    job = Startup.read()
    try:
        engines = Engines.load(job.roles, job.options)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(job.socket)
        Path(job.socket).chmod(0o600)
        listener.listen(16)
    except Exception as error:  # any failure is reported to the parent
        job.failed(error)
        return
    job.ready(engines.runtimes)

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve, args=(_Connection(sock), engines), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()  # returns when the parent closes the pipe or dies
    os._exit(0)  # do not wait for the engines' threads


if __name__ == "__main__":
    main()
