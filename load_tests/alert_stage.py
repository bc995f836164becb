"""What the faults of `load_tests.alerts` work on: servers without models, their publishers, their disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from load_tests import publish_server, tone_engine
from load_tests.cluster_nodes import Node, Redis, settings_of
from load_tests.rtp_media import Form, Recording, recording
from load_tests.rtp_sender import Publisher, whip
from load_tests.serve_process import KEY, Serve
from streamsvc.core.types import SAMPLE_RATE

AUTHORISED = {"Authorization": f"Bearer {KEY}"}
MEDIA_SECONDS = 30.0  # of tones and pictures; then they begin again
PICTURES = Form("vp8", 160, 90, fps=30, kbps=60)  # so small that seconds of them wait in a socket's buffer
WHISTLE = 7000.0  # Hz: loud, and no word of the tone engine
PLACES = 6

Settings = Mapping[str, Mapping[str, Any]]


class Server(Serve):
    """`serve` with engines without models (tone_engine.py).

    Args:
        folder: for its data and log.
        settings: groups of settings besides those of a node.
        within: a command that runs it, such as `prlimit`.
    """

    def __init__(self, folder: Path, settings: Settings, within: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, settings, publish_server.INGEST)
        self._within = within


def merged(*settings: Settings) -> dict[str, dict[str, Any]]:
    """Groups of settings put together; the later ones win."""
    made: dict[str, dict[str, Any]] = {}
    for groups in settings:
        for group, values in groups.items():
            made[group] = made.get(group, {}) | dict(values)
    return made


@dataclass(frozen=True, slots=True)
class Media:
    """What is published. tones: words of the tone engine. film: with pictures. whistle: no words."""

    wav: Path
    tones: Recording
    film: Recording
    whistle: Recording


def media_in(folder: Path) -> Media:
    """Make the media. Takes some seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    wav = tone_engine.write(folder / "tones.wav", MEDIA_SECONDS)
    at = np.arange(round(MEDIA_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    loud = 0.3 * np.sin(2 * np.pi * WHISTLE * at) * (at % 3.0 < 2.0)
    whistle = tone_engine.write_wav(folder / "whistle.wav", loud.astype(np.float32))
    return Media(
        wav,
        recording(folder, seconds=MEDIA_SECONDS, audio=wav, form=None),
        recording(folder, seconds=MEDIA_SECONDS, audio=wav, form=PICTURES),
        recording(folder, seconds=MEDIA_SECONDS, audio=whistle, form=None),
    )


class _LeftError(Exception):
    """A publisher has gone once it had its answer, as if the browser's tab was closed."""


@dataclass
class Stage:
    """Servers that run for some faults, one after the other.

    `folder`: of all their files. `publishers`: by name. `closing`: what is closed at the end. `redis`,
    `collector`, `relays`: programs beside them that a fault ends; `relays`: TURN servers in one process.
    """

    folder: Path
    media: Media
    servers: list[Server | Node] = field(default_factory=list)
    redis: Redis = field(init=False)
    collector: AsyncExitStack = field(default_factory=AsyncExitStack)
    relays: asyncio.subprocess.Process = field(init=False)
    publishers: dict[str, Publisher] = field(default_factory=dict)
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    began: float = field(default_factory=time.monotonic)

    @property
    def targets(self) -> list[str]:
        """Where Prometheus scrapes."""
        return [server.address.removeprefix("http://") for server in self.servers]

    @property
    def server(self) -> Server | Node:
        """The first one, which has the faults."""
        return self.servers[0]

    async def start(self, *servers: Server | Node) -> None:
        """Start servers; they stop at the end of the stage."""
        for server in servers:
            self.closing.push_async_callback(asyncio.to_thread, server.stop)
            await asyncio.to_thread(server.start)
            self.servers.append(server)
        for server in servers:
            await asyncio.to_thread(server.wait_ready)

    async def serve(self, *settings: Settings, within: Sequence[str] = (), place: str = "") -> None:
        """Start one server. `place`: a folder for its files; "": one of the stage."""
        groups = merged(settings_of(PLACES), {"server": {"sources": [str(self.media.wav.parent)]}}, *settings)
        folder = Path(place) if place else self.folder / "serve"
        await self.start(Server(folder, groups, within))

    @contextlib.asynccontextmanager
    async def client(self, server: int = 0) -> AsyncIterator[httpx.AsyncClient]:
        """A client of a server, with the API key."""
        address = self.servers[server].address
        async with httpx.AsyncClient(base_url=address, timeout=20, headers=AUTHORISED) as client:
            yield client

    async def publish(self, name: str, media: Recording | None = None, server: int = 0) -> Publisher:
        """Publish to a name; it plays until the end of the stage. Raises httpx.HTTPError, TimeoutError."""
        publisher = Publisher(media or self.media.tones)
        try:
            await publisher.connect(whip(f"{self.servers[server].address}/whip/{name}", KEY))
        except BaseException:
            await publisher.close()
            raise
        publisher.begin()
        self.publishers[name] = publisher
        self.closing.push_async_callback(publisher.close)
        ending = asyncio.create_task(_end_with_connection(publisher))
        self.closing.callback(ending.cancel)
        return publisher

    async def offer(self, name: str) -> None:
        """Offer to publish, and do nothing more: neither ICE nor media follow. Raises httpx.HTTPError."""
        publisher = Publisher(self.media.tones)
        exchange = whip(f"{self.server.address}/whip/{name}", KEY)

        async def asked_only(offer: str) -> str:
            await exchange(offer)
            raise _LeftError

        try:
            with contextlib.suppress(_LeftError):
                await publisher.connect(asked_only)
        finally:
            await publisher.close()

    async def play(self, **body: Any) -> str:
        """A session that plays the tones from a file, once through; returns its id."""
        async with self.client() as client:
            answer = await client.post("/v1/sessions", json={"source": f"file:{self.media.wav}", **body})
        answer.raise_for_status()
        return str(answer.json()["id"])

    async def session_of(self, name: str, server: int = 0) -> str:
        """The id of the live session of a name."""
        async with self.client(server) as client:
            listed = (await client.get("/v1/sessions?state=live")).json()["sessions"]
        return next(str(one["id"]) for one in listed if name in str(one))


async def _end_with_connection(publisher: Publisher) -> None:
    """Send nothing more once the server has closed the connection, or is gone."""
    await publisher.gone.wait()
    for track in publisher.tracks:
        track.end()


async def forever() -> None:
    """Keep a fault up until it is cancelled."""
    await asyncio.Event().wait()


async def pulses(pid: Callable[[], int], stopped: float, running: float) -> None:
    """Let a process have no processor for `stopped` seconds out of `stopped + running`, until cancelled."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            frozen = pid()
            os.kill(frozen, signal.SIGSTOP)
            try:
                await asyncio.sleep(stopped)
            finally:
                os.kill(frozen, signal.SIGCONT)
        await asyncio.sleep(running)


async def mounted(stage: Stage, name: str, size: str) -> Path:
    """A disk of its own, in memory, until the end of the stage. Raises SystemExit: we may not mount one."""
    place = stage.folder / name
    place.mkdir(parents=True)
    command = ("mount", "-t", "tmpfs", "-o", f"size={size}", name, str(place))
    if await asyncio.to_thread(subprocess.call, command):
        raise SystemExit("a disk cannot be mounted: run this as root, or leave the stages disk and full out")
    stage.closing.callback(subprocess.call, ("umount", "--lazy", str(place)))
    return place


def fill(file: Path, leave: int) -> None:
    """Take the free bytes of a disk but some; what was taken before is kept."""
    disk = os.statvfs(file.parent)
    free = disk.f_bavail * disk.f_frsize - leave
    with file.open("ab") as out, contextlib.suppress(OSError):  # less is free by now
        if free > 0:
            os.posix_fallocate(out.fileno(), out.tell(), free)


@contextlib.contextmanager
def silent_sockets(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that send nothing."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.create_connection(("127.0.0.1", port), 5))
        yield made
    finally:
        for one in made:
            one.close()


def event_stream(port: int, session: str) -> socket.socket:
    """A subscriber that asks for all events of a session, and takes little at once."""
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    asking.settimeout(5)
    asking.connect(("127.0.0.1", port))
    asking.sendall(
        f"GET /v1/sessions/{session}/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Accept: text/event-stream\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
    )
    asking.setblocking(False)
    return asking
