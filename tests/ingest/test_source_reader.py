"""Live URLs are read on one clock, reopened when they break off, and confined to protocols.

Received packets are compared with the file that the server sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest.source import Source, SourceSink, open_source

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's GStreamer packages are for this one
RTSP = Path(__file__).parents[1] / "fakes" / "rtsp_server.py"


async def no_wait() -> None:
    return


class Live:
    """A live source that is being read; session time 0 is now."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.zero = clock.now()
        self.frames: list[EncodedFrame] = []
        self.states: list[tuple[str, str]] = []
        self.changed = asyncio.Event()
        sink = SourceSink(self.tap, no_wait, lambda: self.zero, self.note_state)
        self.task = asyncio.create_task(source.run(sink))

    def tap(self, frame: EncodedFrame) -> None:
        self.frames.append(frame)
        self.changed.set()

    def note_state(self, state: str, reason: str) -> None:
        self.states.append((state, reason))
        self.changed.set()

    def of(self, kind: str) -> list[EncodedFrame]:
        return [frame for frame in self.frames if frame.kind == kind]

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                assert not self.task.done(), self.task
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def live(url: str, **settings: Any) -> AsyncIterator[Live]:
    source = await open_source(
        url, Ingest(**({"open_seconds": 4.0} | settings)), session="s", private_urls=True
    )
    reading = Live(source)
    try:
        yield reading
    finally:
        reading.task.cancel()
        await asyncio.gather(reading.task, return_exceptions=True)
        await source.close()


