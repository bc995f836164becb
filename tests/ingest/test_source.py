"""Files are read in order of time, paced or as fast as the consumer allows; close joins the thread."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest.source import SourceSink, open_pushed, open_source
from tests.builders.clips import clip

SETTINGS = Ingest(open_seconds=1.0, reconnects=1)


async def no_wait() -> None:
    return


async def read(path: Path | str, speed: float | None = None) -> list[EncodedFrame]:
    source = await open_source(str(path), SETTINGS, session="s", speed=speed, roots=None)
    frames: list[EncodedFrame] = []
    zero = clock.now()
    await source.run(SourceSink(frames.append, no_wait, lambda: zero))
    await source.close()
    return frames


@pytest.mark.parametrize(
    ("name", "video", "audio", "kinds"),
    [
        ("a.mp4", "libx264", "aac", {"audio", "video"}),
        ("a.webm", "libvpx", "libopus", {"audio", "video"}),
        ("a.wav", None, "pcm_s16le", {"audio"}),
        ("a.mkv", "mpeg4", None, {"video"}),
    ],
)
async def test_a_file_gives_frames_of_the_kinds_it_has(
    tmp_path: Path, name: str, video: str | None, audio: str | None, kinds: set[str]
) -> None:
    frames = await read(clip(tmp_path / name, video=video, audio=audio))
    assert {frame.kind for frame in frames} == kinds
    for kind in kinds:
        times = [frame.at for frame in frames if frame.kind == kind]
        assert abs(times[0]) < 0.05
        assert 0.85 < times[-1] < 1.05


def covered(folder: Path, name: str, payload: Callable[[bytes], bytes]) -> Path:
    """A sound file with a cover; `payload`: what becomes of each coded packet of sound."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(picture, "PNG")
    with av.open(str(clip(folder / "a.m4a", video=None))) as sound, av.open(str(folder / name), "w") as out:
        stream = out.add_stream_from_template(sound.streams.audio[0])
        out.add_attachment("cover.png", "image/png", picture.getvalue())
        for packet in sound.demux(audio=0):
            if packet.size:
                fresh = av.Packet(payload(bytes(packet)))
                fresh.pts, fresh.dts, fresh.time_base = packet.pts, packet.dts, packet.time_base
                fresh.stream = stream
                out.mux(fresh)
    return folder / name


async def test_the_cover_of_a_sound_file_is_one_picture_at_its_start(tmp_path: Path) -> None:
    frames = await read(covered(tmp_path, "a.mka", lambda payload: payload))
    pictures = [frame for frame in frames if frame.kind == "video"]
    assert [(frame.at, frame.codec, frame.payload[1:4]) for frame in pictures] == [(0.0, "png", b"PNG")]
    assert max(frame.at for frame in frames) > 0.9, "and all of the sound"


async def test_a_cover_does_not_make_a_file_of_garbage_good(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        await read(covered(tmp_path, "a.mka", lambda payload: b"\x55" * len(payload)))


async def test_frames_of_both_tracks_are_merged_in_order_of_time(tmp_path: Path) -> None:
    frames = await read(clip(tmp_path / "a.mp4", video="libx264"))
    first_video = next(i for i, frame in enumerate(frames) if frame.kind == "video")
    last_video = max(i for i, frame in enumerate(frames) if frame.kind == "video")
    assert any(frame.kind == "audio" for frame in frames[first_video:last_video])


async def test_a_file_in_real_time_is_paced_by_the_clock(tmp_path: Path) -> None:
    """On a real clock: the source reads in a thread, which a virtual clock would outrun."""
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=0.5)
    start = clock.now()
    frames = await read(path, speed=1.0)
    assert frames[-1].at > 0.3
    assert all(frame.arrived - start >= frame.at for frame in frames)
    assert clock.now() - start >= frames[-1].at


async def test_reordered_pictures_come_in_decoding_order(tmp_path: Path) -> None:
    frames = await read(clip(tmp_path / "a.mp4", video="libx264", audio=None, b_frames=2))
    assert sorted(frame.at for frame in frames) != [frame.at for frame in frames], (
        "the clip has no reordered pictures"
    )


