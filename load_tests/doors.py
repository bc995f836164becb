"""Seconds from a publisher's start to its first caption, by the protocol that it speaks.

    python -m load_tests.doors [--doors whip,gstreamer,rtmp,srt,rtsp,hls] [--turns 3] [--recording FILE]
                               [--json FILE]

One service with real models; one publisher after the other, in turns, each a process whose start is
counted in. Publishers: `whip` is aiortc (as in load_tests.reach, Opus alone), `gstreamer` is WHIP too (VP8,
Opus), `rtmp` and `srt` are Debian's ffmpeg (H.264, AAC). Servers, which the service is told of once they have
something: `rtsp` is GStreamer's, `hls` ffmpeg's live playlist of segments of HLS_SECONDS.
Promise: each is captioned. Exit status 1: one was not.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
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
from tests.builders import gstreamer, stamped
from tests.builders.free_ports import free_tcp_port
from tests.builders.service import open_session
from tests.fakes import rtmp_publisher, srt_publisher
from tests.fakes.rtmp_publisher import command, encoding, missing

PATIENCE = 40.0  # seconds until the first caption
DOORS = ("whip", "gstreamer", "rtmp", "srt", "rtsp", "hls")
PULLED = ("rtsp", "hls")  # the service comes for these
TYPES = "session.updated,caption.partial,caption.final"
FILE, PLAYLIST = "live.mp4", "live.m3u8"
HLS_SECONDS = 2
RTSP = Path(rtmp_publisher.__file__).with_name("rtsp_server.py")


@dataclass(frozen=True, slots=True)
class Arrival:
    """`live`: seconds from the publisher's start until it is attached; `caption`: to the first one.

    None: there was none.
    """

    door: str
    live: float | None
    caption: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where one publication takes place."""

    server: str  # address of the service
    port: int  # of its doors of RTMP and SRT
    folder: Path  # of this publication, within that of all
    recording: Path
    name: str  # of the session


def publisher(door: str, place: Place) -> tuple[str, ...]:
    """The command that publishes, or serves what the service then comes for."""
    whip = f"{place.server}/whip/{place.name}"
    sound = str(place.recording)
    match door:
        case "whip":
            return (sys.executable, "-m", "load_tests.reach", "--publish", whip, sound, "host")
        case "gstreamer":
            return (gstreamer.SYSTEM_PYTHON, str(gstreamer.PROGRAM), sound, whip, "vp8")
        case "rtmp":
            return command(f"rtmp://127.0.0.1:{place.port}/live/{place.name}", place.recording)
        case "srt":
            return srt_publisher.command(f"srt://127.0.0.1:{place.port}", place.name, place.recording)
        case "rtsp":
            file = place.folder.parent / FILE
            return (gstreamer.SYSTEM_PYTHON, str(RTSP), str(file), str(free_tcp_port()), "tcp")
    segments = ("-f", "hls", "-hls_time", str(HLS_SECONDS), "-hls_flags", "delete_segments")
    return (*encoding(place.recording), *segments, str(place.folder / PLAYLIST))


async def source_of(door: str, place: Place, program: asyncio.subprocess.Process, files: str) -> str | None:
    """The address that the service comes for, once there is something; None: the publisher comes to it."""
    if door == "rtsp":
        assert program.stdout is not None
        return f"rtsp://127.0.0.1:{int(await program.stdout.readline())}/live"
    if door == "hls":
        while not (place.folder / PLAYLIST).exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)
        return f"{files}/{PLAYLIST}"
    return None


async def arrival(door: str, place: Place) -> Arrival:
    """One publication by one door."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=place.server, timeout=20))
        files = stack.enter_context(stamped.web(place.folder)).url
        asked = {"language": "en", "name": place.name}
        session = "" if door in PULLED else await open_session(client, **asked)
        began = time.monotonic()
        program = await asyncio.create_subprocess_exec(
            *publisher(door, place), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        stack.push_async_callback(program.communicate)
        stack.callback(program.kill)
        if source := await source_of(door, place, program, files):
            session = await open_session(client, **asked, source=source)
        reader = await stack.enter_async_context(Subscriber(place.server, session, types=TYPES))
        try:
            came = await reader.until(lambda one: one.kind.startswith("caption."), PATIENCE)
        except TimeoutError:
            came = None
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
        "server": {"private_urls": True},
    }
    if "rtsp" in doors:
        await asyncio.to_thread(_make_file, recording, folder / FILE)
    found = []
    with Serve(folder, settings) as server:
        await asyncio.to_thread(server.wait_ready)
        for turn in range(turns):
            for door in doors:
                name = f"{door}-{turn}"
                (folder / name).mkdir()
                place = Place(server.address, port, folder / name, recording, name)
                found.append(await arrival(door, place))
                print(found[-1], file=sys.stderr, flush=True)
    return found


def _make_file(recording: Path, file: Path) -> None:
    """An MP4 of a recording's first half minute, as it is published."""
    subprocess.run([*encoding(recording), "-t", "30", str(file)], check=True)


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
    lacks = {"rtmp": missing, "hls": missing, "srt": srt_publisher.missing}
    lacks |= {"gstreamer": gstreamer.missing, "rtsp": gstreamer.missing}
    if why := " ".join(lacks[door]() for door in doors if door in lacks).strip():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory(prefix="doors-") as folder:
        found = asyncio.run(measured(doors, chosen.recording.resolve(), chosen.turns, Path(folder)))
    report.finish(told(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
