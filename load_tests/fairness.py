"""Viewers with small tokens against another session's captions: on and off, in turns.

    python -m load_tests.fairness [--phases 12] [--seconds 20] [--sabotage] [--json FILE]

A session plays speech. In every other phase, holders of TOKENS tokens that may only subscribe to a second
session (one token gets half of a session's places) send pings as fast as they can, messages as large as is
allowed, and hold the other places of that session without ever reading what its log has for them; they come
back when they are cut off. What the captions of the first session waited for the hear worker (the stage
"queue" of their events) must move by less than MOVE ms in the median, and `/healthz` (health.py) must stay
below STALL ms. At last all places of the second session are taken by viewers that never read: a place must be
free FREE seconds after the time that one part may take.
Exit status 1: a promise was missed. `--sabotage` takes the limits of sockets away: it must fail.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import itertools
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect

from load_tests import health, report
from load_tests.beside import Beside
from load_tests.crash import SCENARIO
from load_tests.health import HealthProbe
from load_tests.hearing import MEDIA
from load_tests.looped import looped
from load_tests.serve_process import KEY, Serve
from load_tests.subscriber import Came, Subscriber, spoken_until
from streamsvc.core.config import Limits
from streamsvc.evaluation.score_captions import percentile
from tests.builders.service import open_session

MOVE, STALL, FREE = 5.0, 50.0, 10.0  # milliseconds, milliseconds, seconds
PINGERS, LARGE = 1, 1  # viewers of each kind
SETTLE = 1.5  # seconds of a phase that do not count: what began before is still on its way
TOKENS = 3  # of the viewers, who take turns
LOGGED = 2000  # events in the log of the second session: 400 kB, more than the buffers of a socket hold
PIECE = 50  # of them over one socket: a burst of twice `messages_per_second` is allowed
BUFFER = 4096  # bytes that a viewer's socket takes unread
PATIENCE = 60.0
_PING = b'{"type":"ping"}'
_ESTABLISHED = 1  # state of a TCP connection (tcp_states.h of Linux), the first byte of TCP_INFO
_MASK = bytes(4)  # a mask that changes nothing


# --- the viewers, in a process of their own -------------------------------------------------------------


def frame(payload: bytes) -> bytes:
    """A text frame of a WebSocket client (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + _MASK + payload
    return bytes((0x81, 0x80 | 127)) + size.to_bytes(8, "big") + _MASK + payload


async def view(port: int, session: str, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open an event socket, all of the log first. Raises OSError: it is refused."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=BUFFER)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /v1/sessions/{session}/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    try:
        if b"101" not in await reader.readline():
            raise ConnectionError("the socket was refused")
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _send(port: int, session: str, token: str, piece: bytes) -> None:
    """Send a piece again and again, reading what comes, until the connection ends."""
    reader, writer = await view(port, session, token)

    async def read() -> None:
        while await reader.read(1 << 16):
            pass
        writer.transport.abort()

    reading = asyncio.create_task(read())
    try:
        while not writer.transport.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.transport.abort()


async def _stare(port: int, session: str, token: str) -> None:
    """Never read, until cut off."""
    _, writer = await view(port, session, token)
    try:
        plain: socket.socket = writer.get_extra_info("socket")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        # Nothing is read, so asyncio does not notice the end.
        while plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    finally:
        writer.transport.abort()


async def _harass(
    port: int, session: str, tokens: Sequence[str], seconds: float, places: int
) -> Counter[str]:
    counts: Counter[str] = Counter()
    turns = itertools.cycle(tokens)
    large = frame(b"x" * Limits().message_bytes * 60)

    async def again(name: str, piece: bytes | None) -> None:
        token = next(turns)
        while True:
            with contextlib.suppress(OSError):
                counts[name] += 1
                if piece is None:
                    await _stare(port, session, token)
                else:
                    await _send(port, session, token, piece)
            await asyncio.sleep(0.05)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(PINGERS):
                group.create_task(again("pinging", frame(_PING) * 50))
            for _ in range(LARGE):
                group.create_task(again("large", large))
            for _ in range(places - PINGERS - LARGE):
                group.create_task(again("staring", None))
    return counts


def harass(port: int, session: str, tokens: Sequence[str], seconds: float, places: int) -> Counter[str]:
    """Take `places` of a session for so long; how often each kind of viewer came."""
    return asyncio.run(_harass(port, session, tokens, seconds, places))


# --- what it costs --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """What was measured: milliseconds, with the viewers ("on") and without ("off").

    `queue`: of each caption event. `health`: of each request. `visits`: of the viewers. `free`: see
    `places_free`.
    """

    queue: dict[str, list[float]] = field(default_factory=lambda: {"on": [], "off": []})
    health: dict[str, list[float]] = field(default_factory=lambda: {"on": [], "off": []})
    visits: Counter[str] = field(default_factory=Counter)
    free: float | None = None

    def moved(self) -> float | None:
        """By how much the median of the queue wait is longer with the viewers; None: nothing was said."""
        on, off = (percentile(self.queue[name], 50) for name in ("on", "off"))
        return None if on is None or off is None else on - off


def queued(came: Sequence[Came], start: float, end: float) -> list[float]:
    """Milliseconds that the captions which came between two times waited for the hear worker."""
    return [
        float(one.event["stages"]["queue"])
        for one in came
        if start + SETTLE <= one.at < end and spoken_until(one) >= 0 and "queue" in one.event["stages"]
    ]


def _has(seq: int, one: Came) -> bool:
    return bool(one.event["seq"] >= seq)


async def fill(server: Serve, session: str, events: int) -> None:
    """Give a session a log of so many events at least. Raises SystemExit: it does not come."""
    address = f"{server.address.replace('http', 'ws', 1)}/v1/sessions/{session}/events?types=error"
    async with Subscriber(server.address, session, KEY, "session.updated") as reader:
        for reached in range(PIECE, events + PIECE, PIECE):
            async with connect(address, additional_headers={"Authorization": f"Bearer {KEY}"}) as changing:
                for _ in range(PIECE):
                    await changing.send('{"type":"session.update","vocabulary":["Ada"]}')
                if not await reader.until(functools.partial(_has, reached), PATIENCE):
                    raise SystemExit(f"a log of {reached} events did not come; see {server.log}")


async def places_free(
    server: Serve, session: str, tokens: Sequence[str], slow_seconds: float
) -> float | None:
    """Take all places without reading.

    Returns:
        Seconds after `slow_seconds` until one more viewer is taken; None: not in twice FREE, or they were
        never all taken.
    """
    full = asyncio.Event()

    async def stay(token: str) -> None:
        while not full.is_set():  # who came too early to find a place comes again
            await _stare(server.port, session, token)

    turns = itertools.cycle(tokens)
    staring = [asyncio.create_task(stay(next(turns))) for _ in range(Limits().subscribers)]
    url = f"{server.address}/v1/sessions/{session}/events?after=0"
    until = time.monotonic() + PATIENCE
    began = 0.0
    try:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as client:
            while time.monotonic() < until:
                async with client.stream("GET", url) as answer:
                    if answer.status_code == 200 and full.is_set():
                        return time.monotonic() - began - slow_seconds
                    if answer.status_code != 200 and not full.is_set():
                        full.set()
                        began = time.monotonic()
                        until = began + slow_seconds + 2 * FREE
                await asyncio.sleep(0.1)
            return None
    finally:
        for task in staring:
            task.cancel()
        await asyncio.gather(*staring, return_exceptions=True)


def server_in(folder: Path, slow_seconds: float, *, sabotage: bool = False) -> Serve:
    """A server with a key, not started. `slow_seconds`: that a viewer may take for one part."""
    limits: dict[str, float] = {"connections_per_address": 1000, "subscriber_seconds": slow_seconds}
    limits["updates_per_minute"] = 10**6  # `fill`
    if sabotage:
        limits |= {"messages_per_second": 10**9, "frames_per_second": 10**9, "subscriber_seconds": 3600}
    settings: dict[str, dict[str, Any]] = {
        "server": {"api_key": KEY, "sources": [str(folder)]},
        "limits": limits,
        "budget": {"ladder": False, "admission": False},
    }
    return Serve(folder, settings)


async def run(
    server: Serve,
    played: Path | None,
    *,
    phases: int,
    seconds: float,
    slow_seconds: float,
    events: int = LOGGED,
) -> Figures:
    """Measure on a running server, in phases of so many seconds; `played`: lasts long enough, or None."""
    found = Figures()
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server.address, headers=headers, timeout=60) as client:
        watched = await open_session(client)
        heard = await open_session(client, **({"source": f"file:{played}"} if played else {}))
        tokens = [await _token(client, watched) for _ in range(TOKENS)]
        await fill(server, watched, events)
        async with Subscriber(server.address, heard, KEY) as reader:
            if played is not None:
                await reader.until(lambda one: spoken_until(one) > 0, PATIENCE)
            spans = []
            with HealthProbe(server.port) as probe:
                for number in range(phases):
                    name, began = "on" if number % 2 else "off", time.monotonic()
                    if name == "on":
                        found.visits += await asyncio.to_thread(_harassed, server, watched, tokens, seconds)
                    else:
                        await asyncio.sleep(seconds)
                    spans.append((name, began, time.monotonic()))
                answers = await asyncio.to_thread(probe.answers)
            for name, began, ended in spans:
                found.queue[name] += queued(reader.came, began, ended)
                found.health[name] += health.between(answers, began, ended)
        found.free = await places_free(server, watched, tokens, slow_seconds)
    return found


async def _token(client: httpx.AsyncClient, session: str) -> str:
    """A token that may subscribe to one session, with a share of its own."""
    answer = await client.post("/v1/tokens", json={"session": session, "may": ["subscribe"]})
    answer.raise_for_status()
    return str(answer.json()["token"])


def _harassed(server: Serve, session: str, tokens: Sequence[str], seconds: float) -> Counter[str]:
    arguments = (server.port, session, tokens, seconds, Limits().subscribers)
    with Beside("load_tests.fairness.harass", *arguments) as viewers:
        return Counter(viewers.result())


def verdict(found: Figures) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = []
    moved = found.moved()
    if moved is None or moved >= MOVE:
        wrong.append(f"the queue wait of the captions moved by {'-' if moved is None else f'{moved:.1f}'} ms")
    if (late := health.share(found.health["on"], 100)) > STALL:
        wrong.append(f"/healthz took {late:.0f} ms ({health.share(found.health['off'], 100):.0f} without)")
    if found.free is None or found.free > FREE:
        wrong.append("a place that a slow viewer held was not free in time")
    return wrong


def told(found: Figures) -> str:
    """The figures in some lines."""
    rows = []
    for name in ("off", "on"):
        waits, late = found.queue[name], found.health[name]
        rows.append(
            f"{name}: queue wait p50 {percentile(waits, 50)}, p95 {percentile(waits, 95)} ms of {len(waits)} "
            f"captions; /healthz p50 {health.share(late, 50):.2f}, max {health.share(late, 100):.1f} ms"
        )
    return "\n".join(
        [*rows, f"viewers came: {dict(found.visits)}; a place was free {found.free} s after the limit"]
    )


async def _measured(chosen: argparse.Namespace, folder: Path) -> Figures:
    length = chosen.phases * (chosen.seconds + 10) + 3 * PATIENCE
    played = looped((chosen.media / SCENARIO).resolve(), folder / "played.mp4", length)
    slow_seconds = Limits().subscriber_seconds
    with server_in(folder, slow_seconds, sabotage=chosen.sabotage) as server:
        await asyncio.to_thread(server.wait_ready)
        return await run(
            server, played, phases=chosen.phases, seconds=chosen.seconds, slow_seconds=slow_seconds
        )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--phases", type=int, default=12, help="off and on, in turns (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a phase (%(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of recordings (%(default)s)")
    parser.add_argument("--sabotage", action="store_true", help="the control run: sockets without limits")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairness-") as folder:
        found = asyncio.run(_measured(chosen, Path(folder)))
    report.finish(told(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
