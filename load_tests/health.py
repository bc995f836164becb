"""How late `/healthz` is answered on a kept connection, asked from a process of its own.

What stalls the server's event loop shows here as one late answer. The other load of this machine shows too,
so measure with and without what is suspected, in turns.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from load_tests.beside import Beside, begun, stopped
from streamsvc.evaluation.score_captions import percentile

NICENESS = -10  # of the probe, where it is allowed: its own wait for a core is no fault of the server's
INTERVAL = 0.01  # seconds between an answer and the next request
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it was sent (monotonic seconds), and the milliseconds until its answer."""

    at: float
    late: float


class HealthProbe:
    """Asks from the begin of its context to `answers`."""

    def __init__(self, port: int) -> None:
        self._asking = Beside("load_tests.health.ask", port)

    def __enter__(self) -> Self:
        self._asking.__enter__()
        self._asking.wait_begun()
        return self

    def __exit__(self, *error: object) -> None:
        self._asking.__exit__()

    def answers(self) -> list[Answer]:
        """All answers so far; it asks no more."""
        return [Answer(*pair) for pair in self._asking.result()]


def ask(port: int) -> list[tuple[float, float]]:
    """Ask until stopped: see `Answer`."""
    with contextlib.suppress(PermissionError):
        os.nice(NICENESS)
    found: list[tuple[float, float]] = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not stopped():
            sent = time.monotonic()
            connection.sendall(_REQUEST % port)
            read = b""
            while not read.endswith(b"}"):
                piece = connection.recv(4096)
                if not piece:
                    raise SystemExit("the kept connection was closed")
                read += piece
            found.append((sent, 1000 * (time.monotonic() - sent)))
            if len(found) == 1:
                begun()
            time.sleep(INTERVAL)
    return found


def between(answers: Sequence[Answer], start: float, end: float) -> list[float]:
    """Milliseconds of the answers to requests sent between two times."""
    return [answer.late for answer in answers if start <= answer.at < end]


def share(late: Sequence[float], percent: float) -> float:
    """A percentile of milliseconds; without any, infinite: nothing was answered."""
    found = percentile(late, percent)
    return float("inf") if found is None else found
