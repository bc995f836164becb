"""Frames of any sender become pictures that are compared, also where nothing comes after them."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.frame import PictureType

from streamsvc.core import clock
from streamsvc.core.errors import SourceError
from streamsvc.core.options import SessionOptions
from streamsvc.core.types import EncodedFrame, MediaTrack, VideoFrame
from streamsvc.ingest import decode
from streamsvc.service.session import Session
from tests.builders.clips import slides
from tests.builders.session import OPUS, VP8, Playing, Sender, kinds, make, packets, send


def test_after_dropped_pictures_the_publisher_is_asked_for_a_keyframe(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    class Asked(Sender):
        asked = 0

        def request_keyframe(self) -> None:
            self.asked += 1

    async def main() -> None:
        async with Playing(make(ingest={"video_ring": 5})) as played:
            sender = Asked()
            played.session.media.attach(sender)
            for frame in packets(tmp_path, 1.0, audio=None)[:20]:  # the last five hold no keyframe
                played.session.media.tap(frame)
            await clock.sleep(1.0)
            assert sender.asked == 1
            assert "keyframe.sampled" not in kinds(played.events), "half a picture is none"

    stage.run(main())


def coded(path: Path) -> tuple[MediaTrack, list[EncodedFrame]]:
    """The video track of a file and its frames, in the order of the file."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        codec = stream.codec_context.codec.name
        found = [
            EncodedFrame(
                "s", "main", float(p.pts * p.time_base), 0.0, "video", bytes(p), codec, bool(p.is_keyframe)
            )
            for p in container.demux(stream)
            if p.size and p.pts is not None
        ]
        return MediaTrack("video", codec, stream.codec_context), found


def sampled(events: list[dict[str, Any]]) -> list[float]:
    return [round(event["at"], 2) for event in events if event["type"] == "keyframe.sampled"]


@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 0), ("libx264", 2), ("libvpx", 0), ("mpeg4", 0)])
@pytest.mark.parametrize("times", [(0.0, 15.0, 30.0), (0.0, 5.0, 10.0, 11.0), (0.0, 0.1, 8.0, 8.1)])
def test_every_slide_of_a_file_is_seen_from_its_own_second(
    stage: asyncio.Runner, tmp_path: Path, codec: str, b_frames: int, times: tuple[float, ...]
) -> None:
    path = slides(tmp_path / "a.mkv", *times, codec=codec, b_frames=b_frames)

    async def main() -> None:
        track, frames = coded(path)
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            played.session.media.attach(Sender(OPUS, track))
            for frame in frames:
                await played.session.media.wait_for_space()
                played.session.media.tap(frame)
            played.session.end("ended")
            events = await played.ended()
        shown = [at for at, later in itertools.pairwise((*times, 1e9)) if later - at > 0.5 or at == 0.0]
        assert sampled(events) == shown
        assert kinds(events).count("sight.ready") == len(shown)

    stage.run(main())


