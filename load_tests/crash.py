"""Kill serve again and again: is what a subscriber saw still there?

    python -m load_tests.crash [--kills 50] [--longest 6] [--seed 7] [--sabotage] [--json FILE]

Each time `streamsvc serve` gets SIGKILL at a random moment, while sessions play a recording faster than real
time and others are changed many times a second; two subscribers of each, in this process, note every durable
event. It is started again, and each session must be readable with all that was seen, under the same epoch and
seq. Sessions of the kill before are then erased. Exit status 1: an event was lost or changed, or a session
could not be read or erased. `--sabotage` shows events before they are stored: it must fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import connect

from load_tests import report
from load_tests.hearing import MEDIA
from load_tests.serve_process import COMMAND, Serve
from streamsvc.__main__ import main as command_line
from streamsvc.events.event_writer import EventWriter
from streamsvc.events.subscription import Entry
from tests.builders.service import open_session

SCENARIO = "scenarios/lecture_stone_cutter.mp4"
SPEED = 4.0  # of the recording
CHANGED = 2  # sessions that are changed all the time
CHANGE_SECONDS = 0.05  # between two changes of one of them
SUBSCRIBERS = 2  # of each session
SHORTEST = 0.3  # seconds from the first event to a kill
SABOTAGE = ("-c", "from load_tests.crash import serve_sabotaged; serve_sabotaged()")
Event = dict[str, Any]
Seen = dict[int, Event]  # by seq


@dataclass(slots=True)
class Kill:
    """What became of one kill. `answers`, `ready`: seconds from the restart. `sessions`: that were live."""

    after: float
    sessions: int
    seen: int = 0
    lost: int = 0
    changed: int = 0
    failed: list[str] = field(default_factory=list)
    answers: float = 0.0
    ready: float | None = None


def serve_sabotaged() -> None:
    """The command line with a log that shows events before they are stored."""

    def write_later(writer: EventWriter, entry: Entry) -> None:
        writer.unwritten.append(entry)

    EventWriter.write_now = write_later  # type: ignore[method-assign,assignment]
    command_line()


def compared(seen: Mapping[int, Event], stored: Mapping[int, Event]) -> tuple[int, int]:
    """How many of the events that were seen are lost, and how many are others now."""
    lost = sum(seq not in stored for seq in seen)
    changed = sum(seq in stored and stored[seq] != event for seq, event in seen.items())
    return lost, changed


def _durable(text: str | bytes) -> Event | None:
    """An event as the log has it; None: it is not kept. `prev` depends on what a subscriber wants."""
    event: Event = json.loads(text)
    event.pop("prev", None)
    return event if "seq" in event else None


async def _note(address: str, session: str, seen: Seen) -> None:
    """Note what one subscriber sees, until the server is gone."""
    with contextlib.suppress(OSError, websockets.WebSocketException):
        async with connect(f"{address}/v1/sessions/{session}/events?after=0", max_size=None) as socket:
            async for text in socket:
                if (event := _durable(text)) is not None:
                    seen.setdefault(event["seq"], event)


async def _change(address: str, session: str) -> None:
    """Change a session again and again, each time with an event, until the server is gone."""
    with contextlib.suppress(OSError, websockets.WebSocketException):
        async with connect(f"{address}/v1/sessions/{session}/events?types=error") as socket:
            while True:
                await socket.send('{"type":"session.update","vocabulary":["Ada"]}')
                await asyncio.sleep(CHANGE_SECONDS)


class Crashes:
    """The kills of one server.

    Args:
        server: running.
        recording: played in one session; None: there is none.
        seed: of the moments.
    """

    def __init__(self, server: Serve, recording: Path | None, seed: int) -> None:
        self.kills: list[Kill] = []
        self._server = server
        self._recording = recording
        self._random = random.Random(seed)
        self._old: dict[str, Seen] = {}  # sessions of the kill before
        self._sockets = server.address.replace("http", "ws", 1)

    async def kill(self, longest: float, *, wait_ready: bool) -> Kill:
        """Kill the server once, start it again, and compare."""
        async with httpx.AsyncClient(base_url=self._server.address, timeout=60) as client:
            live = await self._sessions(client)
        kill = Kill(self._random.uniform(SHORTEST, longest), len(live))
        async with asyncio.TaskGroup() as group:
            for number, (session, seen) in enumerate(live.items()):
                for _ in range(SUBSCRIBERS):
                    group.create_task(_note(self._sockets, session, seen))
                if number < CHANGED:
                    group.create_task(_change(self._sockets, session))
            while not all(live.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(kill.after)
            await asyncio.to_thread(self._server.kill)
        began = time.monotonic()
        await asyncio.to_thread(self._server.start, models=wait_ready)
        kill.answers = time.monotonic() - began
        if wait_ready:
            await asyncio.to_thread(self._server.wait_ready)
            kill.ready = time.monotonic() - began
        async with httpx.AsyncClient(base_url=self._server.address, timeout=60) as client:
            await self._check(kill, client, live)
        self._old = live
        self.kills.append(kill)
        return kill

    async def _sessions(self, client: httpx.AsyncClient) -> dict[str, Seen]:
        """New sessions, those that are changed first."""
        bodies: list[dict[str, Any]] = [{} for _ in range(CHANGED)]
        if self._recording is not None:
            bodies.append({"source": f"file:{self._recording}", "speed": SPEED})
        made: dict[str, Seen] = {}
        for body in bodies:
            made[await open_session(client, **body)] = {}
        return made

    async def _check(self, kill: Kill, client: httpx.AsyncClient, live: Mapping[str, Seen]) -> None:
        """Read the sessions of this kill, and erase those of the one before."""
        for session, seen in {**live, **self._old}.items():
            stored: Seen = {}
            await _note(self._sockets, session, stored)  # to the end: these sessions have ended
            lost, changed = compared(seen, stored)
            kill.seen += len(seen) if session in live else 0
            kill.lost += lost
            kill.changed += changed
            described = await client.get(f"/v1/sessions/{session}")
            if described.status_code != 200 or described.json()["state"] != "ended":
                kill.failed.append(f"{session} cannot be read: {described.status_code}")
        for session in self._old:
            await client.delete(f"/v1/sessions/{session}", params={"purge": "true"})
            gone = await client.get(f"/v1/sessions/{session}")
            if gone.status_code != 404 or (self._server.data / session).exists():
                kill.failed.append(f"{session} cannot be erased")


def verdict(kills: list[Kill]) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = [line for kill in kills for line in kill.failed]
    for name in ("lost", "changed"):
        if count := sum(getattr(kill, name) for kill in kills):
            wrong.append(f"{count} events that were seen are {name}")
    if not sum(kill.seen for kill in kills):
        wrong.append("no event was seen")
    return wrong


def told(kills: list[Kill]) -> str:
    """The figures in one line."""
    ready = [kill.ready for kill in kills if kill.ready is not None]
    starts = f"restart to the first answer {median(kill.answers for kill in kills):.1f} s" + (
        f", to ready {median(ready):.1f} s (median)" if ready else " (median)"
    )
    return (
        f"{len(kills)} kills, {sum(kill.sessions for kill in kills)} sessions: "
        f"{sum(kill.seen for kill in kills)} events seen, {sum(kill.lost for kill in kills)} lost, "
        f"{sum(kill.changed for kill in kills)} changed; {starts}"
    )


def server_in(folder: Path, recording: Path | None = None, *, sabotage: bool = False) -> Serve:
    """A server that keeps its sessions in `folder`, not started."""
    settings: dict[str, dict[str, Any]] = {
        "server": {"sources": [str(recording.parent)] if recording else []},
        "limits": {"requests_per_minute": 10_000, "updates_per_minute": 1_000_000},
        "budget": {"admission": False},
    }
    return Serve(folder, settings, SABOTAGE if sabotage else COMMAND)


async def run(
    server: Serve,
    recording: Path | None = None,
    *,
    kills: int,
    longest: float,
    seed: int = 7,
    wait_ready: bool = True,
) -> list[Kill]:
    """Start a server and kill it so many times, each after `longest` seconds at most."""
    await asyncio.to_thread(server.start, models=wait_ready)
    try:
        if wait_ready:
            await asyncio.to_thread(server.wait_ready)
        crashes = Crashes(server, recording, seed)
        for number in range(kills):
            kill = await crashes.kill(longest, wait_ready=wait_ready)
            print(f"kill {number + 1} of {kills}: {asdict(kill)}", file=sys.stderr, flush=True)
    finally:
        await asyncio.to_thread(server.kill)
    return crashes.kills


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds to a kill (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the moments (%(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of recordings (%(default)s)")
    parser.add_argument("--sabotage", action="store_true", help="the control run: events seen before stored")
    chosen = parser.parse_args()
    found = (chosen.media / SCENARIO).resolve()
    recording = found if found.is_file() else None
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        server = server_in(Path(folder), recording, sabotage=chosen.sabotage)
        kills = asyncio.run(
            run(server, recording, kills=chosen.kills, longest=chosen.longest, seed=chosen.seed)
        )
    report.finish(told(kills), kills, verdict(kills), chosen.json)


if __name__ == "__main__":
    main()
