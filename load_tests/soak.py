"""Memory of serve over hours of real speech and slides, and after many connections.

    python -m load_tests.soak [--minutes 60] [--warm-up 10] [--sessions 4] [--churn 1000] [--leak]
                               [--json FILE]

Sessions play the lecture over and over in real time. Every EVERY seconds the PSS, descriptors and threads of
serve, of each worker and of each source's process are noted; after the warm-up the PSS of serve may rise by
SLOPE MB an hour and session at most (least squares), that of a source's process by as much, descriptors and
threads of serve not at all. Then, with no session left: so many
subscribers come and go, so many WHIP offers are answered and taken back, so many sessions are created and
deleted, each in two rounds; after the second PSS is less than CHURN_MB above that after the first, and no
descriptor more is open. Exit status 1: a promise was missed. `--leak` keeps LEAK bytes of each event: it must
fail.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack
from websockets.asyncio.client import connect

from load_tests import report
from load_tests.crash import SCENARIO
from load_tests.hearing import MEDIA
from load_tests.looped import looped
from load_tests.serve_process import COMMAND, Serve
from streamsvc.__main__ import main as command_line
from streamsvc.core.types import Event
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.events.log import EventLog
from tests.builders.service import open_session

SLOPE, CHURN_MB = 2.0, 5.0  # MB an hour and session; MB
EVERY = 10.0  # seconds between two samples
REST = 70.0  # seconds after a round: ended sessions close their files, and freed memory goes back
LEAK = 20_000  # bytes
LEAKING = ("-c", "from load_tests.soak import serve_leaking; serve_leaking()")
AT_ONCE = 8  # connections of a round
PLACES = 200  # of sessions in it, for those that still end
_LEFT: list[bytes] = []


def serve_leaking() -> None:
    """The command line with a log that keeps something of each event for ever."""
    emit = EventLog.emit

    def emit_and_keep(log: EventLog, *arguments: Any, **named: Any) -> Event:
        _LEFT.append(bytes([1]) * LEAK)
        return emit(log, *arguments, **named)

    EventLog.emit = emit_and_keep  # type: ignore[method-assign,assignment]
    command_line()


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one time: seconds since the start, MB, and counts."""

    at: float
    pss: float
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Round:
    """Serve after one round of `what`."""

    what: str
    after: Sample


@dataclass(slots=True)
class Figures:
    """What was measured: the samples by process, and the rounds."""

    sessions: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def sample(pid: int, began: float) -> Sample:
    """What a process holds now. Raises psutil.Error: it has ended."""
    process = psutil.Process(pid)
    pss = float(process.memory_full_info().pss) / 1e6
    return Sample(time.monotonic() - began, round(pss, 2), process.num_fds(), process.num_threads())


def slope(samples: Sequence[Sample], warm_up: float) -> float | None:
    """MB an hour by least squares over the samples after the warm-up; None: there are too few."""
    of = [one for one in samples if one.at >= warm_up]
    if len(of) < 3:
        return None
    return float(np.polyfit([one.at / 3600 for one in of], [one.pss for one in of], 1)[0])


# --- sessions -------------------------------------------------------------------------------------------


