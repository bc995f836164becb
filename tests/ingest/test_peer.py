"""A publisher's frames reach the tap; its states are reported; strangers and broken offers are refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiortc.mediastreams import AudioStreamTrack
from playwright.async_api import async_playwright

from load_tests.rtp_media import Form, Recording, recording
from load_tests.rtp_sender import Publisher
from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.errors import CapacityError, InvalidRequest, PreconditionFailed, Unprocessable
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest.peer import FrameSink, Peer, answer
from streamsvc.ingest.sdp import read_offer
from tests.builders.browser import CHROMIUM, FLAGS
from tests.builders.webrtc import Call, Muted, publishing

FIXTURES = Path(__file__).parents[1] / "fixtures"


async def test_audio_and_video_reach_the_tap_encoded() -> None:
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


async def test_datagrams_of_strangers_do_not_break_the_handshake() -> None:
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


async def test_a_peer_that_never_connects_is_closed_after_the_handshake_limit() -> None:
    states: list[tuple[str, str]] = []
    peer = await answer(
        (FIXTURES / "obs.sdp").read_text(),
        Ingest(handshake_seconds=0.3),
        Limits(),
        FrameSink("s", clock.now(), lambda frame: None, lambda *state: states.append(state)),
    )
    async with asyncio.timeout(5):
        while not states:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert states == [("closed", "handshake")]
    await peer.close()


async def test_the_handshake_limit_counts_from_the_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    answering: list[float] = []
    whole = Peer._open_receivers

    def noted(peer: Peer) -> None:
        answering.append(clock.now())
        whole(peer)

    monkeypatch.setattr(Peer, "_open_receivers", noted)
    sink = FrameSink("s", clock.now(), lambda frame: None, lambda *state: None)
    peer = await answer((FIXTURES / "obs.sdp").read_text(), Ingest(), Limits(), sink)
    assert peer._created <= answering[0]
    await peer.close()


async def test_silence_stalls_the_peer_activity_resumes_it_and_long_silence_closes_it() -> None:
    async with publishing(AudioStreamTrack(), stall_seconds=0.6, close_seconds=1.5) as call:
        await call.until(lambda: call.frames)
        restore = call.cut()
        await call.until(lambda: "stalled" in dict(call.states))
        restore()
        await call.until(lambda: "resumed" in dict(call.states))
        call.cut()
        await call.until(lambda: call.states[-1] == ("closed", "stalled"))


async def test_a_muted_microphone_is_not_a_stall() -> None:
    async with publishing(Muted(), stall_seconds=1.9) as call:
        await call.until(lambda: call.states)
        await asyncio.sleep(3.0)
        assert call.states == [("connected", "")]


async def test_a_publisher_that_says_goodbye_has_left() -> None:
    async with publishing(AudioStreamTrack()) as call:
        await call.until(lambda: call.frames)
        await call.sender.close()
        await call.until(lambda: ("closed", "left") in call.states)


async def test_a_failing_tap_does_not_end_the_call() -> None:
    def fail(frame: EncodedFrame) -> None:
        raise RuntimeError("no")

    async with publishing(AudioStreamTrack(), tap=fail) as call:
        await call.until(lambda: hasattr(call, "peer") and call.peer.stats()["tap_errors"] > 5)
        assert call.peer.state == "connected"


async def test_a_packet_that_aiortc_cannot_read_does_not_end_the_call() -> None:
    async with publishing() as call:
        await call.until(lambda: call.of("video"))
        transport: Any = call.sender.getTransceivers()[1].sender.transport
        for kind in range(1, 15):  # header extensions of one byte: too short for most kinds
            extension = b"\xbe\xde\x00\x01" + bytes((kind << 4, 9, 0, 0))
            await transport._send_rtp(
                b"\x90\x60\x00" + bytes((kind,)) + bytes(7) + b"\x01" + extension + b"a"
            )
        await call.until(lambda: call.peer.stats()["refused"])
        count = len(call.of("video"))
        await call.until(lambda: len(call.of("video")) > count + 5)
        assert call.peer.state == "connected"


async def test_an_ice_restart_is_refused_and_candidates_are_added() -> None:
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


async def test_candidates_are_counted_over_all_fragments() -> None:
    lines = [f"a=candidate:{n} 1 udp 1 192.0.2.{n} 61764 typ host\r\n" for n in range(1, 5)]
    offer = read_offer((FIXTURES / "obs.sdp").read_text(), Limits())
    limits = Limits(sdp_candidates=offer.candidates + 3)
    peer = Peer(offer, Ingest(), limits, FrameSink("s", 0.0, lambda frame: None, lambda *state: None))
    try:
        for line in lines[:3]:
            await peer.add_candidates(f"a=mid:0\r\n{line}")
        with pytest.raises(InvalidRequest, match=f"more than {limits.sdp_candidates} candidates"):
            await peer.add_candidates(f"a=mid:0\r\n{lines[3]}")
    finally:
        await peer.close()


async def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Peer] = []
    close = Peer.close

    async def forever(peer: Peer, *_: object) -> None:
        await asyncio.Event().wait()

    async def closing(peer: Peer) -> None:
        closed.append(peer)
        await close(peer)

    monkeypatch.setattr(Peer, "_negotiate", forever)
    monkeypatch.setattr(Peer, "close", closing)
    sink = FrameSink("s", 0.0, lambda frame: None, lambda *state: None)
    offer = (FIXTURES / "obs.sdp").read_text()
    with pytest.raises(CapacityError, match="in time"):
        async with asyncio.timeout(20):
            await answer(offer, Ingest(), Limits(sdp_seconds=0.1), sink)
    assert len(closed) == 1


async def test_close_is_idempotent_and_may_run_concurrently() -> None:
    async with publishing() as call:
        await call.until(lambda: call.frames and call.states)
        await asyncio.gather(call.peer.close(), call.peer.close())
        await call.peer.close()
        count = len(call.frames)
        await asyncio.sleep(0.1)
        assert len(call.frames) == count
        assert call.states == [("connected", "")]


@pytest.mark.parametrize("name", ["chromium_simulcast", "obs", "gstreamer"])
async def test_real_offers_get_one_codec_a_start_bitrate_and_no_simulcast(name: str) -> None:
    peer = await answer(
        (FIXTURES / f"{name}.sdp").read_text(),
        Ingest(),
        Limits(),
        FrameSink("s", clock.now(), lambda frame: None, lambda *state: None),
    )
    try:
        assert "a=simulcast" not in peer.sdp
        # Without it the sender turns the pictures itself (3GPP TS 26.114, 7.4.5): nothing here reads it.
        assert "video-orientation" not in peer.sdp
        assert "x-google-start-bitrate=1500" in peer.sdp
        assert "127.0.0.1" in peer.sdp
        assert len(re.findall(r"a=rtpmap:\d+ (?!rtx)", peer.sdp)) == 2
        assert {track.codec for track in peer.tracks} == {"opus", "h264" if name == "obs" else "vp8"}
        assert "a=end-of-candidates" in peer.sdp
    finally:
        await peer.close()


async def answered(text: str) -> str:
    """The answer to an offer."""
    sink = FrameSink("s", clock.now(), lambda frame: None, lambda *state: None)
    peer = await answer(text, Ingest(), Limits(), sink)
    await peer.close()
    return peer.sdp


FIELD = sorted([*(FIXTURES / "field_sdp").glob("*.sdp"), *(FIXTURES / "offers").glob("*.sdp")])


@pytest.mark.parametrize("path", FIELD, ids=[path.stem for path in FIELD])
async def test_the_answer_repeats_what_was_offered(path: Path) -> None:
    text = path.read_text()  # noqa: ASYNC240
    sdp = await answered(text)
    offered, given = text.split("m=")[1:], sdp.split("m=")[1:]
    assert [part.split()[0] for part in given] == [part.split()[0] for part in offered], "each in its place"
    for offer, part in zip(offered, given, strict=True):
        types = part.splitlines()[0].split()[3:]
        assert set(types) <= set(offer.splitlines()[0].split()[3:]), "payload types are the offer's"
        for name in ("profile-level-id", "packetization-mode"):
            found = re.findall(rf"a=fmtp:{types[0]} .*?{name}=(\w+)", part)
            assert found == re.findall(rf"a=fmtp:{types[0]} .*?{name}=(\w+)", offer)
    passive = "a=setup:passive" in text
    assert set(re.findall(r"a=setup:(\w+)", sdp)) == {"active" if passive else "passive"}


OFFER = """async (dataFirst) => {
  window.pc = new RTCPeerConnection()
  const offerData = () => pc.createDataChannel("notes")
  if (dataFirst) offerData()
  const sound = new AudioContext()
  const tone = sound.createOscillator(), out = sound.createMediaStreamDestination()
  tone.connect(out)
  tone.start()
  await sound.resume()
  pc.addTransceiver("video", {direction: "recvonly"})
  pc.addTrack(out.stream.getTracks()[0], out.stream)
  if (!dataFirst) offerData()
  await pc.setLocalDescription()
  await new Promise((done) => {
    pc.onicegatheringstatechange = () => pc.iceGatheringState == "complete" && done()
  })
  return pc.localDescription.sdp
}"""


@pytest.mark.browser
@pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
)
@pytest.mark.parametrize("data_first", [False, True])
async def test_chromium_connects_though_its_data_channel_is_refused(data_first: bool) -> None:
    frames: list[EncodedFrame] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = await browser.new_page()
        offer = await page.evaluate(OFFER, data_first)
        assert "m=application" in offer
        sink = FrameSink("s", clock.now(), frames.append, lambda *state: None)
        peer = await answer(offer, Ingest(), Limits(), sink)
        try:
            assert "m=application 0 UDP/DTLS/SCTP webrtc-datachannel" in peer.sdp
            await page.evaluate("(sdp) => pc.setRemoteDescription({type: 'answer', sdp})", peer.sdp)
            async with asyncio.timeout(30):
                while len(frames) < 20:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            await peer.close()
            await browser.close()


@pytest.mark.parametrize("name", ["chromium_simulcast_broken", "obs_broken", "gstreamer_broken"])
async def test_a_broken_offer_is_refused_and_leaves_nothing_open(name: str) -> None:
    with pytest.raises(InvalidRequest):
        await answer(
            (FIXTURES / f"{name}.sdp").read_text(),
            Ingest(),
            Limits(),
            FrameSink("s", 0.0, lambda frame: None, lambda *state: None),
        )


# --- pre-encoded publishers (load_tests/rtp_sender.py) ---


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Two seconds of small pictures and a tone; the twin has a keyframe a second."""
    return recording(tmp_path_factory.mktemp("media"), seconds=2.0, form=Form("vp8", 160, 96, 10, 100))


