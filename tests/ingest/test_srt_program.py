"""Our side of the SRT listener's process, which is played here: asked, answered, handed its callers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core import metrics
from streamsvc.core.config import Ingest
from streamsvc.core.errors import (
    CapacityError,
    ConfigError,
    Conflict,
    Forbidden,
    InvalidRequest,
    RateLimited,
    SourceError,
    StreamsvcError,
    Unauthorized,
)
from streamsvc.ingest import libsrt, srt_program
from streamsvc.ingest.srt_program import Connected, SrtProgram

SETTINGS = Ingest(srt_listen="127.0.0.1:0", srt_latency_ms=300, srt_passphrase="a passphrase")
FOLDER = Path()


class Recorded:
    """Implements Callers: keeps what it is asked, and raises `error`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.connected: list[Connected] = []
        self.error: Exception | None = None

    async def admit(self, stream_id: str, host: str, connected: Connected) -> None:
        self.asked.append((stream_id, host))
        self.connected.append(connected)
        if self.error is not None:
            raise self.error


class Process:
    """Plays the process: its ends of both channels."""

    def __init__(self, descriptors: Any) -> None:
        self.asks, self.media = (socket.socket(fileno=number) for number in descriptors)
        for sock in (self.asks, self.media):
            sock.setblocking(False)

    async def answer(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        got: dict[str, Any] = json.loads(await asyncio.wait_for(loop.sock_recv(self.asks, 4096), 30))
        return got

    async def ask(self, number: int) -> int:
        self.asks.send(json.dumps({"ask": number, "host": "192.0.2.7", "stream_id": "talk"}).encode())
        answer = await self.answer()
        assert answer["answer"] == number
        return int(answer["refused"])

    def accept(self, number: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.media, [json.dumps({"accepted": number}).encode()], [theirs.fileno()])
        return ours

    def close(self) -> None:
        self.asks.close()
        self.media.close()


@pytest.fixture(autouse=True)
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests need no libsrt."""
    monkeypatch.setattr(libsrt, "load", lambda: None)


@contextlib.asynccontextmanager
async def running(callers: Recorded) -> AsyncIterator[Process]:
    with contextlib.closing(SrtProgram(SETTINGS, callers)) as program:
        start = program.prepare(FOLDER)
        process = Process([socket.dup(number) for number in start.descriptors[1:]])
        with contextlib.closing(process):
            ready = asyncio.create_task(program.ready(FOLDER))
            assert await process.answer() == {
                "latency": 300,
                "passphrase": "a passphrase",
                "sandbox": "auto",
            }
            process.media.send(b'{"ready": true}')
            await ready
            yield process


async def test_nothing_secret_is_among_its_arguments() -> None:
    with contextlib.closing(SrtProgram(SETTINGS, Recorded())) as program:
        start = program.prepare(FOLDER)
        assert "passphrase" not in " ".join(start.arguments) + " ".join(start.environment.values())


async def test_an_admitted_caller_is_handed_its_stream() -> None:
    callers = Recorded()
    async with running(callers) as process:
        assert await process.ask(1) == 0
        assert callers.asked == [("talk", "192.0.2.7")]
        with process.accept(1) as caller:
            media = await callers.connected[0]()
            caller.send(b"abc")
            with media:
                assert media.recv(9) == b"abc"
            assert caller.recv(9) == b"", "it is disconnected"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthorized("no"), 1401),
        (Forbidden("no"), 1403),
        (Conflict("no"), 1409),
        (CapacityError("no"), 1402),
        (RateLimited("no"), 1402),
        (InvalidRequest("no"), 1400),
        (StreamsvcError("no"), 1500),
        (ValueError("a fault of ours"), 1500),
    ],
)
async def test_a_refusal_has_the_code_of_its_error(error: Exception, code: int) -> None:
    callers = Recorded()
    callers.error = error
    async with running(callers) as process:
        assert await process.ask(1) == code


async def test_a_caller_that_does_not_connect_after_our_consent_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(srt_program, "ACCEPT_SECONDS", 0.01)
    callers = Recorded()
    async with running(callers) as process:
        await process.ask(1)
        with pytest.raises(SourceError, match="did not connect"):
            await callers.connected[0]()
        with process.accept(1) as late:
            late.setblocking(False)
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(late, 9), 30) == b"", "it is disconnected"


async def test_packets_that_were_lost_are_counted() -> None:
    before = metrics.srt_lost._value.get()
    callers = Recorded()
    async with running(callers) as process:
        process.media.send(b'{"lost": 3}')
        await process.ask(1)
        await process.ask(2)  # by then the message before has been read
        assert metrics.srt_lost._value.get() == before + 3


async def test_the_port_stays_taken_while_the_process_is_started_again() -> None:
    with contextlib.closing(SrtProgram(SETTINGS, Recorded())) as program:
        first, second = program.prepare(FOLDER), program.prepare(FOLDER)
        assert first.descriptors[0] == second.descriptors[0]
        with pytest.raises(
            ConfigError, match=r"ingest\.srt_listen: UDP 127.0.0.1:\d+: Address already in use"
        ):
            SrtProgram(Ingest(srt_listen=f"127.0.0.1:{program.port}"), Recorded())


def test_without_libsrt_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise libsrt.SrtError("libsrt is missing: install it")

    monkeypatch.setattr(libsrt, "load", missing)
    with pytest.raises(ConfigError, match=r"ingest\.srt_listen: libsrt is missing"):
        SrtProgram(SETTINGS, Recorded())
