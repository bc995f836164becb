"""A track receiver accepts one stream per track, tells what is lost, and requests codec keyframes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtcpByePacket, RtpPacket

from streamsvc.core import clock
from streamsvc.core.types import EncodedFrame, Kind, MediaTrack
from streamsvc.ingest import aiortc_hooks
from streamsvc.ingest.nack import BoundedNack
from streamsvc.ingest.rtp_clock import RtpClock
from streamsvc.ingest.track_receiver import AudioReceiver, PeerContext, TrackReceiver, VideoReceiver
from tests.builders.webrtc import Call, Noise, publishing


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
        assert not list(audio.accept(RtpPacket(payload_type=96, ssrc=1, payload=b"x"), 0))
        packets = call.peer.stats()["audio_packets"]
        await call.until(lambda: call.peer.stats()["audio_packets"] > packets + 3)
        assert call.peer.stats()["audio_foreign"] == 1


def renumber(call: Call, kind: str) -> int:
    """Let the publisher go on with another SSRC, without a goodbye."""
    (sender,) = [sender for sender in call.sender.getSenders() if sender.kind == kind]
    sender._ssrc = random.getrandbits(32)
    sender.transport._rtp_router.senders[sender._ssrc] = sender  # so that our requests reach it
    return sender._ssrc


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_a_publisher_that_changes_its_ssrc_twice_goes_on(kind: Kind) -> None:
    async with publishing(AudioStreamTrack() if kind == "audio" else Noise()) as call:
        await call.until(lambda: len(call.frames) > 20)
        for changes in (1, 2):
            ssrc = renumber(call, kind)
            await call.until(lambda: call.peer.stats()[f"{kind}_changes"] == changes)  # noqa: B023
            before = len(call.frames)
            await call.until(lambda: len(call.frames) > before + 20)  # noqa: B023
            assert call.peer._receivers[kind].ssrc == ssrc
        receiver: Any = call.peer._receivers[kind].receiver
        assert set(receiver._RTCRtpReceiver__remote_streams) == {ssrc}, "ended streams are not reported on"
        stats = call.peer.stats()
        assert stats[f"{kind}_foreign"] == 0
        if kind == "audio":
            assert stats["audio_frames"] == stats["audio_packets"]


# --- on a virtual clock: exactly which frames come out of which packets ---

RATES = {"audio": 48_000, "video": 90_000}
PERIODS = {"audio": 0.02, "video": 0.04}
SPEECH = bytes([0xFC, 0xFF, 0xFE])  # an Opus packet of 20 ms
KEY = bytes([0x10, 0x50, 0, 0, 0x9D, 0x01, 0x2A, 16, 0, 16, 0])  # a VP8 descriptor and a keyframe's head
INTER = bytes([0x10, 0x51, 0, 0])


class Sender:
    """Sends packets of one track into a receiver, in real time of the virtual clock."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.frames: list[EncodedFrame] = []
        self.begun = clock.now()
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        receiver = connection.addTransceiver(kind, "recvonly").receiver
        name, channels = ("audio/opus", 2) if kind == "audio" else ("video/VP8", None)
        receiver._RTCRtpReceiver__codecs[96] = RTCRtpCodecParameters(name, RATES[kind], channels, 96)  # type: ignore[attr-defined]
        self.aiortc = receiver
        context = PeerContext(
            "s",
            "main",
            RtpClock(self.begun, {kind: RATES[kind]}),
            3,
            self.frames.append,
            clock.now,
            asyncio.ensure_future,
        )
        self.receiver: TrackReceiver
        if kind == "audio":
            self.receiver = AudioReceiver(context, receiver, MediaTrack("audio", "opus"), 48_000)
        else:
            self.receiver = VideoReceiver(context, receiver, MediaTrack("video", "vp8"), b"")
        self.sequence = self.timestamp = self.ssrc = 1

    async def send(self, count: int, payload: bytes | None = None) -> None:
        """Send frames of one packet each, one a period; video begins with a keyframe, or has one payload."""
        for number in range(count):
            first = KEY if number == 0 else INTER
            data = payload or (SPEECH if self.kind == "audio" else first)
            packet = RtpPacket(96, True, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.ssrc, data)
            await self.aiortc._handle_rtp_packet(packet, arrival_time_ms=0)
            self.receiver.tick(clock.now())
            self.sequence += 1
            self.timestamp += round(PERIODS[self.kind] * RATES[self.kind])
            await asyncio.sleep(PERIODS[self.kind])

    def begin_anew(self, ssrc: int | None = None) -> None:
        """Go on as another sender would: other sequence numbers and RTP times."""
        self.ssrc = ssrc or self.ssrc
        self.sequence += 20_000
        self.timestamp += 1_234_567_890

    def off(self) -> float:
        """The largest difference between the frames' session time and their arrival, in seconds."""
        return max(abs(frame.at - (frame.arrived - self.begun)) for frame in self.frames)

    def told(self) -> list[float]:
        """The losses told, in seconds."""
        return [round(frame.gap, 3) for frame in self.frames if frame.gap]


