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
START_SECONDS = 10.0


def missing() -> str:
    """Why no test can have a Redis; "": it can."""
    return "" if PROGRAM else "redis-server is not installed (Debian: redis-server)"


class RedisServer:
    """One redis-server; `start`, and `kill` at the end.

    Args:
        folder: for its files.
        keeps: writes each command to disk before it answers, and has it after a restart.
        password: that clients must give; "": none.
    """

    def __init__(self, folder: Path, *, keeps: bool = False, password: str = "") -> None:
        self.port = free_tcp_port()
        self._folder = folder
        self._keeps = keeps
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM is not None
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._keeps else "no",
            "appendfsync": "always",
            "enable-debug-command": "local",
        }
        if self._password:
            options["requirepass"] = self._password
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert time.monotonic() < deadline and self._process.poll() is None, "redis-server does not start"
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it answers now."""
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