async def test_reading_as_fast_as_possible_waits_for_space(tmp_path: Path) -> None:
    source = await open_source(str(clip(tmp_path / "a.mp4")), SETTINGS, session="s", speed=None, roots=None)
    waits: list[Any] = []
    frames: list[Any] = []

    async def counting() -> None:
        waits.append(len(frames))

    await source.run(SourceSink(frames.append, counting, lambda: 0.0))
    await source.close()
    assert waits == list(range(len(frames)))


async def test_a_url_without_an_answer_is_an_error_without_credentials() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and stays silent
        port = server.getsockname()[1]
        with pytest.raises(SourceError) as caught:
            await open_source(
                f"http://user:secret@127.0.0.1:{port}/a.mp4?key=1", SETTINGS, session="s", private_urls=True
            )
    assert caught.value.code == "no_answer"
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert "key" not in str(caught.value)
    with pytest.raises(SourceError, match="no_answer"):
        await open_source(f"rtsp://127.0.0.1:{port}/a", SETTINGS, session="s", private_urls=True)


async def test_close_joins_the_thread_while_it_reads(tmp_path: Path) -> None:
    source = await open_source(
        str(clip(tmp_path / "a.mp4", seconds=4.0)), SETTINGS, session="s", speed=1.0, roots=None
    )
    task = asyncio.create_task(source.run(SourceSink(lambda frame: None, no_wait, clock.now)))
    await asyncio.sleep(0.05)
    task.cancel()
    await source.close()
    await source.close()


async def test_close_ends_a_thread_that_has_read_ahead_as_far_as_it_may(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", seconds=30.0)
    source = await open_source(str(path), SETTINGS, session="s", speed=1.0, roots=None)
    await asyncio.sleep(0.5)  # nobody takes a packet meanwhile
    async with asyncio.timeout(5):
        await source.close()


def pushed(path: Path, sock: socket.socket) -> threading.Thread:
    """A thread that sends a file, then closes."""

    def send() -> None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(path.read_bytes())

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("sandbox", ["auto", "off"])
async def test_what_is_pushed_is_a_live_source_whose_time_begins_with_its_first_byte(
    tmp_path: Path, sandbox: Any
) -> None:
    ours, theirs = socket.socketpair()
    zero = clock.now() - 100.0
    sender = pushed(clip(tmp_path / "a.ts", video="libx264", seconds=2.0), theirs)
    began = clock.now() - zero
    source = await open_pushed(ours, "a stream", Ingest(sandbox=sandbox), "s")
    opened = clock.now() - zero
    assert source.live
    assert {track.kind for track in source.tracks} == {"audio", "video"}
    frames: list[EncodedFrame] = []
    await source.run(SourceSink(frames.append, no_wait, lambda: zero))
    await source.close()
    await asyncio.to_thread(sender.join)
    first = min(frame.at for frame in frames)
    assert began <= first <= opened
    assert first < opened - 0.001 or sandbox == "off", "that it was opened later is no part of it"
    assert {frame.kind for frame in frames} == {"audio", "video"}
    assert max(frame.at for frame in frames) - first > 1.8, "to its end"


async def test_pushed_bytes_that_are_no_media_are_refused_and_disconnected(tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(bytes(range(256)) * 1000)
    ours, theirs = socket.socketpair()
    sender = pushed(noise, theirs)
    with pytest.raises(SourceError) as caught:
        await open_pushed(ours, "a stream", Ingest(sandbox="off"), "s")
    assert caught.value.code == "corrupt"
    await asyncio.to_thread(sender.join)
    assert ours.fileno() == -1


async def test_a_publisher_that_connects_and_is_silent_is_disconnected() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(SourceError, match="no_answer"):
            await open_pushed(ours, "a stream", Ingest(sandbox="off", open_seconds=0.01), "s")
        assert theirs.recv(9) == b""
