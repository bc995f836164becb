"""One track of a light WebRTC publisher: pre-encoded units as RTP in real time, with reports and feedback.

Hooks into aiortc's sender, of which only the negotiation and the routing of RTCP are used: a packet costs its
header, its encryption and a system call.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiortc import RTCRtpSender, clock
from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from load_tests.rtp_media import RATES, Stream, Unit

TWIN_SECONDS = 2.5  # without a request for a keyframe, after which the next keyframe ends the twin
REPORT_SECONDS = 1.0
HISTORY = 512  # packets of a track kept for retransmission
SLICE, SLICE_SECONDS = 16, 0.004  # packets of a picture sent at once; until the next ones
_FIXED = struct.Struct("!BBHIIHH")  # RTP header with an extension (RFC 3550 section 5.1)
_ONE_BYTE = 0xBEDE  # profile of one-byte header extensions (RFC 8285)
_LEVEL = 20  # -dBov, sent as audio level


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
