"""A track receiver accepts one stream per track and requests codec keyframes."""

from __future__ import annotations

from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtp import RtpPacket

from tests.builders.webrtc import Noise, publishing


async def test_a_requested_keyframe_arrives() -> None:
    async with publishing(Noise()) as call:
        await call.until(lambda: len(call.frames) > 5)
        before = call.peer.stats()["video_keyframes"]
        call.peer.request_keyframe()
        await call.until(lambda: call.peer.stats()["video_keyframes"] > before)


async def test_packets_of_a_second_ssrc_are_refused() -> None:
    async with publishing(AudioStreamTrack()) as call:
        await call.until(lambda: call.frames)
        audio = call.peer._receivers["audio"]
        assert not audio.accept(RtpPacket(payload_type=96, ssrc=1, payload=b"x"))
        assert call.peer.stats()["audio_foreign"] == 1
