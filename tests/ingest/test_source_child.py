"""What is demuxed and decoded in another process is what this one would make of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError
from streamsvc.core.types import EncodedFrame, MediaTrack, VideoFrame
from streamsvc.ingest import sandbox, source_child, source_decoders
from streamsvc.ingest.decode import jpeg, thumbnail
from streamsvc.ingest.decoders import audio_decoder, video_decoder
from streamsvc.ingest.demuxer import Demuxed
from streamsvc.ingest.source import SourceSink, open_source
from streamsvc.ingest.source_channel import DAMAGED, Channel
from streamsvc.ingest.source_child import Codecs, Demuxing
from streamsvc.ingest.source_decoders import RemoteCodec
from tests.builders.clips import clip
from tests.builders.stamped import hear, no_wait


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("a.mp4", "libx264", "aac"), ("a.webm", "libvpx", "libopus"), ("a.ts", "mpeg2video", "mp2")],
)
async def test_the_frames_and_the_sound_are_the_same(
    tmp_path: Path, name: str, video: str, audio: str
) -> None:
    path = clip(tmp_path / name, video=video, audio=audio, seconds=2.0)
    within, apart = [await hear(path, Ingest.model_validate({"sandbox": mode})) for mode in ("off", "auto")]

    def plain(frames: list[EncodedFrame]) -> list[EncodedFrame]:
        return [replace(frame, arrived=0.0, changed=None) for frame in frames]

    assert plain(apart.frames) == plain(within.frames)
    assert len(apart.frames) > 50
    assert (apart.sound, apart.gaps, apart.pictures) == (within.sound, within.gaps, within.pictures)


async def seen(path: Path, mode: str) -> list[tuple[VideoFrame, Any, bytes]]:
    """Pictures of a file, each with its thumbnail and JPEG."""
    source = await open_source(
        str(path), Ingest.model_validate({"sandbox": mode}), session="s", speed=None, roots=None
    )
    frames: list[EncodedFrame] = []
    await source.run(SourceSink(frames.append, no_wait, lambda: 0.0))
    decoder = video_decoder(next(track for track in source.tracks if track.kind == "video"), "s")
    found: list[tuple[VideoFrame, Any, bytes]] = []

    def look(pictures: list[VideoFrame]) -> None:
        found.extend((picture, thumbnail(picture), jpeg(picture, 100)) for picture in pictures)

    video = [frame for frame in frames if frame.kind == "video"]
    for first in range(0, len(video), 8):
        look(await asyncio.to_thread(decoder.decode, video[first : first + 8]))
    look(await asyncio.to_thread(decoder.flush))
    decoder.close()
    await source.close()
    return found


async def test_the_pictures_are_the_same_and_reach_us_as_pixels(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", video="libx264", audio=None, b_frames=2)
    within, apart = await seen(path, "off"), await seen(path, "auto")
    assert len(within) == len(apart) == 25
    for (one, gray, coded), (other, other_gray, other_coded) in zip(within, apart, strict=True):
        assert (other.at, other.width, other.height) == (one.at, one.width, one.height)
        assert np.array_equal(gray, other_gray)
        assert coded == other_coded


async def test_the_picture_before_can_still_be_looked_at_and_older_ones_are_gone(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", video="libx264", audio=None)
    source = await open_source(str(path), Ingest(), session="s", speed=None, roots=None)
    frames: list[EncodedFrame] = []
    await source.run(SourceSink(frames.append, no_wait, lambda: 0.0))
    decoder = video_decoder(source.tracks[0], "s")
    first = await asyncio.to_thread(decoder.decode, frames[:8])
    await asyncio.to_thread(decoder.decode, frames[8:12])
    assert (await asyncio.to_thread(thumbnail, first[-1])).shape == (192, 320)
    await asyncio.to_thread(decoder.decode, frames[12:16])
    decoder.close()
    await source.close()


def test_old_codecs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_child, "CODECS", 2)
    codecs = Codecs()

    for name in ("a", "b", "c"):
        context = av.CodecContext.create("aac", "r")
        context.extradata = b"\1"
        told = codecs.add(MediaTrack("audio", name, context))
    assert (told["codec"], told["extradata"], told["parameters"]["context"]) == (3, "01", "aac")
    assert codecs.track(3).codec == "c"
    with pytest.raises(SourceError, match="too many other parameters"):
        codecs.track(1)


async def test_all_pictures_of_a_batch_can_be_looked_at_however_large_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path / "a.mp4", video="libx264", audio=None)
    source = await open_source(str(path), Ingest(), session="s", speed=None, roots=None)
    frames: list[EncodedFrame] = []
    await source.run(SourceSink(frames.append, no_wait, lambda: 0.0))
    decoder = video_decoder(source.tracks[0], "s")
    monkeypatch.setattr(source_decoders, "BATCH", 4)
    pictures = await asyncio.to_thread(decoder.decode, frames)
    assert len(pictures) > 20
    for picture in pictures:
        assert (await asyncio.to_thread(thumbnail, picture)).shape == (192, 320)
    await asyncio.to_thread(decoder.decode, frames[:1])
    await asyncio.to_thread(decoder.decode, frames[1:2])
    with pytest.raises(SourceError, match="the picture is gone"):
        await asyncio.to_thread(thumbnail, pictures[0])
    assert source._process is not None
    assert source._process.failure is None, "it decodes on"
    decoder.close()
    await source.close()


async def test_frames_whose_parameters_are_forgotten_are_counted_and_their_source_goes_on(
    tmp_path: Path,
) -> None:
    path = clip(tmp_path / "a.mp4", video="libx264", audio="aac")
    source = await open_source(str(path), Ingest(), session="s", speed=None, roots=None)
    frames: list[EncodedFrame] = []
    await source.run(SourceSink(frames.append, no_wait, lambda: 0.0))
    process = source._process
    assert process is not None
    sound = [frame for frame in frames if frame.kind == "audio"]
    forgotten = RemoteCodec(process, 99, b"", {}).audio_decoder("s")
    assert await asyncio.to_thread(forgotten.decode, sound) == []
    assert (forgotten.errors, process.failure) == (len(sound), None)
    decoder = audio_decoder(next(track for track in source.tracks if track.kind == "audio"), "s")
    assert await asyncio.to_thread(decoder.decode, sound)
    forgotten.close()
    decoder.close()
    await source.close()


async def test_a_packet_that_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_child, "BODY_BYTES", source_child.PACKET_BYTES + 5)

    def large(on_damaged: object) -> Iterator[Demuxed]:
        yield Demuxed("video", bytes(6), True, 0, 0, 1, Fraction(1, 25), None)

    ours, theirs = socket.socketpair()
    demuxing = Demuxing(Channel(ours), Codecs())
    demuxing._name, demuxing._found = "a.mkv", large(None)
    answer, _ = demuxing._packets()
    assert "a.mkv holds a packet of 0 MiB, which is too large" in answer["error"]["message"]
    demuxing._ended, demuxing._damaged, demuxing._found = None, DAMAGED + 3, iter(())
    assert [demuxing._packets()[0]["damaged"] for _ in range(2)] == [DAMAGED, 3], "the rest comes later"
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("error", "status"), [(MemoryError(), sandbox.NO_MEMORY), (ValueError("what was said"), 1)]
)
def test_what_ends_a_process_is_told_by_its_status_and_the_class(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)

    def serve() -> None:
        raise error

    ours, theirs = socket.socketpair()
    source_child._serve(Channel(theirs), serve)
    theirs.close()
    told = ours.makefile("rb").read()
    ours.close()
    assert ended == [status]
    assert (b'"error":"ValueError"' in told) == (status == 1)
    assert b"what was said" not in told
