"""Seconds from a publisher's start to its first caption, by the protocol that it speaks.

    python -m load_tests.doors [--doors whip,rtmp,srt] [--turns 3] [--recording FILE] [--json FILE]

One service with real models; one publisher after the other, in turns, each a process whose start is
counted in: `whip` is aiortc (as in load_tests.reach, Opus alone), the others Debian's ffmpeg (AAC, H.264).
Promise: each is captioned. Exit status 1: one was not.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from load_tests import report
from load_tests.hearing import MEDIA
from load_tests.reach import RECORDING
from load_tests.serve_process import Serve
from load_tests.subscriber import Subscriber
from streamsvc.evaluation.markdown import markdown_table
from tests.builders.free_ports import free_tcp_port
from tests.builders.service import open_session
from tests.fakes import srt_publisher
from tests.fakes.rtmp_publisher import command, missing

PATIENCE = 40.0  # seconds until the first caption
DOORS = ("whip", "rtmp", "srt")


@dataclass(frozen=True, slots=True)
class Arrival:
    """`live`: seconds from the publisher's start until it is attached; `caption`: to the first one.

    None: there was none.
    """

    door: str
    live: float | None
    caption: float | None


async def arrival(door: str, server: Serve, port: int, recording: Path, turn: int) -> Arrival:
    """One publication by one door."""
    name = f"{door}-{turn}"
    async with httpx.AsyncClient(base_url=server.address, timeout=20) as client:
        session = await open_session(client, language="en", name=name)
        addresses = {
            "whip": f"{server.address}/whip/{name}",
            "rtmp": f"rtmp://127.0.0.1:{port}/live/{name}",
            "srt": f"srt://127.0.0.1:{port}",
        }
        commands = {
            "whip": (
                sys.executable,
                "-m",
                "load_tests.reach",
                "--publish",
                addresses[door],
                str(recording),
                "host",
            ),
            "rtmp": command(addresses["rtmp"], recording),
            "srt": srt_publisher.command(addresses["srt"], name, recording),
        }
        types = "session.updated,caption.partial,caption.final"
        async with Subscriber(server.address, session, types=types) as reader:
            began = time.monotonic()
            publisher = await asyncio.create_subprocess_exec(
                *commands[door], stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
            )
            try:
                came = await reader.until(lambda one: one.kind.startswith("caption."), PATIENCE)
            except TimeoutError:
                came = None
            finally:
                publisher.kill()
                await publisher.wait()
            live = [one.at for one in reader.came if one.event.get("tracks") and one.at >= began]
        await client.delete(f"/v1/sessions/{session}")
    first = None if came is None else came.at - began
    return Arrival(door, live[0] - began if live else None, first)


async def measured(doors: Sequence[str], recording: Path, turns: int, folder: Path) -> list[Arrival]:
    """Each door, in turns."""
    port = free_tcp_port()  # of UDP too, as far as one can tell
    settings: dict[str, dict[str, Any]] = {
        "ingest": {f"{door}_listen": f"127.0.0.1:{port}" for door in ("rtmp", "srt") if door in doors},
        "budget": {"ladder": False, "admission": False},
    }
    found = []
    with Serve(folder, settings) as server:
        await asyncio.to_thread(server.wait_ready)
        for turn in range(turns):
            for door in doors:
                found.append(await arrival(door, server, port, recording, turn))
                print(found[-1], file=sys.stderr, flush=True)
    return found


def verdict(found: Sequence[Arrival]) -> list[str]:
    """What is not as promised; [] if nothing."""
    return [f"{one.door} was not captioned" for one in found if one.caption is None]


def told(found: Sequence[Arrival]) -> str:
    """A line for each door: medians."""
    rows = []
    for door in dict.fromkeys(one.door for one in found):
        mine = [one for one in found if one.door == door]
        rows.append(
            (
                door,
                str(len(mine)),
                _median([one.live for one in mine]),
                _median([one.caption for one in mine]),
            )
        )
    return markdown_table(("door", "turns", "attached, s", "first caption, s"), rows)


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.1f}" if known else "none"


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--doors", default=",".join(DOORS), help="comma-separated (%(default)s)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recording", type=Path, default=MEDIA / RECORDING)
    chosen = parser.parse_args()
    doors = chosen.doors.split(",")
    lacks = {"rtmp": missing, "srt": srt_publisher.missing}
    if why := " ".join(lacks[door]() for door in doors if door in lacks).strip():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory(prefix="doors-") as folder:
        found = asyncio.run(measured(doors, chosen.recording.resolve(), chosen.turns, Path(folder)))
    report.finish(told(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
