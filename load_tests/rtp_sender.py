"""Light WebRTC publishers of pre-encoded RTP, many in one process.

    python -m load_tests.rtp_sender WHIP_URL... [--codec h264] [--seconds 30] [--video FILE] [--audio FILE]

ICE and DTLS are aiortc's; packets are encrypted and sent without its senders: about 25 us each. A sender
answers PLI (from the next keyframe of the twin on, until none has been asked for in TWIN_SECONDS), NACK (RTX
where negotiated) and sends a report a second. Its clock is known: `began` is the wall clock of media second
0.
Prints a line of JSON for each publisher once all are connected, and one at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
    clock,
)
from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from load_tests.rtp_media import RATES, Form, Recording, Stream, Unit, recording
from streamsvc.ingest import aiortc_hooks

TWIN_SECONDS = 2.5  # without a request for a keyframe, after which the next keyframe ends the twin
REPORT_SECONDS = 1.0
HISTORY = 512  # packets of a track kept for retransmission
SLICE, SLICE_SECONDS = 16, 0.004  # packets of a picture sent at once; until the next ones
CONNECT_SECONDS = 15.0
_FIXED = struct.Struct("!BBHIIHH")  # RTP header with an extension (RFC 3550 section 5.1)
_ONE_BYTE = 0xBEDE  # profile of one-byte header extensions (RFC 8285)
_LEVEL = 20  # -dBov, sent as audio level

Exchange = Callable[[str], Awaitable[str]]  # an offer -> its answer


def whip(url: str, token: str | None = None) -> Exchange:
    """The exchange of a WHIP door (RFC 9725). What it returns raises httpx.HTTPStatusError if refused."""

    async def exchange(offer: str) -> str:
        headers = {"Content-Type": "application/sdp"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with httpx.AsyncClient(timeout=CONNECT_SECONDS) as client:
            answer = await client.post(url, content=offer, headers=headers)
        answer.raise_for_status()
        return answer.text

    return exchange


@dataclass(slots=True)
class _Negotiated:
    """Of one track: RTP payload types and the id of its header extension, 0 where there is none."""

    payload_type: int = 0
    rtx_payload_type: int = 0
    extension: int = 0


class Track:
    """Sends one stream after the other, in real time, over and over.

    Attributes:
        counts: packets, bytes, keyframes, plis, nacks (packets asked for again), changes (of the stream).
        latest: seconds by which a unit was sent too late at most.
        paused: nothing is sent while it is set.
    """

    def __init__(self, stream: Stream, twin: Stream | None, sender: RTCRtpSender) -> None:
        self.stream = stream
        self.counts: Counter[str] = Counter()
        self.latest = 0.0
        self.paused = False
        self._main, self._twin = stream, twin
        self._next: Stream | None = None  # from its next keyframe on
        self._asked = float("-inf")  # loop seconds of the last request for a keyframe
        self._sender = sender
        self._negotiated = _Negotiated()
        self._index, self._loops = 0, 0.0
        self._sequence = random.randrange(1 << 15)
        self._rtx_sequence = random.randrange(1 << 15)
        self._origin = random.randrange(1 << 32)
        self._history: deque[bytes] = deque(maxlen=HISTORY)
        self._protect: Callable[[bytes], bytes] = bytes
        self._send: Callable[[bytes], None] = lambda data: None
        self._handles: set[asyncio.TimerHandle] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._dtls: Any = None
        sender.send = self._negotiate  # type: ignore[method-assign]
        sender._handle_rtcp_packet = self._on_rtcp  # type: ignore[method-assign]

    async def _negotiate(self, parameters: Any) -> None:
        """Take the place of RTCRtpSender.send, which would encode and packetise."""
        self._sender.transport._register_rtp_sender(self._sender, parameters)
        first = parameters.codecs[0]
        self._negotiated.payload_type = first.payloadType
        for codec in parameters.codecs:
            if codec.name.lower() == "rtx" and codec.parameters.get("apt") == first.payloadType:
                self._negotiated.rtx_payload_type = codec.payloadType
        for extension in parameters.headerExtensions:
            if extension.uri.endswith(("abs-send-time", "ssrc-audio-level")):
                self._negotiated.extension = extension.id

    def switch(self, stream: Stream) -> None:
        """Send another stream of this codec and clock from its next keyframe on."""
        self._main, self._twin, self._next = stream, None, stream

    def begin(self, at: float) -> None:
        """Send from loop second `at` on."""
        loop = asyncio.get_running_loop()
        dtls = self._dtls = self._sender.transport
        pair = dtls.transport._connection._nominated[1]
        transport, address = pair.protocol.transport, pair.remote_addr
        self._protect = dtls._tx_srtp.protect
        self._send = lambda data: transport.sendto(data, address)
        self._began = at
        self._timer = loop.call_at(at, self._due)
        self._reporter = loop.call_at(at + 0.05, self._report)

    def end(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._reporter.cancel()
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()

    # --- sending ---

    def _due(self) -> None:
        """Send what is due."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while True:
            at = self._began + self._loops + self.stream.units[self._index].at
            if at > now:
                break
            self._change(now)
            unit = self.stream.units[self._index]
            if not self.paused:
                self.latest = max(self.latest, now - at)
                self._send_unit(unit, self._loops + unit.at)
            self._index += 1
            if self._index == len(self.stream.units):
                self._index = 0
                self._loops += self.stream.seconds
        self._timer = loop.call_at(at, self._due)

    def _change(self, now: float) -> None:
        """Change the stream where another is wanted and has a keyframe here."""
        if self._next is None and self.stream is self._twin and now - self._asked > TWIN_SECONDS:
            self._next = self._main
        wanted = self._next
        if wanted is None:
            return
        index = wanted.keyframes.get(round(1000 * self.stream.units[self._index].at))
        if index is not None:
            self.counts["changes"] += wanted is not self.stream
            self.stream, self._index, self._next = wanted, index, None

    def _send_unit(self, unit: Unit, seconds: float) -> None:
        codec = self.stream.codec
        timestamp = (self._origin + round(seconds * RATES[codec])) & 0xFFFFFFFF
        last = len(unit.payloads) - 1
        packets = []
        for number, payload in enumerate(unit.payloads):
            marker = 0x80 if number == last and codec != "opus" else 0
            head = _FIXED.pack(
                0x90,
                marker | self._negotiated.payload_type,
                self._sequence,
                timestamp,
                self._sender._ssrc,
                _ONE_BYTE,
                1,
            )
            packets.append(head + self._extension() + payload)
            self._sequence = (self._sequence + 1) & 0xFFFF
        self.counts["keyframes"] += unit.keyframe and codec != "opus"
        self._timestamp = timestamp
        self._history.extend(packets)
        self._put(packets[:SLICE])
        for number, start in enumerate(range(SLICE, len(packets), SLICE), 1):
            self._later(number * SLICE_SECONDS, packets[start : start + SLICE])

    def _extension(self) -> bytes:
        """Four bytes: the audio level, or the time of sending (abs-send-time); padding without one."""
        number = self._negotiated.extension << 4
        if not number:
            return bytes(4)
        if self.stream.codec == "opus":
            return bytes((number, 0x80 | _LEVEL, 0, 0))
        return (number | 2).to_bytes(1) + ((clock.current_ntp_time() >> 14) & 0xFFFFFF).to_bytes(3)

    def _later(self, seconds: float, packets: list[bytes]) -> None:
        def put() -> None:
            self._handles.discard(handle)
            self._put(packets)

        handle = asyncio.get_running_loop().call_later(seconds, put)
        self._handles.add(handle)

    def _put(self, packets: list[bytes]) -> None:
        for packet in packets:
            self._send(self._protect(packet))
            self.counts["bytes"] += len(packet)
        self.counts["packets"] += len(packets)

    def _report(self) -> None:
        """Send a sender report (RFC 3550 section 6.4.1) that says which second is sent now."""
        loop = asyncio.get_running_loop()
        now, ntp = loop.time(), clock.current_ntp_time()
        rate = RATES[self.stream.codec]
        info = RtcpSenderInfo(
            ntp_timestamp=ntp,
            rtp_timestamp=(self._origin + round((now - self._began) * rate)) & 0xFFFFFFFF,
            packet_count=self.counts["packets"] & 0xFFFFFFFF,
            octet_count=self.counts["bytes"] & 0xFFFFFFFF,
        )
        if not self.paused:
            report = bytes(RtcpSrPacket(ssrc=self._sender._ssrc, sender_info=info))
            self._send(self._dtls._tx_srtp.protect_rtcp(report))
        self._reporter = loop.call_later(REPORT_SECONDS, self._report)

    # --- feedback ---

    async def _on_rtcp(self, packet: Any) -> None:
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self.counts["plis"] += 1
            self._asked = asyncio.get_running_loop().time()
            if self._twin is not None:
                self._next = None if self.stream is self._twin else self._twin
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            for sequence in packet.lost:
                self._again(sequence)

    def _again(self, sequence: int) -> None:
        """Send a packet again: as RTX (RFC 4588) where that was negotiated."""
        self.counts["nacks"] += 1
        behind = (self._sequence - sequence) & 0xFFFF
        if not 0 < behind <= len(self._history):
            return
        packet = self._history[-behind]
        if kind := self._negotiated.rtx_payload_type:
            _, mark, number, timestamp, _, profile, words = _FIXED.unpack_from(packet)
            head = _FIXED.pack(
                0x90,
                mark & 0x80 | kind,
                self._rtx_sequence,
                timestamp,
                self._sender._rtx_ssrc,
                profile,
                words,
            )
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
            size = _FIXED.size
            packet = head + packet[size : size + 4] + number.to_bytes(2) + packet[size + 4 :]
        self._send(self._protect(packet))