def noise(path: Path, seconds: float) -> Path:
    """A clip without two equal packets: H.264, 160x96 at 25 a second, and AAC."""
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(
            "libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        )
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        audio: Any = container.add_stream("aac", rate=48_000, layout="mono")
        for number in range(round(25 * seconds)):
            picture = av.VideoFrame.from_ndarray(
                random.integers(0, 255, (96, 160, 3), dtype=np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
            sound = av.AudioFrame.from_ndarray(
                random.normal(0, 0.1, (1, 1920)).astype(np.float32), format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts, sound.time_base = 48_000, 1920 * number, Fraction(1, 48_000)
            container.mux(audio.encode(sound))
        container.mux([*video.encode(None), *audio.encode(None)])
    return path


def essence(kind: str, payload: bytes) -> bytes:
    """The part of a payload that is the same in every container.

    AAC without its ADTS header; the end of the last slice of a picture.
    """
    if kind == "audio":
        return payload[7:] if payload[:2] in (b"\xff\xf1", b"\xff\xf9") else payload
    return payload.rstrip(b"\0")[-24:]


def times(path: Path) -> dict[tuple[str, bytes], float]:
    """Times of all packets of a file that occur once, by kind and essence."""
    by_essence: dict[tuple[str, bytes], list[float]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                key = (packet.stream.type, essence(packet.stream.type, bytes(packet)))
                by_essence.setdefault(key, []).append(float(packet.pts * packet.time_base))
    return {key: stamps[0] for key, stamps in by_essence.items() if len(stamps) == 1}


def offsets(frames: list[EncodedFrame], truth: dict[tuple[str, bytes], float]) -> list[float]:
    """Differences between the times of frames and the file's."""
    known = [(frame, truth.get((frame.kind, essence(frame.kind, frame.payload)))) for frame in frames]
    return [frame.at - stamp for frame, stamp in known if stamp is not None]


@contextlib.asynccontextmanager
async def rtsp(
    path: Path, port: int = 0, transport: str = "tcp"
) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """Run an RTSP server; yields its URL and a function that kills it."""
    server = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON,
        str(RTSP),
        str(path),
        str(port),
        transport,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(20):
            bound = int(await server.stdout.readline())
        yield f"rtsp://127.0.0.1:{bound}/live", server.kill
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.communicate()


@pytest.fixture(scope="module")
def gstreamer() -> None:
    """Skip where GStreamer's RTSP server is not installed."""
    try:
        ready = (
            subprocess.run([SYSTEM_PYTHON, str(RTSP), "--check"], capture_output=True, timeout=60).returncode
            == 0
        )
    except OSError:
        ready = False
    if not ready:
        pytest.skip(
            "GStreamer's RTSP server is missing (Debian: python3-gi gir1.2-gst-rtsp-server-1.0"
            " gstreamer1.0-plugins-good)"
        )


@pytest.mark.usefixtures("gstreamer")
async def test_rtsp_over_udp_alone_is_refused_and_told(tmp_path: Path) -> None:
    async with rtsp(noise(tmp_path / "a.mp4", 1.0), transport="udp") as (url, _):
        with pytest.raises(SourceError, match="UDP alone") as caught:
            await open_source(url, Ingest(open_seconds=4.0), session="s", private_urls=True)
    assert (caught.value.code, caught.value.retryable) == ("refused", False)


@pytest.mark.usefixtures("gstreamer")
async def test_rtsp_tracks_share_one_clock_and_arrive_as_they_are_sent(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.mp4", 6.0)
    async with rtsp(path) as (url, _), live(url) as reading:
        assert {(track.kind, track.codec) for track in reading.source.tracks} == {
            ("audio", "aac"),
            ("video", "h264"),
        }
        await reading.until(lambda: reading.of("audio") and reading.of("audio")[-1].at > 2.5)
        truth = times(path)
        differences = [offsets(reading.of(kind), truth) for kind in ("audio", "video")]
        assert all(len(of_track) > 20 for of_track in differences)
        assert max(map(max, differences)) - min(map(min, differences)) < 0.1
        assert reading.of("video")[0].keyframe
        ahead = [frame.at - (frame.arrived - reading.zero) for frame in reading.of("audio")]
        assert max(ahead) < 0.5, "packets buffered while probing lie in the future of the session"
        assert reading.states == []


@pytest.mark.usefixtures("gstreamer")
async def test_a_killed_rtsp_server_stalls_and_resumes_on_the_same_clock(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.mp4", 20.0)
    async with contextlib.AsyncExitStack() as stack:
        url, kill = await stack.enter_async_context(rtsp(path))
        reading = await stack.enter_async_context(live(url, stall_seconds=0.3))
        await reading.until(lambda: len(reading.of("audio")) > 50)
        kill()
        await reading.until(lambda: reading.states)
        assert reading.states == [("stalled", "no media")]
        before = len(reading.frames)
        await stack.enter_async_context(rtsp(path, int(url.split(":")[2].split("/")[0])))
        await reading.until(lambda: len(reading.states) > 1)
        resumed = len(reading.frames)
        await reading.until(
            lambda: (
                min(sum(f.kind == kind for f in reading.frames[resumed:]) for kind in ("audio", "video")) > 30
            )
        )
        assert reading.states[:2] == [("stalled", "no media"), ("resumed", "opened again")]
        assert reading.source.reconnects == 1
        for kind in ("audio", "video"):
            again = [frame for frame in reading.frames[before:] if frame.kind == kind]
            assert again[0].gap > 0.3
            assert all(abs(frame.at - (frame.arrived - reading.zero)) < 0.6 for frame in again), (
                "on the session's clock"
            )


@pytest.mark.usefixtures("gstreamer")
async def test_an_rtsp_server_that_stays_away_is_an_error_after_the_reconnects(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.mp4", 20.0)
    async with rtsp(path) as (url, kill), live(url, reconnects=1) as reading:
        await reading.until(lambda: reading.frames)
        kill()
        with pytest.raises(SourceError) as caught:
            await asyncio.wait_for(reading.task, 15)
    assert (caught.value.code, caught.value.retryable) == ("no_answer", True)


class Site:
    """A web server in the test's loop: path -> body, or a function that returns it per request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[], bytes | None]] = {}
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().lstrip("/")
            file = self.files.get(path)
            body = file() if callable(file) else file
            status = b"404 Not Found" if body is None else b"200 OK"
            writer.write(
                b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(body or b""), body or b"")
            )
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    web = Site()
    server = await asyncio.start_server(web.answer, "127.0.0.1", 0)
    web.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield web
    finally:
        server.close()
        await server.wait_closed()


def segments(web: Site, path: Path) -> list[str]:
    """Segment a file by FFmpeg's HLS muxer onto the site; the playlist lines of the segments."""
    playlist = path.with_suffix(".m3u8")
    with (
        av.open(str(path)) as whole,
        av.open(str(playlist), "w", format="hls", options={"hls_time": "0.4", "hls_list_size": "0"}) as cut,
    ):
        streams = {stream.index: cut.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                cut.mux(packet)
    for segment in path.parent.glob("*.ts"):
        web.files[segment.name] = segment.read_bytes()
    lines = playlist.read_text().splitlines()
    return [
        f"{line}\n{lines[number + 1]}\n" for number, line in enumerate(lines) if line.startswith("#EXTINF")
    ]


def window(entries: list[str], first: int, *, ended: bool = False) -> bytes:
    """A playlist of three segments."""
    head = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n"
    return (head + "".join(entries[first : first + 3]) + ("#EXT-X-ENDLIST\n" if ended else "")).encode()


async def test_a_live_playlist_is_read_once_to_its_end_in_real_time(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.mp4", 3.2)
    async with site() as web:
        entries = segments(web, path)
        requests = [0]

        def playlist() -> bytes:  # grows by a segment at each request
            first = min(requests[0], len(entries) - 3)
            requests[0] += 1
            return window(entries, first, ended=requests[0] > len(entries))

        web.files["live.m3u8"] = playlist
        async with live(f"{web.url}/live.m3u8") as reading:
            await asyncio.wait_for(reading.task, 30)
        assert len(entries) > 6
        truth = times(path)
        differences = [offsets(reading.of(kind), truth) for kind in ("audio", "video")]
        assert max(map(max, differences)) - min(map(min, differences)) < 0.1
        payloads = [frame.payload for frame in reading.of("video")]
        assert len(payloads) == len(set(payloads)) == 80
        assert all(frame.arrived - reading.zero >= frame.at - 0.2 for frame in reading.frames)


async def test_a_playlist_that_stops_growing_stalls_and_is_then_an_error(tmp_path: Path) -> None:
    async with site() as web:
        web.files["live.m3u8"] = window(segments(web, noise(tmp_path / "a.mp4", 2.0)), 0)
        async with live(f"{web.url}/live.m3u8", open_seconds=1.0, reconnects=1, stall_seconds=0.3) as reading:
            with pytest.raises(SourceError) as caught:
                await asyncio.wait_for(reading.task, 30)
    assert caught.value.code == "no_answer"
    assert reading.source.reconnects == 1
    assert reading.states == [("stalled", "no media")]
    payloads = [frame.payload for frame in reading.of("video")]
    assert len(payloads) == len(set(payloads)), "reopened, it repeated segments that were read already"


async def test_a_live_playlist_that_ended_and_was_removed_is_not_an_error(tmp_path: Path) -> None:
    async with site() as web:
        entries = segments(web, noise(tmp_path / "a.mp4", 2.0))
        bodies = iter([window(entries, 0), window(entries, 0, ended=True)])
        web.files["live.m3u8"] = lambda: next(bodies, None)
        async with live(f"{web.url}/live.m3u8", reconnects=1) as reading:
            await asyncio.wait_for(reading.task, 15)
    assert reading.source.reconnects == 0
    assert len(reading.of("video")) > 20


@pytest.mark.parametrize(
    "named",
    ["file:{folder}/a0.ts", "{folder}/a0.ts", "concat:{folder}/a0.ts", "ftp://127.0.0.1:{port}/a0.ts"],
)
@pytest.mark.parametrize(
    "line", ["#EXTINF:0.4,\n{}\n", '#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:0.4,\na0.ts\n']
)
async def test_a_playlist_cannot_name_a_file_or_a_foreign_protocol(
    tmp_path: Path, named: str, line: str
) -> None:
    async with site() as web:
        segments(web, noise(tmp_path / "a.mp4", 1.0))
        with socket.create_server(("127.0.0.1", 0)) as other:
            name = named.format(folder=tmp_path, port=other.getsockname()[1])
            web.files["live.m3u8"] = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{line.format(name)}".encode()
            with pytest.raises(SourceError):
                await open_source(
                    f"{web.url}/live.m3u8", Ingest(open_seconds=0.5), session="s", private_urls=True
                )
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.accept()