async def soak(server: Serve, found: Figures, played: Path, seconds: float) -> None:
    """Let sessions play, and take samples."""
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as client:
        names = [await open_session(client, source=f"file:{played}") for _ in range(found.sessions)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(min(EVERY, seconds / 10))
            for name, pid in {"serve": server.pid, **server.workers(), **server.sources()}.items():
                try:
                    found.samples.setdefault(name, []).append(await asyncio.to_thread(sample, pid, began))
                except psutil.Error:
                    found.failed.append(f"{name} has ended")
        for name in names:
            state = (await client.get(f"/v1/sessions/{name}")).json()["state"]
            if state != "live":
                found.failed.append(f"a session is {state}")
            await client.delete(f"/v1/sessions/{name}", params={"purge": "true"})


# --- connections ----------------------------------------------------------------------------------------


async def subscribers(client: httpx.AsyncClient, session: str) -> None:
    """One subscriber comes and goes."""
    address = str(client.base_url).replace("http", "ws", 1).rstrip("/")
    async with connect(f"{address}/v1/sessions/{session}/events?after=0") as socket:
        await socket.recv()


def offers(sdp: str) -> Callable[[httpx.AsyncClient, str], Awaitable[None]]:
    """What answers one WHIP offer, and takes it back."""

    async def offer(client: httpx.AsyncClient, _: str) -> None:
        answer = await client.post("/whip", content=sdp, headers={"Content-Type": "application/sdp"})
        answer.raise_for_status()
        (await client.delete(answer.headers["Location"])).raise_for_status()

    return offer


async def sessions(client: httpx.AsyncClient, _: str) -> None:
    """One session is created and deleted."""
    made = await open_session(client)
    (await client.delete(f"/v1/sessions/{made}", params={"purge": "true"})).raise_for_status()


async def an_offer() -> str:
    """The SDP of a publisher of sound."""
    sender = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        sender.addTransceiver(AudioStreamTrack(), "sendonly")
        await sender.setLocalDescription(await sender.createOffer())
        return str(sender.localDescription.sdp)
    finally:
        await sender.close()


async def churn(server: Serve, found: Figures, count: int, rest: float) -> None:
    """Two rounds of each kind of connection."""
    ways: dict[str, Callable[[httpx.AsyncClient, str], Awaitable[None]]] = {
        "subscribers": subscribers,
        "WHIP offers": offers(await an_offer()),
        "sessions": sessions,
    }
    began = time.monotonic()
    for what, way in ways.items():
        for _ in range(2):
            async with httpx.AsyncClient(base_url=server.address, timeout=60) as client:
                session = await open_session(client)
                at_once = asyncio.Semaphore(1 if what == "WHIP offers" else AT_ONCE)

                async def one(
                    way: Callable[[httpx.AsyncClient, str], Awaitable[None]] = way,
                    client: httpx.AsyncClient = client,
                    session: str = session,
                    at_once: asyncio.Semaphore = at_once,
                    what: str = what,
                ) -> None:
                    async with at_once:
                        try:
                            await way(client, session)
                        except httpx.HTTPError as error:  # the others come all the same
                            found.failed.append(f"{what}: {type(error).__name__}")

                await asyncio.gather(*(one() for _ in range(count)))
                await client.delete(f"/v1/sessions/{session}", params={"purge": "true"})
            await asyncio.sleep(rest)
            found.rounds.append(Round(what, await asyncio.to_thread(sample, server.pid, began)))
            print(found.rounds[-1], file=sys.stderr, flush=True)


# --- report ---------------------------------------------------------------------------------------------


def verdict(found: Figures, warm_up: float) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = list(dict.fromkeys(found.failed))
    of = found.samples.get("serve", [])
    rise = slope(of, warm_up)
    if rise is None:
        wrong.append("there are too few samples")
    elif rise / found.sessions > SLOPE:
        wrong.append(f"serve grows by {rise / found.sessions:.1f} MB an hour and session")
    for name, samples in found.samples.items():
        if name.startswith("source ") and (more := slope(samples, warm_up) or 0.0) > SLOPE:
            wrong.append(f"the process of {name} grows by {more:.1f} MB an hour")
    later = [one for one in of if one.at >= warm_up]
    for name in ("descriptors", "threads"):
        third = max(1, len(later) // 3)
        first, last = (
            max((getattr(one, name) for one in part), default=0) for part in (later[:third], later[-third:])
        )
        if last > first:
            wrong.append(f"serve has {last - first} {name} more at the end")
    for first_round, second in zip(found.rounds[::2], found.rounds[1::2], strict=True):
        if (more := second.after.pss - first_round.after.pss) > CHURN_MB:
            wrong.append(f"{second.what}: {more:.1f} MB more after the second round")
        if (more_open := second.after.descriptors - first_round.after.descriptors) > 0:
            wrong.append(f"{second.what}: {more_open} descriptors more after the second round")
    return wrong


def table(found: Figures, warm_up: float) -> str:
    """A line for each process, and one for each round."""
    rows = []
    for name, of in found.samples.items():
        rise = slope(of, warm_up)
        told = "-" if rise is None else f"{rise:+.1f} ({rise / found.sessions:+.1f} a session)"
        rows.append(
            (
                name,
                f"{of[0].pss:.0f}",
                f"{of[-1].pss:.0f}",
                told,
                f"{of[-1].descriptors}",
                f"{of[-1].threads}",
            )
        )
    for one in found.rounds:
        after = one.after
        rows.append(
            (f"after {one.what}", "", f"{after.pss:.1f}", "", f"{after.descriptors}", f"{after.threads}")
        )
    heads = ("process", "PSS first MB", "PSS last MB", "MB an hour", "descriptors", "threads")
    return markdown_table(heads, rows)


def server_in(folder: Path, sessions: int, *, leak: bool = False) -> Serve:
    """A server for so many sessions, not started."""
    settings: dict[str, dict[str, Any]] = {
        "server": {"sources": [str(folder)]},
        "limits": {"sessions": sessions + PLACES, "requests_per_minute": 10**6, "updates_per_minute": 10**6},
        "budget": {"admission": False},
    }
    return Serve(folder, settings, LEAKING if leak else COMMAND)


async def run(
    server: Serve, recording: Path, found: Figures, *, seconds: float, count: int, rest: float = REST
) -> None:
    """Soak a running server that has the recording's folder as a source, then churn."""
    folder = server.log.parent
    played = looped(recording, folder / f"played{recording.suffix}", seconds + 60)
    await soak(server, found, played, seconds)
    await churn(server, found, count, rest)


async def _measured(chosen: argparse.Namespace, folder: Path) -> Figures:
    found = Figures(chosen.sessions)
    with server_in(folder, chosen.sessions, leak=chosen.leak) as server:
        await asyncio.to_thread(server.wait_ready)
        recording = (chosen.media / SCENARIO).resolve()
        try:
            await run(server, recording, found, seconds=60 * chosen.minutes, count=chosen.churn)
        except (httpx.HTTPError, OSError) as error:  # what was measured until then is told all the same
            found.failed.append(f"the run was cut off: {type(error).__name__}")
    return found


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the sessions (%(default)s)")
    parser.add_argument("--warm-up", type=float, default=10.0, help="minutes that do not count (%(default)s)")
    parser.add_argument("--sessions", type=int, default=4, help="at once (%(default)s)")
    parser.add_argument("--churn", type=int, default=1000, help="connections of a round (%(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of recordings (%(default)s)")
    parser.add_argument("--leak", action="store_true", help="the control run: memory is never given back")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = asyncio.run(_measured(chosen, Path(folder)))
    warm_up = 60 * chosen.warm_up
    report.finish(table(found, warm_up), found, verdict(found, warm_up), chosen.json)


if __name__ == "__main__":
    main()
