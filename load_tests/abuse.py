"""Abuse serve without a token: what it costs those who have one.

    python -m load_tests.abuse [--abusers 100] [--seconds 20] [--turns 3] [--sabotage] [--json FILE]

`abusers`, in one process, send huge JSON bodies, headers byte by byte, nothing at all (each at an address of
its own: 127.0.0.3 and on), and wrong keys (all at one address), in turns with quiet. Meanwhile `/healthz` is
asked on a kept connection (health.py; serve has a core of its own), and a holder of the right key, at the
address of those with wrong ones, lists the sessions; it sends huge bodies too, and bodies that stop half way.
Then HALF_OPEN sockets are opened that send nothing. Promises: memory grows by GROWTH MB at most; `/healthz`
within STALL ms during abuse, and its median below MEDIAN ms in quiet; the right key is never refused; huge
bodies are answered 401 without a key and 413 with one, wrong keys 401, then 429, half a body 400; the
half-open sockets are gone after the header time. Exit status 1: a promise was missed. `--sabotage` takes the
limits away: it must fail.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from load_tests import health, report
from load_tests.beside import Beside
from load_tests.health import HealthProbe
from load_tests.serve_process import COMMAND, KEY, Serve, pin
from streamsvc.__main__ import main as command_line
from streamsvc.core.config import Limits
from streamsvc.service.request_guard import RequestGuard

GROWTH, STALL, MEDIAN = 5.0, 50.0, 2.0  # MB; milliseconds
HALF_OPEN = 1000
BODY_MB = 90.0
SABOTAGED_BODY_MB = 4.0  # what a hundred abusers send is then held in memory, as objects
BODY_SECONDS = 5.0  # that a body may take here
SABOTAGE = ("-c", "from load_tests.abuse import serve_sabotaged; serve_sabotaged()")
_PIECE = b"{}," * 20_000
_HOLDER = "127.0.0.2"  # who has the right key; an abuser at the same address tries wrong ones
_POLL = 0.1


def serve_sabotaged() -> None:
    """The command line with bodies that are read before anybody asks for a key."""
    RequestGuard._authenticate = lambda *_, **__: None  # type: ignore[method-assign]
    command_line()


# --- the abusers, in a process of their own -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attack:
    """What a process of abusers does, for so many seconds."""

    port: int
    abusers: int
    seconds: float
    body: int  # bytes


async def _exchange(place: tuple[str, int], source: str, pieces: Any) -> str:
    """Send pieces until an answer comes or the connection ends; the status, or how it ended."""
    try:
        reader, writer = await asyncio.open_connection(*place, local_addr=(source, 0))
    except OSError:
        return "refused"

    async def send() -> None:
        with contextlib.suppress(OSError):
            async for piece in pieces:
                writer.write(piece)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        answer = await reader.read(64)
    except OSError:
        answer = b""
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
    return answer.split()[1].decode() if answer.count(b" ") > 1 else "closed"


async def _huge(size: int, key: str) -> Any:
    """A JSON body of so many bytes."""
    yield _post(size, key)
    for _ in range(size // len(_PIECE) + 1):
        yield _PIECE


async def _slow_header(_: int, key: str) -> Any:
    yield b"GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "
    while True:
        yield b"a"
        await asyncio.sleep(0.2)


async def _nothing(_: int, key: str) -> Any:
    yield b""
    await asyncio.sleep(3600)


async def _wrong_key(_: int, key: str) -> Any:
    yield b"GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer wrong\r\n\r\n"
    await asyncio.sleep(3600)


async def _half_body(_: int, key: str) -> Any:
    yield _post(1000, key)
    yield b"["
    await asyncio.sleep(3600)


def _post(size: int, key: str) -> bytes:
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n"
    key = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"{head}Content-Type: application/json\r\n{key}\r\n[".encode()


WAYS: dict[str, Callable[[int, str], Any]] = {
    "huge body": _huge,
    "slow header": _slow_header,
    "nothing": _nothing,
    "wrong key": _wrong_key,
}


async def _abuse(attack: Attack) -> Counter[str]:
    """Let all abusers go on for the time; how each exchange ended, by way."""
    counts: Counter[str] = Counter()
    place = ("127.0.0.1", attack.port)

    async def again(way: str, source: str, make: Callable[[], Any], pause: float) -> None:
        while True:
            counts[f"{way}: {await _exchange(place, source, make())}"] += 1
            await asyncio.sleep(pause)

    jobs: list[Coroutine[Any, Any, None]] = []
    for number in range(attack.abusers):
        way = list(WAYS)[number % len(WAYS)]
        source = _HOLDER if way == "wrong key" else f"127.0.{number // 200}.{3 + number % 200}"
        jobs.append(again(way, source, lambda way=way: WAYS[way](attack.body, ""), 0.05))  # type: ignore[misc]
    jobs.append(again("huge body, right key", _HOLDER, lambda: _huge(attack.body, KEY), 0.2))
    jobs.append(again("half a body, right key", _HOLDER, lambda: _half_body(0, KEY), 0.2))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(attack.seconds), asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    return counts


def abuse(*attack: float) -> Counter[str]:
    """Run an attack, given by its fields."""
    port, abusers, seconds, body = attack
    return asyncio.run(_abuse(Attack(int(port), int(abusers), seconds, int(body))))


def abused(attack: Attack) -> Counter[str]:
    """Run an attack in a process of its own."""
    with Beside("load_tests.abuse.abuse", *astuple(attack)) as abusers:
        return Counter(abusers.result())


# --- what it costs --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """What was measured. `quiet`, `abused`: milliseconds of `/healthz`. `growth`: MB of RSS.

    `holder`: answers to the right key by status. `left`: half-open sockets after the header time.
    """

    ended: Counter[str] = field(default_factory=Counter)
    holder: Counter[str] = field(default_factory=Counter)
    quiet: list[float] = field(default_factory=list)
    abused: list[float] = field(default_factory=list)
    growth: float = 0.0
    opened: int = 0
    left: int = 0


async def _hold(server: Serve, counts: Counter[str]) -> None:
    """List the sessions with the right key, again and again."""
    transport = httpx.AsyncHTTPTransport(local_address=_HOLDER)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server.address, transport=transport, headers=headers) as client:
        while True:
            try:
                counts[str((await client.get("/v1/sessions", timeout=30)).status_code)] += 1
            except httpx.HTTPError as error:
                counts[type(error).__name__] += 1
            await asyncio.sleep(_POLL)


async def _weigh(pid: int, found: list[float]) -> None:
    """Note the memory in MB, again and again."""
    while psutil.pid_exists(pid):
        found.append(psutil.Process(pid).memory_info().rss / 1e6)
        await asyncio.sleep(_POLL)


async def half_open(port: int, count: int, seconds: float) -> tuple[int, int]:
    """Open so many sockets that send nothing; how many could be, and how many are left after so long."""
    sockets = []
    for number in range(count):
        with contextlib.suppress(OSError):
            sockets.append(
                socket.create_connection(
                    ("127.0.0.1", port), timeout=5, source_address=(f"127.1.0.{2 + number // 50}", 0)
                )
            )
    opened = len(sockets)
    await asyncio.sleep(seconds)
    left = 0
    for one in sockets:
        one.setblocking(False)
        try:
            one.recv(1)  # b"" or an error: it is closed
        except BlockingIOError:
            left += 1
        except OSError:
            pass
        one.close()
    return opened, left


async def measure(
    server: Serve, attack: Attack, *, turns: int, sockets: int, header_seconds: float
) -> Figures:
    """Abuse a running server in turns with quiet, then open sockets that send nothing."""
    found = Figures()
    with HealthProbe(server.port) as probe:
        holding = asyncio.create_task(_hold(server, found.holder))
        memory: list[float] = []
        weighing = asyncio.create_task(_weigh(server.pid, memory))
        spans: list[tuple[float, float, float]] = []
        for _ in range(turns):
            began = time.monotonic()
            await asyncio.sleep(attack.seconds)
            between = time.monotonic()
            before = len(memory)
            found.ended += await asyncio.to_thread(abused, attack)
            spans.append((began, between, time.monotonic()))
            if len(spans) == 1:
                first = max(memory[:before])
        holding.cancel()
        weighing.cancel()
        await asyncio.gather(holding, weighing, return_exceptions=True)
        found.growth = max(memory) - first
        answers = await asyncio.to_thread(probe.answers)
    for began, between, ended in spans:
        found.quiet += health.between(answers, began, between)
        found.abused += health.between(answers, between, ended)
    found.opened, found.left = await half_open(server.port, sockets, header_seconds + 3.0)
    return found


def verdict(found: Figures) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = []
    if found.growth > GROWTH:
        wrong.append(f"memory grew by {found.growth:.1f} MB")
    if (late := health.share(found.abused, 100)) > STALL:
        wrong.append(
            f"/healthz took {late:.0f} ms during abuse ({health.share(found.quiet, 100):.0f} in quiet)"
        )
    if (middle := health.share(found.quiet, 50)) >= MEDIAN:
        wrong.append(f"/healthz took {middle:.2f} ms in quiet (median)")
    if refused := {status: count for status, count in found.holder.items() if status != "200"}:
        wrong.append(f"the right key was refused: {refused}")
    if not found.holder["200"]:
        wrong.append("the right key was never answered")
    expected = {
        "huge body": {"401", "429"},
        "wrong key": {"401", "429"},
        "huge body, right key": {"413"},
        "half a body, right key": {"400"},
        "slow header": set(),
        "nothing": set(),
    }
    for ended in found.ended:
        way, _, status = ended.partition(": ")
        if status not in expected[way] | {"closed", "refused"}:
            wrong.append(f"{ended}, which is none of {sorted(expected[way]) or ['closed']}")
    wrong += [
        f"no {must}"
        for must in (
            "wrong key: 401",
            "wrong key: 429",
            "huge body, right key: 413",
            "half a body, right key: 400",
        )
        if not found.ended[must]
    ]
    if found.left:
        wrong.append(f"{found.left} of {found.opened} half-open sockets are left")
    return wrong


def told(found: Figures) -> str:
    """The figures in some lines."""
    rows = [
        f"memory: {found.growth:+.1f} MB",
        *(
            f"/healthz {name}: p50 {health.share(late, 50):.2f}, p99 {health.share(late, 99):.1f}, "
            f"max {health.share(late, 100):.1f} ms of {len(late)}"
            for name, late in (("in quiet", found.quiet), ("during abuse", found.abused))
        ),
        f"right key: {dict(found.holder)}",
        f"abusers: {dict(sorted(found.ended.items()))}",
        f"half-open: {found.opened} opened, {found.left} left",
    ]
    return "\n".join(rows)


def server_in(folder: Path, header_seconds: float, *, sabotage: bool = False) -> Serve:
    """A server with a key, not started."""
    limits: dict[str, Any] = {"body_seconds": BODY_SECONDS, "header_seconds": header_seconds}
    if sabotage:
        limits = {"body_bytes": 1 << 30, "header_seconds": 3600, "body_seconds": 3600}
        limits |= {"connections_per_address": 10_000, "failures_per_minute": 10**6}
    # A spare process would be started in the midst of it, on the core of serve.
    settings = {"server": {"api_key": KEY}, "limits": limits, "hear": {"spare": False}}
    return Serve(folder, settings, SABOTAGE if sabotage else COMMAND)


def pin_apart(server: Serve) -> None:
    """Pin serve to one core, its children, this process and its own to the others, if there are any.

    What the abusers compute themselves would else look like a stall of serve.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if others:
        pin([server.pid], [first])
        children = psutil.Process(server.pid).children(recursive=True)
        pin([os.getpid(), *(child.pid for child in children)], others)


def allow_descriptors() -> None:
    """Let this process have as many open files as it may: the default is about a thousand."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _measured(chosen: argparse.Namespace, folder: Path) -> Figures:
    header_seconds = Limits().header_seconds
    with server_in(folder, header_seconds, sabotage=chosen.sabotage) as server:
        await asyncio.to_thread(server.wait_ready)
        pin_apart(server)
        body = SABOTAGED_BODY_MB if chosen.sabotage else BODY_MB
        attack = Attack(server.port, chosen.abusers, chosen.seconds, int(body * 1e6))
        return await measure(
            server, attack, turns=chosen.turns, sockets=HALF_OPEN, header_seconds=header_seconds
        )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--abusers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of quiet and abuse (%(default)s)")
    parser.add_argument("--sabotage", action="store_true", help="the control run: no limits")
    chosen = parser.parse_args()
    allow_descriptors()
    with tempfile.TemporaryDirectory(prefix="abuse-") as folder:
        found = asyncio.run(_measured(chosen, Path(folder)))
    report.finish(told(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
