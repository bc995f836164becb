"""`streamsvc serve` as a process of its own, that load tests attack, kill and measure; Linux only."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from streamsvc.service import app
from streamsvc.service.service import Service

START_SECONDS = 180.0  # for the models to load, also on a busy machine
COMMAND = ("-m", "streamsvc")
KEY = "a key of load tests"
SOURCE_CHILD = "streamsvc.ingest.source_child"


class Serve:
    """A server on a free loopback port, stopped at the end of its context.

    Args:
        folder: for the data folder and the log, which outlive restarts.
        settings: groups of settings, e.g. `limits={"subscribers": 600}`.
        command: arguments of Python that run the command line.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Mapping[str, Any]], command: Sequence[str] = COMMAND
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.data = folder / "data"
        self.log = folder / "log"
        arguments = ["serve", "--port", str(self.port), "--data-dir", str(self.data), "--log-json"]
        self._command, self._arguments = tuple(command), arguments
        self._within: Sequence[str] = ()  # a command that runs it
        self._environment = {**os.environ, **environment(settings)}
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Where HTTP is served."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the serving process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, models: bool = True) -> None:
        """Start the process, and wait until it answers; its models still load.

        Args:
            models: False: it starts no worker until one is needed.

        Raises:
            SystemExit: it has ended; its last lines are in the message.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._within,
                    sys.executable,
                    *(self._command if models else _bare(self._command)),
                    *self._arguments,
                ],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._ready = threading.Event()
        threading.Thread(target=_announce, args=(self._process, self._ready), daemon=True).start()
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/healthz", timeout=5).status_code == 200:
                    return
            self._check()
            time.sleep(0.02)
        raise SystemExit(f"serve did not answer within {START_SECONDS:.0f} s; its log: {self.log}")

    def wait_ready(self) -> None:
        """Wait until the models are loaded. Raises SystemExit: they are not."""
        until = time.monotonic() + START_SECONDS
        while not self._ready.wait(0.1):
            self._check()
            if time.monotonic() > until:
                raise SystemExit(f"serve was not ready within {START_SECONDS:.0f} s; its log: {self.log}")

    def _check(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            last = self.log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"serve ended with status {self._process.returncode}: {last}")

    def kill(self) -> None:
        """Kill the process alone, without a word (`kill -9`); its workers notice that by themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process as Ctrl-C does, and kill it where that does not help."""
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def workers(self) -> dict[str, int]:
        """The process of each worker that was started, as the log tells it; it may have ended since."""
        return {line["worker"]: line["pid"] for line in self.logged("worker ready")}

    def sources(self) -> dict[str, int]:
        """The processes of sources that run now."""
        running = psutil.Process(self.pid).children(recursive=True)
        found = [child.pid for child in running if SOURCE_CHILD in child.cmdline()]
        return {f"source {number}": pid for number, pid in enumerate(found, 1)}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in map(_json, lines) if line.get("event") == event]


def pin(pids: Sequence[int], cpus: Sequence[int]) -> None:
    """Pin processes, with all their threads, to some cores; [] or (): all."""
    if not cpus:
        return
    for pid in pids:
        for folder in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(folder.name), cpus)


def without_workers() -> None:
    """Let servers of this process start no worker until one is needed: for tests that need none."""
    app.Service = functools.partial(Service, at_once=())  # type: ignore[assignment,attr-defined]


def _bare(command: Sequence[str]) -> tuple[str, str]:
    """The same arguments of Python, for a server without workers."""
    run = command[1] if command[0] == "-c" else "from streamsvc.__main__ import main; main()"
    return "-c", f"from load_tests.serve_process import without_workers; without_workers(); {run}"


def _announce(process: subprocess.Popen[bytes], ready: threading.Event) -> None:
    """Set `ready` once the process has printed a line, and read on, so that it never waits for us."""
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # closed
        if process.stdout.readline():
            ready.set()


def _json(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}


def environment(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Groups of settings as environment variables."""
    return {
        f"STREAMSVC_{group}__{name}".upper(): value if isinstance(value, str) else json.dumps(value)
        for group, values in settings.items()
        for name, value in values.items()
    }


def memory_mb(pid: int) -> float:
    """PSS of a process in MB."""
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6