class Publisher:
    """One WebRTC publisher of a recording: `connect`, `begin`, then `close` or `vanish`.

    Attributes:
        audio, video: its tracks; None: the recording has none.
        began: wall clock (`time.time()`) of media second 0; the media go on without end, in loops.
    """

    def __init__(self, media: Recording) -> None:
        self.began = 0.0
        self.audio: Track | None = None
        self.video: Track | None = None
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if media.audio is not None:
            self.audio = Track(media.audio, None, self._add("audio", "opus"))
        if media.video is not None:
            self.video = Track(media.video, media.twin, self._add("video", media.video.codec))

    @property
    def tracks(self) -> list[Track]:
        """Those that there are."""
        return [track for track in (self.audio, self.video) if track is not None]

    def _add(self, kind: str, codec: str) -> RTCRtpSender:
        transceiver: RTCRtpTransceiver = self._pc.addTransceiver(kind, "sendonly")
        transceiver.setCodecPreferences(
            [
                known
                for known in RTCRtpSender.getCapabilities(kind).codecs  # type: ignore[union-attr]
                if known.mimeType.lower().split("/")[1] in (codec, "rtx")
            ]
        )
        return transceiver.sender

    async def connect(self, exchange: Exchange) -> None:
        """Connect; nothing is sent yet.

        Args:
            exchange: of the door, such as `whip(url)`; what it raises is passed on.

        Raises:
            TimeoutError: there was no connection in CONNECT_SECONDS.
        """
        await self._pc.setLocalDescription(await self._pc.createOffer())
        answer = await exchange(self._pc.localDescription.sdp)
        connected = asyncio.Event()

        @self._pc.on("connectionstatechange")
        def changed() -> None:
            if self._pc.connectionState == "connected":
                connected.set()

        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(CONNECT_SECONDS):
            await connected.wait()

    def begin(self, after: float = 0.0) -> None:
        """Send in real time, from `after` seconds on."""
        at = asyncio.get_running_loop().time() + after
        self.began = time.time() + after
        for track in self.tracks:
            track.begin(at)

    async def close(self) -> None:
        """Stop, and say goodbye."""
        for track in self.tracks:
            track.end()
        await self._pc.close()

    async def vanish(self) -> None:
        """Stop without a word, as a publisher that has lost its network."""
        for track in self.tracks:
            track.end()
        for connection in aiortc_hooks.ice_connections(self._pc):
            for protocol in connection._protocols:
                protocol.transport.abort()
        await self._pc.close()

    def counts(self) -> dict[str, dict[str, float]]:
        """What each track counts."""
        named = (("audio", self.audio), ("video", self.video))
        return {
            name: {**track.counts, "late": round(track.latest, 4)}
            for name, track in named
            if track is not None
        }