Scene = Callable[[Sender], Coroutine[Any, Any, None]]


def play(virtual: asyncio.Runner, kind: Kind, scene: Scene) -> Sender:
    """Run a scene; the sender with what came out."""

    async def run() -> Sender:
        sender = Sender(kind)
        await scene(sender)
        return sender

    return virtual.run(run())


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_new_ssrc_in_mid_stream_loses_no_frame(virtual: asyncio.Runner, kind: Kind) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(100)
        for ssrc in (2, 3, 2):
            sender.begin_anew(ssrc)
            await sender.send(100)

    sender = play(virtual, kind, scene)
    assert len(sender.frames) == 400
    assert sender.off() < 0.001
    assert sender.receiver.counts()["changes"] == 3
    assert sender.receiver.counts()["foreign"] == 0
    if kind == "audio":
        assert sender.told() == []
    else:
        assert [frame.keyframe for frame in sender.frames if frame.gap] == [True] * 3


@pytest.mark.parametrize("hole", [0.15, 0.5, 2.5, 20.0])
def test_a_hole_at_a_change_of_ssrc_is_told_with_its_length(virtual: asyncio.Runner, hole: float) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(100)
        await asyncio.sleep(hole)
        sender.begin_anew(2)
        await sender.send(100)

    sender = play(virtual, "audio", scene)
    assert len(sender.frames) == 200
    assert sender.told() == [hole]
    assert sender.off() < 0.001


def test_a_goodbye_lets_the_next_stream_in_at_once(virtual: asyncio.Runner) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(100)
        await sender.aiortc._handle_rtcp_packet(RtcpByePacket([1]))
        sender.begin_anew(2)
        await sender.send(1)
        assert len(sender.frames) == 101

    play(virtual, "audio", scene)


def test_a_new_stream_without_a_keyframe_is_asked_for_one_at_once(virtual: asyncio.Runner) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(100)
        sender.begin_anew(2)
        await sender.send(5, INTER)
        assert sender.receiver.counts()["plis"] == 1
        assert sender.receiver.ssrc == 2, "the request goes to the new stream"

    sender = play(virtual, "video", scene)
    assert len(sender.frames) == 100


@pytest.mark.parametrize("kind", ["audio", "video"])
@pytest.mark.parametrize("jump", [20_000, 3500, 400], ids=["restart", "far", "near"])
def test_a_restart_of_the_sequence_with_the_same_ssrc_loses_no_audio(
    virtual: asyncio.Runner, kind: Kind, jump: int
) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(100)
        sender.sequence += jump
        sender.timestamp += 1_234_567_890
        await sender.send(100)

    sender = play(virtual, kind, scene)
    missing = 200 - len(sender.frames)
    assert missing * PERIODS[kind] <= (0.0 if kind == "audio" else 0.2)
    assert sender.off() < 0.05
    assert sum(sender.told()) <= 0.2, "a jump of numbers is no loss of media"


@pytest.mark.parametrize("kind", ["audio", "video"])
@pytest.mark.parametrize("seconds", [-3600.0, -5.0, -0.2, 0.9, 1.5, 5.0, 3600.0])
def test_a_jump_of_the_time_stamps_moves_no_frame(
    virtual: asyncio.Runner, kind: Kind, seconds: float
) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(100)
        sender.timestamp += round(seconds * RATES[kind])
        await sender.send(100)

    sender = play(virtual, kind, scene)
    assert len(sender.frames) == 200
    assert sender.off() < (0.05 if kind == "audio" or abs(seconds) > 1 else 1.0)
    assert sender.told() == []


def test_a_jump_of_the_sequence_costs_no_more_than_what_is_asked_for(virtual: asyncio.Runner) -> None:
    async def scene(sender: Sender) -> None:
        assert isinstance(sender.aiortc._RTCRtpReceiver__nack_generator, BoundedNack)  # type: ignore[attr-defined]

    play(virtual, "video", scene)


def test_a_late_retransmission_of_an_ended_stream_is_not_taken_for_the_new_one(
    virtual: asyncio.Runner,
) -> None:
    async def scene(sender: Sender) -> None:
        await sender.send(10)
        sender.begin_anew(2)
        await sender.send(10)
        receiver: Any = sender.aiortc
        receiver._RTCRtpReceiver__codecs[97] = RTCRtpCodecParameters(
            "video/rtx", 90_000, None, 97, [], {"apt": 96}
        )
        receiver._RTCRtpReceiver__rtx_ssrc[9] = 1
        old = RtpPacket(97, True, 1, sender.timestamp, 9, (11).to_bytes(2, "big") + KEY)
        await receiver._handle_rtp_packet(old, arrival_time_ms=0)

    sender = play(virtual, "video", scene)
    assert len(sender.frames) == 20
    assert aiortc_hooks.is_retransmission(sender.aiortc, RtpPacket(97))
