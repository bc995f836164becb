"""Seconds from the offer to the first caption, by each path between a publisher and the service.

    python -m load_tests.reach [--paths host,range,relay,relay_only] [--recording FILE] [--json FILE]

Publisher (aiortc, speech in Opus), service and router are in network namespaces of their own (street.py).
`host`: the publisher is in the service's network. `range`: both are behind NAT, the router passes a range of
ports on, and its address is advertised. `relay`: no port is passed on; the service is reached at its TURN
relay. `relay_only`: the publisher sends through a relay alone, with the credentials of the answer's Link
headers. Two more must not be captioned: `unadvertised`, a range without the router's address, and `expired`,
a relay whose credentials were over when they were made. Exit status 1: one was not as it must be. Needs root.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aioice.ice import TransportPolicy
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription

from load_tests import report
from load_tests.hearing import MEDIA
from load_tests.lossy import Speech
from load_tests.street import (
    PORT,
    PORTS,
    PUBLIC,
    SERVICE,
    TURN_PORT,
    ServeInside,
    Street,
    coturn,
    inside,
    missing,
    street,
)
from load_tests.subscriber import Subscriber
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import read
from tests.builders.service import open_session

KEY = "a-key-of-the-street"
SECRET = "a-secret-of-the-street"
PATIENCE = 25.0  # seconds until the first caption
REFUSED = 12.0  # seconds without a caption that show that there is no path
RECORDING = "speech/crimson_26_motikatika.flac"
_RANGE = {"udp_ports": PORTS}
_TURN = {"urls": [f"turn:{PUBLIC}:{TURN_PORT}"], "secret": SECRET}
PATHS: dict[str, dict[str, Any]] = {  # the service's settings of ingest
    "host": {},
    "range": {**_RANGE, "advertise": [PUBLIC]},
    "relay": {"turn": _TURN},
    "relay_only": {**_RANGE, "turn": _TURN},
    "unadvertised": _RANGE,
    "expired": {"turn": _TURN},
}
CONTROLS = ("unadvertised", "expired")


@dataclass(frozen=True, slots=True)
class Arrival:
    """`caption`: seconds from the publisher's start to the first one; None: none came."""

    path: str
    caption: float | None
    candidates: str  # of the answer, without the addresses


# --- the publisher, in a namespace of its own -------------------------------------------------------------


async def publish(address: str, recording: Path, seconds: float, *, relay_only: bool) -> None:
    """Publish speech, and print the answer's candidates by type."""
    async with httpx.AsyncClient(timeout=20, headers={"Authorization": f"Bearer {KEY}"}) as client:
        asked = await client.options(address)
        servers = _servers([*asked.headers.get_list("link")]) if relay_only else []
        sender = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        speech = Speech(read(recording, seconds))
        sender.addTransceiver(speech, "sendonly")
        if relay_only:
            for transport in sender._RTCPeerConnection__iceTransports:  # type: ignore[attr-defined]
                transport._connection._transport_policy = TransportPolicy.RELAY
        try:
            await sender.setLocalDescription(await sender.createOffer())
            content = sender.localDescription.sdp
            answer = await client.post(address, content=content, headers={"Content-Type": "application/sdp"})
            answer.raise_for_status()
            print(",".join(sorted(set(re.findall(r" typ (\w+)", answer.text)))), flush=True)
            await sender.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
            await speech.over.wait()
        finally:
            await sender.close()


def _servers(links: Sequence[str]) -> list[RTCIceServer]:
    """The TURN servers of Link headers, with their credentials."""
    pattern = r'<(turn:[^>]+)>; rel="ice-server"; username="([^"]+)"; credential="([^"]+)"'
    return [
        RTCIceServer(urls=url, username=name, credential=word)
        for url, name, word in re.findall(pattern, ", ".join(links))
    ]


# --- the measurement ----------------------------------------------------------------------------------------


async def arrival(path: str, made: Street, server: ServeInside, recording: Path) -> Arrival:
    """One publication by one path."""
    where = made.service if path == "host" else made.publisher
    place = f"http://{SERVICE if path == 'host' else PUBLIC}:{PORT}"
    headers = {"Authorization": f"Bearer {KEY}"}
    wait = REFUSED if path in CONTROLS else PATIENCE
    async with httpx.AsyncClient(base_url=server.address, timeout=20, headers=headers) as client:
        session = await open_session(client, language="en")
        whip = (await client.get(f"/v1/sessions/{session}")).json()["whip_url"]
        command = (sys.executable, "-m", "load_tests.reach", "--publish", place + whip, str(recording), path)
        async with Subscriber(server.address, session, KEY, types="caption.partial,caption.final") as reader:
            began = time.monotonic()
            publisher = await asyncio.create_subprocess_exec(
                *inside(where, *command), stdout=asyncio.subprocess.PIPE
            )
            assert publisher.stdout is not None
            told, first = "", None
            try:
                told = (await asyncio.wait_for(publisher.stdout.readline(), wait)).decode().strip()
                came = await reader.until(lambda one: one.kind.startswith("caption."), wait)
                first = None if came is None else came.at - began
            except TimeoutError:
                pass
            finally:
                if publisher.returncode is None:
                    publisher.kill()
                await publisher.communicate()
        await client.delete(f"/v1/sessions/{session}")
    return Arrival(path, first, told)


async def measured(paths: Sequence[str], recording: Path, folder: Path) -> list[Arrival]:
    """Each path with a service of its own settings, one after the other."""
    found = []
    for path in paths:
        with ExitStack() as stack:
            made = stack.enter_context(street())
            settings = {
                "ingest": {"loopback": False, **PATHS[path]},
                "server": {"api_key": KEY},
                "budget": {"ladder": False, "admission": False},
            }
            if "turn" in PATHS[path]:
                secret = "another-secret" if path == "expired" else SECRET
                stack.enter_context(coturn(made.router, folder, secret))
            server = stack.enter_context(ServeInside(folder / path, made.service, settings))
            await asyncio.to_thread(server.wait_ready)
            found.append(await arrival(path, made, server, recording))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def verdict(found: Sequence[Arrival]) -> list[str]:
    """What is not as it must be; [] if nothing."""
    wrong = {False: "was not captioned", True: "was captioned"}
    return [
        f"{one.path} {wrong[one.path in CONTROLS]}"
        for one in found
        if (one.caption is None) != (one.path in CONTROLS)
    ]


def told(found: Sequence[Arrival]) -> str:
    """A line for each path."""
    rows = [
        (one.path, one.candidates, "none" if one.caption is None else f"{one.caption:.1f}") for one in found
    ]
    return markdown_table(("path", "candidates of the answer", "first caption, s"), rows)


def main() -> None:
    if sys.argv[1:2] == ["--publish"]:
        address, recording, path = sys.argv[2:5]
        asyncio.run(publish(address, Path(recording), 60.0, relay_only=path == "relay_only"))
        return
    parser = report.parser(__doc__)
    parser.add_argument("--paths", default=",".join(PATHS), help="comma-separated (%(default)s)")
    parser.add_argument("--recording", type=Path, default=MEDIA / RECORDING)
    chosen = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory(prefix="reach-") as folder:
        found = asyncio.run(measured(chosen.paths.split(","), chosen.recording.resolve(), Path(folder)))
    report.finish(told(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
