"""FFmpeg publishes by SRT: several on one port, each by its stream id, refused where it may not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamsvc.core import clock
from streamsvc.core.types import Grants
from streamsvc.ingest import sandbox
from streamsvc.service import srt_door
from streamsvc.service.auth import OWNER, PERMISSIONS
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.fake_service import serving
from tests.builders.session import captioned
from tests.fakes.srt_publisher import missing

KEY = "a-key-of-the-srt-door"
OWNED = Grants("owner", "*", frozenset(PERMISSIONS), None, OWNER)
SECONDS = 90.0  # for a condition on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real time")]


needs_srt = pytest.mark.skipif(bool(missing()), reason=missing())


@contextlib.asynccontextmanager
async def door(folder: Path, **groups: dict[str, Any]) -> AsyncIterator[tuple[Service, int]]:
    """A service without models behind an open SRT door: it, and the port."""
    ingest = {"srt_listen": "127.0.0.1:0", "sandbox": "off", **groups.pop("ingest", {})}
    groups["server"] = {"api_key": KEY, **groups.get("server", {})}
    async with (
        serving(folder / "data", ingest=ingest, **groups) as service,
        srt_door.opened(service.settings, service.stream_publishers) as port,
    ):
        yield service, port


@contextlib.asynccontextmanager
async def sending(arguments: Sequence[str], port: int, stream_id: str, query: str = "") -> AsyncIterator[Any]:
    """FFmpeg reads in real time and sends by SRT."""
    process = await asyncio.create_subprocess_exec(
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", *arguments),
        *("-srt_streamid", stream_id, f"srt://127.0.0.1:{port}?{query}"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def ffmpeg(clip: Path, port: int, stream_id: str, query: str = "") -> AbstractAsyncContextManager[Any]:
    """FFmpeg publishes a clip, again and again."""
    arguments = ("-stream_loop", "-1", "-i", str(clip), "-c", "copy", "-f", "mpegts")
    return sending(arguments, port, stream_id, query)


def raw(path: Path, port: int, stream_id: str) -> AbstractAsyncContextManager[Any]:
    """FFmpeg sends bytes as they are, then waits."""
    arguments = ("-f", "data", "-i", str(path), "-map", "0", "-c", "copy", "-f", "data")
    return sending(arguments, port, stream_id)


async def until(condition: Any, what: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while not condition():
                await clock.sleep(0.05)
    assert condition(), what


def session_of(service: Service, name: str) -> Session | None:
    return service.sessions.by_id.get(service.sessions.resolve(name))


def state_of(service: Service, name: str) -> State | None:
    session = session_of(service, name)
    return None if session is None else session.state


def has_media(service: Service, name: str, packets: int = 20) -> bool:
    session = session_of(service, name)
    if session is None or session.state is not State.LIVE:
        return False
    tracks = session.media.ingest()
    return all(tracks.get(kind, {}).get("frames", 0) >= packets for kind in ("audio", "video"))


@pytest.fixture
async def film(tmp_path: Path) -> Path:
    return await filmed(tmp_path / "small.ts", "160x96")


async def filmed(path: Path, size: str) -> Path:
    """Two seconds of H.264 and AAC, with a keyframe each half second."""
    process = await asyncio.create_subprocess_exec(
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc=size={size}:rate=20"),
        *("-f", "lavfi", "-i", "sine", "-t", "2", "-c:v", "libx264", "-preset", "ultrafast", "-g", "10"),
        *("-c:a", "aac", str(path)),
    )
    assert await process.wait() == 0
    return path


async def refused(film: Path, port: int, stream_id: str, query: str = "") -> str:
    """What FFmpeg says where it is refused; it must be."""
    async with ffmpeg(film, port, stream_id, query) as process:
        async with asyncio.timeout(SECONDS):
            _, said = await process.communicate()
        assert process.returncode not in (0, None)
        return str(said.decode())


@needs_srt
async def test_publishers_share_a_port_each_by_its_stream_id(
    tmp_path: Path, film: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    takeover = 3.0
    async with door(tmp_path, ingest={"takeover_seconds": takeover}) as (service, port):
        made = service.auth.token(OWNED, session="two", may=("publish",), seconds=600)
        async with ffmpeg(film, port, f"one?token={KEY}") as first:
            async with ffmpeg(film, port, f"#!::r=two,m=publish,s={made.token}"):
                for name in ("one", "two"):
                    await until(lambda name=name: has_media(service, name), f"no media of {name}")
                one = session_of(service, "one")
                assert one is not None
                async with asyncio.timeout(SECONDS):
                    await captioned(one)
                # What may not: a wrong token, one for another session, a second publisher, no publisher.
                for stream_id in ("three?token=wrong", f"three?token={made.token}", "three", "#!::r=one"):
                    assert "rejection" in await refused(film, port, stream_id)
                assert "rejection" in await refused(film, port, f"one?token={KEY}")
                assert "rejection" in await refused(film, port, f"#!::r=three,m=request,s={KEY}")
                assert session_of(service, "three") is None
                # What a token has started ends with it.
                service.auth.revoke(OWNED, made.id)
                service.started.sweep()
                await until(lambda: state_of(service, "two") is State.STALLED, "it goes on")
            before = one.media.ingest()["video"]
            assert (before["width"], before["height"]) == (160, 96)
            first.kill()
            # Nothing tells its end for as long as libsrt waits; it is back sooner.
            await until(
                lambda: one.media.silent_seconds > takeover or state_of(service, "one") is State.STALLED, ""
            )
        # It comes back with other pictures and other stamps: the session and its time go on.
        other = await filmed(tmp_path / "large.ts", "320x192")
        async with ffmpeg(other, port, f"live/one?token={KEY}"):
            await until(lambda: has_media(service, "one"), "no media after the return")
            await until(lambda: one.media.ingest()["video"].get("width") == 320, "old pictures")
            assert session_of(service, "one") is one
            assert one.media.ingest()["video"]["at"] > before["at"]
            assert one.clock.position() >= one.media.ingest()["video"]["at"] - 1.0, "it runs ahead of time"
    said = "".join(capfd.readouterr())
    assert "session started" in said
    assert KEY not in said
    assert made.token not in said


def is_filtered(pid: int) -> bool:
    """Whether a process may make some system calls alone."""
    return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text(encoding="ascii")


@needs_srt
async def test_with_a_passphrase_what_is_sent_is_encrypted_and_the_process_is_confined(
    tmp_path: Path, film: Path
) -> None:
    confined = {"srt_passphrase": "a passphrase", "sandbox": "auto"}
    holds = sandbox.SECCOMP in await asyncio.to_thread(sandbox.examine)
    async with door(tmp_path, ingest=confined) as (service, port):
        [child] = [
            one for one in psutil.Process().children() if "streamsvc.ingest.srt_child" in one.cmdline()
        ]
        assert is_filtered(child.pid) == holds
        async with ffmpeg(film, port, f"one?token={KEY}", "passphrase=a passphrase&pbkeylen=32"):
            await until(lambda: has_media(service, "one"), "no media")
        for query in ("passphrase=another passphrase", ""):
            assert "REJECT" in await refused(film, port, f"two?token={KEY}", query)
        await until(lambda: session_of(service, "two") is None, "its session is still there")


@needs_srt
async def test_a_publisher_that_sends_no_media_is_disconnected(tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(1).randbytes(1 << 20))
    async with (
        door(tmp_path, ingest={"open_seconds": 1.0}) as (service, port),
        raw(noise, port, f"one?token={KEY}") as process,
    ):
        async with asyncio.timeout(SECONDS):
            await process.communicate()
        await until(lambda: session_of(service, "one") is None, "its session is still there")
