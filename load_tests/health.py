"""How late `/healthz` is answered on a kept connection, asked from a process of its own.

What stalls the server's event loop shows here as one late answer. The other load of this machine shows too,
so measure with and without what is suspected, in turns.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Self

from streamsvc.evaluation.score_captions import percentile

INTERVAL = 0.01  # seconds between an answer and the next request
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it was sent (monotonic seconds), and the milliseconds until its answer."""

    at: float
    late: float


class HealthProbe:
    """Asks from its start to `answers`, or to the end of its context."""

    def __init__(self, port: int) -> None:
        here, there = multiprocessing.Pipe()
        self._pipe = here
        self._process = multiprocessing.get_context("spawn").Process(
            target=_ask, args=(port, there), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        self._pipe.recv()  # the first answer has come
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def answers(self) -> list[Answer]:
        """All answers so far; it asks no more."""
        self._pipe.send(None)
        return list(self._pipe.recv())


def _ask(port: int, pipe: Connection) -> None:
    found: list[Answer] = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not pipe.poll():
            sent = time.monotonic()
            connection.sendall(_REQUEST % port)
            read = b""
            while not read.endswith(b"}"):
                piece = connection.recv(4096)
                if not piece:
                    raise SystemExit("the kept connection was closed")
                read += piece
            found.append(Answer(sent, 1000 * (time.monotonic() - sent)))
            if len(found) == 1:
                pipe.send(None)
            time.sleep(INTERVAL)
    pipe.send(found)


def between(answers: Sequence[Answer], start: float, end: float) -> list[float]:
    """Milliseconds of the answers to requests sent between two times."""
    return [answer.late for answer in answers if start <= answer.at < end]


def share(late: Sequence[float], percent: float) -> float:
    """A percentile of milliseconds; without any, infinite: nothing was answered."""
    found = percentile(late, percent)
    return float("inf") if found is None else found
