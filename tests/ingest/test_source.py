from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from streamsvc import clock
from streamsvc.config import Ingest
from streamsvc.errors import Forbidden, SourceError
from streamsvc.ingest.source import TrackClock, open_source
from streamsvc.types import EncodedFrame
from tests.clips import clip

SETTINGS = Ingest(open_seconds=1.0, reconnects=1)


async def room() -> None:
    return


async def read(path: Path | str, speed: float | None = None) -> list[EncodedFrame]:
    source = await open_source(str(path), SETTINGS, session="s", speed=speed, roots=None)
    frames: list[EncodedFrame] = []
    zero = clock.now()
    await source.run(frames.append, room, lambda: zero)
    await source.close()
    return frames


async def refused(url: str, roots: tuple[Path, ...] | None = None, private_urls: bool = True) -> str:
    with pytest.raises((SourceError, Forbidden)) as caught:
        await open_source(url, SETTINGS, session="s", roots=roots, private_urls=private_urls)
    assert caught.value.message
    return caught.value.code


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


async def test_frames_of_both_tracks_come_in_the_order_of_time(tmp_path: Path) -> None:
    frames = await read(clip(tmp_path / "a.mp4", video="libx264"))
    first_video = next(i for i, frame in enumerate(frames) if frame.kind == "video")
    last_video = max(i for i, frame in enumerate(frames) if frame.kind == "video")
    assert any(frame.kind == "audio" for frame in frames[first_video:last_video])


async def test_a_file_in_real_time_is_paced_by_the_clock(tmp_path: Path) -> None:
    """In real time, since the source reads on a thread that a jumping clock would outrun."""
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=0.5)
    start = clock.now()
    frames = await read(path, speed=1.0)
    assert frames[-1].at > 0.3
    assert all(frame.arrived - start >= frame.at for frame in frames)
    assert clock.now() - start >= frames[-1].at


async def test_pictures_are_handed_over_no_earlier_than_they_could_be_coded(tmp_path: Path) -> None:
    frames = await read(clip(tmp_path / "a.mp4", video="libx264", audio=None, b_frames=2))
    assert sorted(frame.at for frame in frames) != [frame.at for frame in frames], "the clip has no reordered pictures"


async def test_reading_as_fast_as_possible_waits_for_room(tmp_path: Path) -> None:
    source = await open_source(str(clip(tmp_path / "a.mp4")), SETTINGS, session="s", speed=None, roots=None)
    asked: list[Any] = []
    frames: list[Any] = []

    async def counting() -> None:
        asked.append(len(frames))

    await source.run(frames.append, counting, lambda: 0.0)
    await source.close()
    assert asked == list(range(len(frames)))


async def test_each_bad_file_is_refused_with_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    whole = clip(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n\n")
    assert await refused(str(tmp_path / "none.mp4")) == "not_found"
    assert await refused(str(tmp_path)) == "not_found"
    assert await refused(str(tmp_path / "empty.mp4")) == "empty"
    assert await refused(str(tmp_path / "noise.mp4")) == "corrupt"
    assert await refused(str(tmp_path / "cut.mp4")) == "corrupt"
    assert await refused(str(tmp_path / "a.srt")) == "no_media"


async def test_a_file_with_rubbish_inside_is_corrupt(tmp_path: Path) -> None:
    whole = bytearray(clip(tmp_path / "whole.mp4", audio=None).read_bytes())
    start = whole.index(b"mdat") + 4
    end = whole.index(b"moov") - 4
    whole[start:end] = b"\x55" * (end - start)
    (tmp_path / "rubbish.mp4").write_bytes(whole)
    assert await refused(str(tmp_path / "rubbish.mp4")) == "corrupt"


async def test_files_are_read_only_below_the_roots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    clip(outside / "a.wav", video=None, audio="pcm_s16le")
    (inside / "link.wav").symlink_to(outside / "a.wav")
    clip(inside / "b c.wav", video=None, audio="pcm_s16le")
    assert await refused(f"file:{outside}/a.wav", (inside,)) == "outside_sources"
    assert await refused(f"file:{inside}/../out/a.wav", (inside,)) == "outside_sources"
    assert await refused(f"file:{inside}/link.wav", (inside,)) == "outside_sources"
    assert await refused(f"file:{outside}/not_there.wav", (inside,)) == "outside_sources"
    assert await refused(f"file:{inside}/b.wav", ()) == "outside_sources"
    source = await open_source(f"file://{inside}/b%20c.wav", SETTINGS, session="s", roots=(inside,))
    await source.close()


async def test_a_playlist_file_cannot_name_other_files(tmp_path: Path) -> None:
    clip(tmp_path / "a.ts", video="mpeg4", audio=None)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n")
    assert await refused(str(tmp_path / "list.m3u8")) == "corrupt"


@pytest.mark.parametrize("url", ["concat:/etc/passwd", "ftp://x/y", "data:audio/wav;base64,AA", "file://host/x", "http://"])
async def test_other_schemes_are_refused(url: str) -> None:
    assert await refused(url) == "bad_scheme"


async def test_private_hosts_are_refused_unless_allowed() -> None:
    assert await refused("http://127.0.0.1:9/a.mp4", private_urls=False) == "private_url"
    assert await refused("rtsp://[::1]/a", private_urls=False) == "private_url"


async def test_a_url_that_does_not_answer_says_so_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and is silent
        port = server.getsockname()[1]
        with pytest.raises(SourceError) as caught:
            await open_source(f"http://user:secret@127.0.0.1:{port}/a.mp4?key=1", SETTINGS, session="s", private_urls=True)
    assert caught.value.code == "no_answer"
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert "key" not in str(caught.value)
    with pytest.raises(SourceError, match="no_answer"):
        await open_source(f"rtsp://127.0.0.1:{port}/a", SETTINGS, session="s", private_urls=True)


async def test_closing_in_the_middle_joins_the_thread(tmp_path: Path) -> None:
    source = await open_source(str(clip(tmp_path / "a.mp4", seconds=4.0)), SETTINGS, session="s", speed=1.0, roots=None)
    task = asyncio.create_task(source.run(lambda frame: None, room, clock.now))
    await asyncio.sleep(0.05)
    task.cancel()
    await source.close()
    await source.close()


def test_missing_restarted_and_early_stamps_are_bridged() -> None:
    track = TrackClock(start=5.0)
    assert track.place(5.0, 0.02) == 0.0
    assert track.place(None, 0.02) == pytest.approx(0.02)
    assert track.place(5.04, 0.02) == pytest.approx(0.04)
    assert track.place(95443.7, 0.02) == pytest.approx(0.06), "a new time line goes on where the old one ended"
    assert track.place(95443.72, 0.02) == pytest.approx(0.08)
    assert track.place(95444.72, 0.02) == pytest.approx(1.08), "a pause stays a pause"
