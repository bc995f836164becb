"""A real redis-server on a free loopback port, which can be killed, stopped and restarted."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.builders.free_ports import free_tcp_port

PROGRAM = shutil.which("redis-server")
START_SECONDS = 20.0


def missing() -> str:
    """Why no test can have a Redis; "": it can."""
    return "" if PROGRAM else "redis-server is not installed (Debian: redis-server)"


class RedisServer:
    """One redis-server; `start`, and `kill` at the end.

    Args:
        folder: for its files and its log; it is made if need be.
        keeps: it has an append-only file, and so its data after a restart.
        password: that clients must give; "": none.
        fsync: when the file is written to the disk: "always", before each answer, or "everysec".
    """

    def __init__(
        self, folder: Path, *, keeps: bool = False, password: str = "", fsync: str = "always"
    ) -> None:
        self.port = free_tcp_port()
        self._folder = folder
        self._keeps = keeps
        self._password = password
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers. Raises RuntimeError: it does not."""
        assert PROGRAM is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._keeps else "no",
            "appendfsync": self._fsync,
            "loglevel": "warning",
            "enable-debug-command": "local",
        }
        if self._password:
            options["requirepass"] = self._password
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        log_path = self._folder / "redis.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                raise RuntimeError(f"redis-server does not start; its log: {log_path}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it has read its data and answers now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, as by kill -9. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Have it answer nothing until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
