"""Pre-encoded publishers: what they send is decoded, keyframes come on request, and losses are repaired."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from load_tests.rtp_media import Form, Stream, recording
from load_tests.rtp_sender import Publisher
from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest.decode import AudioDecoder, VideoDecoder
from streamsvc.ingest.peer import FrameSink, Peer, answer

SECONDS = 2.0


class Service:
    """A peer and the frames of its publisher."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.peer: Peer

    async def exchange(self, offer: str) -> str:
        sink = FrameSink("s", clock.now(), self.frames.append, lambda state, why: None)
        self.peer = await answer(offer, Ingest(), Limits(), sink)
        return self.peer.sdp

    def of(self, kind: str) -> list[EncodedFrame]:
        return [frame for frame in self.frames if frame.kind == kind]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20.0):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def widths(service: Service) -> set[int]:
    """Of all pictures that came, each of which can be decoded."""
    track = next(track for track in service.peer.tracks if track.kind == "video")
    decoder = VideoDecoder(track, "s")
    pictures = decoder.decode(service.of("video"))
    assert (len(pictures), decoder.errors) == (len(service.of("video")), 0)
    return {picture.width for picture in pictures}


@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_a_recording_is_decoded_its_keyframes_come_on_request_and_its_size_may_change(
    codec: str, tmp_path: Path
) -> None:
    media = recording(tmp_path, seconds=SECONDS, form=Form(codec, 160, 96, 10, 100))
    larger = recording(tmp_path, seconds=SECONDS, form=Form(codec, 320, 192, 10, 100)).video
    assert media.video is not None
    assert media.twin is not None
    assert larger is not None
    assert (len(media.video.keyframes), sorted(media.twin.keyframes)) == (1, [0, 1000])
    service, publisher = Service(), Publisher(media)
    await publisher.connect(service.exchange)
    try:
        publisher.begin()
        await service.until(lambda: len(service.of("video")) > 2)
        service.peer.request_keyframe()
        await service.until(lambda: sum(frame.keyframe for frame in service.of("video")) > 2)
        assert widths(service) == {160}
        assert publisher.video is not None
        publisher.video.switch(larger)
        await service.until(lambda: publisher.video is not None and publisher.video.stream is larger)
        await service.until(lambda: service.of("video")[-1].at > service.of("video")[0].at + 2 * SECONDS)
        assert widths(service) == {160, 320}
        track = service.peer.tracks[0]
        heard = sum(len(chunk.samples) for chunk in AudioDecoder(track, "s").decode(service.of("audio")))
        assert heard > SECONDS * 16_000
    finally:
        await publisher.close()
        await service.peer.close()


async def test_what_was_lost_is_sent_again(tmp_path: Path) -> None:
    media = recording(tmp_path, seconds=SECONDS, form=Form("vp8", 160, 96, 10, 100))
    service, publisher = Service(), Publisher(media)
    await publisher.connect(service.exchange)
    try:
        publisher.begin()
        await service.until(lambda: len(service.of("video")) > 2)
        track: Any = publisher.video
        lost: list[bytes] = []
        send = track._send
        track._send = lost.append
        await service.until(lambda: lost)
        track._send = send
        await service.until(lambda: track.counts["nacks"])
        came = len(service.of("video"))
        await service.until(lambda: len(service.of("video")) > came + 10)
        steps = [frame.at for frame in service.of("video")]
        assert max(later - earlier for earlier, later in itertools.pairwise(steps)) < 0.15
        assert service.peer.stats()["video_holes"] == 0
    finally:
        await publisher.close()
        await service.peer.close()


def test_a_stream_knows_where_another_one_may_take_over() -> None:
    assert Stream("vp8", 1.0, ()).keyframes == {}
