from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack
from aiortc.rtp import RtpPacket
from av import VideoFrame

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.errors import InvalidRequest, PreconditionFailed, Unprocessable
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest import aiortc_hooks
from streamsvc.ingest.peer import Peer, answer

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Noise(VideoStreamTrack):
    """A picture that needs several packets."""

    async def recv(self) -> VideoFrame:
        pts, base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(
            np.random.default_rng(pts).integers(0, 255, (120, 160, 3), dtype=np.uint8), format="rgb24"
        )
        frame.pts, frame.time_base = pts, base
        return frame


class Muted(MediaStreamTrack):
    kind = "audio"

    async def recv(self) -> Any:
        await asyncio.sleep(3600)


class Call:
    """A plain aiortc publisher and our peer."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.states: list[tuple[str, str]] = []
        self.sender = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer: Peer

    async def until(self, what: Callable[[], Any], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not what():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def of(self, kind: str) -> list[EncodedFrame]:
        return [frame for frame in self.frames if frame.kind == kind]

    def cut(self) -> Callable[[], None]:
        """Let nothing of the publisher through; returns what mends it."""
        protocols = [p for c in aiortc_hooks.connections(self.sender) for p in c._protocols]
        kept = [p.transport for p in protocols]

        class Hole:
            def __init__(self, real: Any) -> None:
                self._real = real

            def sendto(self, data: Any, address: Any) -> None:
                """Lost."""

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        for protocol in protocols:
            protocol.transport = Hole(protocol.transport)  # type: ignore[assignment]

        def mend() -> None:
            for protocol, transport in zip(protocols, kept, strict=True):
                protocol.transport = transport

        return mend


@asynccontextmanager
async def publishing(
    *tracks: MediaStreamTrack,
    tap: Callable[[EncodedFrame], None] | None = None,
    before_connect: Callable[[Peer], None] | None = None,
    **settings: Any,
) -> AsyncIterator[Call]:
    call = Call()
    for track in tracks or (AudioStreamTrack(), Noise()):
        call.sender.addTransceiver(track, "sendonly")
    await call.sender.setLocalDescription(await call.sender.createOffer())
    call.peer = await answer(
        call.sender.localDescription.sdp,
        Ingest(**settings),
        Limits(),
        session="s",
        zero=clock.now(),
        tap=tap or call.frames.append,
        on_state=lambda state, reason: call.states.append((state, reason)),
    )
    try:
        if before_connect:
            before_connect(call.peer)
        await call.sender.setRemoteDescription(RTCSessionDescription(call.peer.sdp, "answer"))
        yield call
    finally:
        await call.peer.close()
        await call.sender.close()
        await asyncio.sleep(0.05)


async def test_a_publisher_s_audio_and_video_reach_the_tap_encoded() -> None:
    async with publishing() as call:
        assert [(track.kind, track.codec) for track in call.peer.tracks] == [
            ("audio", "opus"),
            ("video", "vp8"),
        ]
        await call.until(lambda: len(call.of("audio")) >= 100 and len(call.of("video")) >= 50)
        for kind, period in (("audio", 0.02), ("video", 1 / 30)):
            times = [frame.at for frame in call.of(kind)]
            assert times == sorted(times)
            assert (times[-1] - times[0]) / (len(times) - 1) == pytest.approx(period, rel=0.1)
            assert all(
                frame.payload and frame.session == "s" and frame.track == "main" for frame in call.of(kind)
            )
        video = call.of("video")
        assert video[0].keyframe
        assert sum(frame.keyframe for frame in video) < len(video) / 2
        assert all(len(frame.payload) > 1300 for frame in video[:1])  # of several packets
        assert abs(call.of("audio")[-1].at - video[-1].at) < 0.5
        assert ("connected", "") in call.states
        assert not any(frame.gap for frame in call.of("audio"))


async def test_a_keyframe_comes_when_it_is_asked_for() -> None:
    async with publishing(Noise()) as call:
        await call.until(lambda: len(call.frames) > 5)
        before = call.peer.stats()["video_keyframes"]
        call.peer.request_keyframe()
        await call.until(lambda: call.peer.stats()["video_keyframes"] > before)


async def test_a_stranger_s_datagrams_do_not_break_the_handshake() -> None:
    hello = bytes.fromhex("16feff0000000000000000000a0100000000000000fefd") + bytes(32)

    def attack(peer: Peer) -> None:
        (port,) = {int(port) for port in re.findall(r"127\.0\.0\.1 (\d+) typ host", peer.sdp)}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(20):
                stranger.sendto(hello, ("127.0.0.1", port))
                stranger.sendto(b"", ("127.0.0.1", port))

    async with publishing(AudioStreamTrack(), before_connect=attack) as call:
        await call.until(lambda: call.frames)
        assert call.peer.stats()["refused"] >= 40


async def test_an_offer_that_never_connects_is_closed_by_our_timer() -> None:
    states: list[tuple[str, str]] = []
    peer = await answer(
        (FIXTURES / "obs.sdp").read_text(),
        Ingest(handshake_seconds=0.3),
        Limits(),
        session="s",
        zero=clock.now(),
        tap=lambda frame: None,
        on_state=lambda *state: states.append(state),
    )
    async with asyncio.timeout(5):
        while not states:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert states == [("closed", "handshake")]
    await peer.close()


async def test_silence_of_everything_stalls_life_resumes_and_a_long_silence_closes() -> None:
    async with publishing(AudioStreamTrack(), stall_seconds=0.6, close_seconds=1.5) as call:
        await call.until(lambda: call.frames)
        mend = call.cut()
        await call.until(lambda: "stalled" in dict(call.states))
        mend()
        await call.until(lambda: "resumed" in dict(call.states))
        call.cut()
        await call.until(lambda: call.states[-1] == ("closed", "stalled"))


async def test_a_muted_microphone_is_no_stall() -> None:
    async with publishing(Muted(), stall_seconds=1.9) as call:
        await call.until(lambda: call.states)
        await asyncio.sleep(3.0)
        assert call.states == [("connected", "")]


async def test_a_publisher_that_says_goodbye_has_left() -> None:
    async with publishing(AudioStreamTrack()) as call:
        await call.until(lambda: call.frames)
        await call.sender.close()
        await call.until(lambda: ("closed", "left") in call.states)


async def test_a_tap_that_fails_ends_nothing() -> None:
    def fail(frame: EncodedFrame) -> None:
        raise RuntimeError("no")

    async with publishing(AudioStreamTrack(), tap=fail) as call:
        await call.until(lambda: hasattr(call, "peer") and call.peer.stats()["tap_errors"] > 5)
        assert call.peer.state == "connected"


async def test_an_ice_restart_is_refused_and_candidates_are_taken() -> None:
    async with publishing(AudioStreamTrack()) as call:
        with pytest.raises(Unprocessable):
            await call.peer.add_candidates("a=ice-ufrag:other\r\na=ice-pwd:other\r\n")
        await call.peer.add_candidates(
            "a=mid:0\r\na=candidate:1 1 udp 2122260223 192.0.2.77 61764 typ host\r\n"
        )
        await call.until(lambda: call.frames)
        await call.peer.close()
        with pytest.raises(PreconditionFailed):
            await call.peer.add_candidates("a=mid:0\r\n")


async def test_close_may_be_called_by_several_and_again() -> None:
    async with publishing() as call:
        await call.until(lambda: call.frames and call.states)
        await asyncio.gather(call.peer.close(), call.peer.close())
        await call.peer.close()
        count = len(call.frames)
        await asyncio.sleep(0.1)
        assert len(call.frames) == count
        assert call.states == [("connected", "")]


async def test_a_second_stream_of_a_track_does_not_mix_with_the_first() -> None:
    async with publishing(AudioStreamTrack()) as call:
        await call.until(lambda: call.frames)
        audio = call.peer._inputs["audio"]
        assert not audio._wanted(RtpPacket(payload_type=96, ssrc=1, payload=b"x"))
        assert call.peer.stats()["audio_foreign"] == 1


@pytest.mark.parametrize("name", ["chromium_simulcast", "obs", "gstreamer"])
async def test_real_offers_get_one_codec_a_start_bitrate_and_no_simulcast(name: str) -> None:
    peer = await answer(
        (FIXTURES / f"{name}.sdp").read_text(),
        Ingest(),
        Limits(),
        session="s",
        zero=clock.now(),
        tap=lambda frame: None,
        on_state=lambda *state: None,
    )
    try:
        assert "a=simulcast" not in peer.sdp
        assert "x-google-start-bitrate=1500" in peer.sdp
        assert "127.0.0.1" in peer.sdp
        assert len(re.findall(r"a=rtpmap:\d+ (?!rtx)", peer.sdp)) == 2
        assert {track.codec for track in peer.tracks} == {"opus", "h264" if name == "obs" else "vp8"}
        assert "a=end-of-candidates" in peer.sdp
    finally:
        await peer.close()


@pytest.mark.parametrize("name", ["chromium_simulcast_broken", "obs_broken", "gstreamer_broken"])
async def test_a_broken_offer_is_refused_and_leaves_nothing(name: str) -> None:
    with pytest.raises(InvalidRequest):
        await answer(
            (FIXTURES / f"{name}.sdp").read_text(),
            Ingest(),
            Limits(),
            session="s",
            zero=0.0,
            tap=lambda frame: None,
            on_state=lambda *state: None,
        )