def test_a_screen_share_of_single_pictures_is_seen_while_nothing_else_comes(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    path = slides(tmp_path / "a.webm", 0.0, 20.0, 20.1, 60.0, codec="libvpx")

    async def main() -> None:
        _, frames = coded(path)
        async with Playing(make()) as played:
            played.session.media.attach(Sender(VP8))
            sending = asyncio.create_task(send(played.session, frames))
            await clock.sleep(19.0)
            assert sampled(played.events) == [0.0]
            await clock.sleep(2.0)
            assert sampled(played.events) == [0.0, 20.1]
            await clock.sleep(40.0)
            assert sampled(played.events) == [0.0, 20.1, 60.0]
            last = [event for event in played.events if event["type"] == "keyframe.sampled"][-1]
            assert 500 < last["age_ms"] < 1000, "the age counts from the arrival of the picture"
            await sending

    stage.run(main())


def test_pictures_whose_process_has_failed_are_left_out_and_the_rest_is_seen(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slides(tmp_path / "a.mkv", 0.0, 5.0, 10.0)
    looked: list[VideoFrame] = []

    def thumbnail(frame: VideoFrame) -> Any:
        looked.append(frame)
        if frame.at < 4.0:
            raise SourceError("its process ended", code="source_crashed")
        return shown(frame)

    shown = decode.thumbnail
    monkeypatch.setattr(decode, "thumbnail", thumbnail)

    async def main() -> None:
        track, frames = coded(path)
        async with Playing(make()) as played:
            played.session.media.attach(Sender(OPUS, track))
            await send(played.session, frames)
            await clock.sleep(3.0)
            played.session.end("ended")
            assert sampled(await played.ended()) == [5.0, 10.0]
        assert looked[0].at == 0.0

    stage.run(main())


def test_a_broken_stream_does_not_stand(stage: asyncio.Runner, tmp_path: Path) -> None:
    path = slides(tmp_path / "a.webm", 0.0, 10.0, 10.1, codec="libvpx")

    async def main() -> None:
        _, frames = coded(path)
        frames[2] = replace(frames[2], gap=1.0)  # refers to what was lost
        async with Playing(make()) as played:
            sender = Sender(VP8)
            played.session.media.attach(sender)
            await send(played.session, frames)
            await clock.sleep(5.0)
            assert sampled(played.events) == [0.0]
            assert sender.keyframe_requests == 1

    stage.run(main())


def test_the_pictures_that_a_decoder_holds_back_are_seen_when_another_publisher_comes(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    first = slides(tmp_path / "a.mkv", 0.0, 5.0, 10.0, b_frames=2)
    second = slides(tmp_path / "b.mkv", 0.0, b_frames=0)

    async def main() -> None:
        async with Playing(make()) as played:
            for path, at in ((first, 0.0), (second, 20.0)):
                track, frames = coded(path)
                played.session.media.attach(Sender(track))
                for frame in frames:
                    played.session.media.tap(
                        replace(frame, at=at + frame.at, arrived=clock.now() + frame.at - 20.0)
                    )
                await clock.sleep(2.0)
                played.session.media.detach("left")
            assert set(sampled(played.events)) >= {0.0, 5.0, 10.0}

    stage.run(main())


# --- codec keyframes alone ---

ON_REQUEST = replace(VP8, keyframes_on_request=True)
RATE = 10


class Answers(Sender):
    """A publisher that sends a codec keyframe after each request; nothing else of it is decodable."""

    def __init__(self, pictures: list[EncodedFrame], tracks: tuple[MediaTrack, ...] = (OPUS, ON_REQUEST)):
        super().__init__(*tracks)
        self.pictures = pictures  # each of them coded as a keyframe, at its second
        self.wanted = True

    def request_keyframe(self) -> None:
        super().request_keyframe()
        self.wanted = True

    async def send(self, session: Session, seconds: float) -> None:
        start, zero = clock.now(), session.clock.zero
        for number in range(round(seconds * RATE)):
            at = number / RATE
            await clock.sleep(start + at - clock.now())
            shown = [picture for picture in self.pictures if picture.at <= at][-1]
            wanted, self.wanted = self.wanted, False
            frame = shown if wanted else replace(shown, payload=bytes(100), keyframe=False)
            session.media.tap(replace(frame, at=start - zero + at, arrived=clock.now()))


def test_each_slide_is_seen_in_codec_keyframes_alone(stage: asyncio.Runner, tmp_path: Path) -> None:
    times = (0.0, 7.3, 14.7, 20.1)
    _, pictures = coded(slides(tmp_path / "a.webm", *times, codec="libvpx"))

    async def main() -> None:
        async with Playing(make()) as played:
            sender = Answers(
                [replace(picture, keyframe=True) for picture in alone(pictures, tmp_path, times)]
            )
            played.session.media.attach(sender)
            await sender.send(played.session, 25.0)
            assert played.session.media.ingest()["video"]["decoded"] == "keyframes"
            await clock.sleep(3.0)
            seen = sampled(played.events)
            assert len(seen) == len(times)
            assert all(0.0 <= at - due <= 1.3 for at, due in zip(seen, times, strict=True))
            assert 20 <= sender.keyframe_requests <= 25

    stage.run(main())


def alone(pictures: list[EncodedFrame], folder: Path, times: tuple[float, ...]) -> list[EncodedFrame]:
    """The same pictures, each coded as the first one of a stream."""
    found = []
    for number, at in enumerate(times):
        with av.open(str(folder / "a.webm")) as container:
            picture = list(container.decode(video=0))[number]
        context: Any = av.CodecContext.create("libvpx", "w")
        context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuv420p"
        context.time_base = Fraction(1, 1000)
        context.options = {"deadline": "realtime", "lag-in-frames": "0"}
        picture.pts, picture.pict_type = 0, PictureType.NONE
        packet = [*context.encode(picture), *context.encode(None)][0]
        found.append(replace(pictures[0], at=at, payload=bytes(packet)))
    return found


def test_where_no_keyframe_comes_no_slide_is_lost(stage: asyncio.Runner, tmp_path: Path) -> None:
    path = slides(tmp_path / "a.webm", 0.0, *(1.0 + number / 4 for number in range(40)), 15.0, codec="libvpx")

    async def main() -> None:
        _, frames = coded(path)
        async with Playing(make()) as played:
            played.session.media.attach(Sender(ON_REQUEST))
            await send(played.session, frames)
            await clock.sleep(2.0)
            assert sampled(played.events)[-1] == 15.0
            assert played.session.media.ingest()["video"]["decoded"] == "all"

    stage.run(main())


def test_a_question_asks_the_publisher_for_a_codec_keyframe_at_once(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main(track: MediaTrack, asked: int) -> None:
        async with Playing(make()) as played:
            sender = Sender(OPUS, track)
            played.session.media.attach(sender)
            for frame in packets(tmp_path, 0.5, audio=None):
                played.session.media.tap(frame)
            played.session.vision.request_keyframe()
            assert sender.keyframe_requests == asked

    stage.run(main(ON_REQUEST, 1))
    stage.run(main(VP8, 0))