async def _publish(urls: list[str], media: Recording, seconds: float, token: str | None) -> None:
    publishers = [Publisher(media) for _ in urls]
    try:
        for publisher, url in zip(publishers, urls, strict=True):
            await publisher.connect(whip(url, token))
        for number, (publisher, url) in enumerate(zip(publishers, urls, strict=True)):
            publisher.begin(0.033 * number / len(urls))  # so that they do not all send at once
            print(json.dumps({"url": url, "began": publisher.began}), flush=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(sys.stdin.read)  # until its end
    finally:
        for publisher in publishers:
            await publisher.close()
    for publisher, url in zip(publishers, urls, strict=True):
        print(json.dumps({"url": url, "counts": publisher.counts()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("urls", nargs="+", help="WHIP addresses: a publisher each")
    parser.add_argument("--token", help="bearer token")
    parser.add_argument("--codec", choices=("vp8", "h264"), default="vp8")
    parser.add_argument("--kbps", type=int, default=2000, help="of the video (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="to publish (%(default)s)")
    parser.add_argument("--loop", type=float, default=20.0, help="seconds of media (%(default)s)")
    parser.add_argument("--video", type=Path, help="default: generated pictures")
    parser.add_argument("--audio", type=Path, help="default: a tone")
    parser.add_argument("--kept", type=Path, required=True, help="folder of encoded media")
    chosen = parser.parse_args()
    media = recording(
        chosen.kept,
        seconds=chosen.loop,
        video=chosen.video,
        audio=chosen.audio,
        form=Form(chosen.codec, kbps=chosen.kbps),
    )
    asyncio.run(_publish(chosen.urls, media, chosen.seconds, chosen.token))


if __name__ == "__main__":
    main()