@contextlib.asynccontextmanager
async def sending(media: Recording, zero: float) -> AsyncIterator[tuple[Call, Publisher]]:
    """A pre-encoded publisher that sends to a peer of a session that began at `zero`."""
    call, publisher = Call(), Publisher(media)

    async def exchange(offer: str) -> str:
        sink = FrameSink("s", zero, call.frames.append, lambda state, why: call.states.append((state, why)))
        call.peer = await answer(offer, Ingest(stall_seconds=1.0, close_seconds=20.0), Limits(), sink)
        return call.peer.sdp

    try:
        await publisher.connect(exchange)
        publisher.begin()
        yield call, publisher
    finally:
        await publisher.close()
        await call.peer.close()
        await call.sender.close()


def told(call: Call) -> list[str]:
    return [state for state, _ in call.states]


async def test_video_that_freezes_is_told_while_sound_goes_on_and_told_again_when_it_returns(
    talk: Recording,
) -> None:
    async with sending(talk, clock.now()) as (call, publisher):
        assert publisher.video is not None
        await call.until(lambda: call.of("video"))
        publisher.video.paused = True
        await call.until(lambda: "frozen" in told(call))
        assert call.peer.stats()["frozen"] == 1
        assert publisher.video.counts["plis"] == 2, "it was asked before that is told"
        heard = len(call.of("audio"))
        await call.until(lambda: len(call.of("audio")) > heard + 10)
        publisher.video.paused = False
        await call.until(lambda: "thawed" in told(call))
        assert "stalled" not in told(call)


async def test_a_publisher_that_vanishes_and_returns_from_elsewhere_goes_on_in_the_same_time(
    talk: Recording,
) -> None:
    zero = clock.now()
    async with sending(talk, zero) as (first, vanishing):
        await first.until(lambda: len(first.of("audio")) > 20 and first.of("video"))
        await vanishing.vanish()
        gone = clock.now() - zero
        await first.until(lambda: "stalled" in told(first))
        assert "closed" not in told(first), "its place is kept"
        async with sending(talk, zero) as (second, _):
            await second.until(lambda: len(second.of("audio")) > 20 and second.of("video"))
            came = second.of("audio")[0]
            assert came.at == pytest.approx(came.arrived - zero, abs=0.5)
            assert came.at > gone > first.of("audio")[-1].at - 0.5
            assert second.of("video")[0].keyframe
