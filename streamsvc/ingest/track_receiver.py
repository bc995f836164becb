"""RTP packets of one WebRTC track -> encoded frames with session time.

The path of a packet: `stream_choice.StreamChoice` (one stream per track) -> audio: `jitter.Jitter`, video:
`depacketizer.Assembler` -> `rtp_clock.RtpClock` -> `deliver(frame)`. Nothing here blocks, and no frame is
queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import RtcpByePacket, RtcpSrPacket

from streamsvc.core import clock
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.ingest import aiortc_hooks
from streamsvc.ingest.depacketizer import Assembler
from streamsvc.ingest.jitter import Frame, Jitter, Packet, byte_seconds, opus_seconds
from streamsvc.ingest.rtp_clock import RtpClock
from streamsvc.ingest.stream_choice import StreamChoice

KEYFRAME_SECONDS = 0.5  # between two requests for a codec keyframe
FLOWING_SECONDS = 1.0  # since the last packet: packets still count as flowing
WATCHDOG_SECONDS = 3.0  # packets flow but no frame comes out: reset
JITTER_SECONDS = 0.06  # of arrival: a shorter hole where a stream begins anew is none
VIDEO_RATE = 90_000  # Hz, of every video codec's RTP clock


@dataclass(frozen=True, slots=True)
class PeerContext:
    """What all tracks of a peer share."""

    session: str
    track: str  # name put into the frames
    rtp_clock: RtpClock
    reorder_packets: int  # of the jitter buffer
    deliver: Callable[[EncodedFrame], None]
    note_activity: Callable[[], float]  # called for each RTP and RTCP packet; returns monotonic seconds
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class TrackReceiver:
    """Base of the receivers of one track.

    Args:
        context: of the peer.
        receiver: aiortc's receiver, which is hooked into.
        track: kind and codec.
        rate: RTP clock rate in Hz.
    """

    def __init__(self, context: PeerContext, receiver: RTCRtpReceiver, track: MediaTrack, rate: int) -> None:
        self.context = context
        self.receiver = receiver
        self.track = track
        self.rate = rate
        self.ssrc: int | None = None  # of the stream that is processed
        self.streams = StreamChoice[tuple[Any, int, float]](self._forget_stream)
        self.packets = 0
        self.frames = 0
        self.resets = 0
        self._arrived = 0.0  # monotonic seconds at which the packet in process arrived
        self._ended: float | None = None  # session seconds at which the last frame ended
        self._last_frame = clock.now()
        self.last_packet = float("-inf")  # monotonic seconds
        aiortc_hooks.reset_nack(receiver)
        aiortc_hooks.replace_jitter_buffer(receiver, self._push)
        aiortc_hooks.intercept_packets(receiver, self.accept, self._on_rtcp)

    def accept(self, packet: Any, arrived_ms: int) -> Iterator[tuple[Any, int]]:
        """The packets to process now, each with its arrival: those of one stream at a time."""
        now = self.context.note_activity()
        if aiortc_hooks.is_retransmission(self.receiver, packet):
            self._arrived = now
            yield packet, arrived_ms
            return
        taken = self.streams.take(packet.ssrc, (packet, arrived_ms, now), now)
        changed = bool(taken) and self.ssrc is not None and self.streams.ssrc != self.ssrc
        self.ssrc = self.streams.ssrc
        if changed:
            aiortc_hooks.reset_nack(self.receiver)
            self._discard()
        for kept, kept_ms, self._arrived in taken:
            self.packets += 1
            self.last_packet = now
            yield kept, kept_ms
        if changed:
            self._note_change()

    def tick(self, now: float) -> None:
        """Run the timers of the track: called every `peer.TICK`."""
        if now - self.last_packet < FLOWING_SECONDS and now - self._last_frame > WATCHDOG_SECONDS:
            self.resets += 1
            self._last_frame = now
            self._reset()

    def counts(self) -> dict[str, float]:
        """Counters for `Peer.stats`."""
        return {
            "packets": self.packets,
            "frames": self.frames,
            "foreign": self.streams.dropped,
            "changes": self.streams.changes,
            "resets": self.resets,
        }

    def _push(self, packet: Any) -> bool:
        """Process a packet in place of aiortc's jitter buffer; return whether to send a PLI."""
        raise NotImplementedError

    def _discard(self) -> None:
        """Discard all state of the stream."""
        raise NotImplementedError

    def _reset(self) -> None:
        """Begin the stream anew."""
        self._discard()

    def _note_change(self) -> None:
        """Another stream has replaced the last one, and what was kept of it is processed."""

    def _forget_stream(self, ssrc: int) -> None:
        aiortc_hooks.forget_stream(self.receiver, ssrc)

    def _on_rtcp(self, packet: Any) -> None:
        self.context.note_activity()
        if isinstance(packet, RtcpByePacket):
            for ssrc in packet.sources:
                self.streams.goodbye(ssrc)
        if isinstance(packet, RtcpSrPacket) and packet.ssrc == self.ssrc:
            ntp = packet.sender_info.ntp_timestamp / (1 << 32)
            self.context.rtp_clock.report(self.track.kind, ntp, packet.sender_info.rtp_timestamp)

    def _emit(self, frame: Frame, keyframe: bool, seconds: float = 0.0) -> None:
        """Deliver a frame of `seconds` (0: not known); a loss is no longer than the hole in time."""
        context, kind, arrived, payload = self.context, self.track.kind, frame.arrived, frame.payload
        at = context.rtp_clock.at(kind, frame.timestamp, arrived)
        hole = 0.0 if self._ended is None else max(0.0, at - self._ended)
        told = frame.lost
        if frame.anew:  # all that is missing is lost
            told = hole if kind == "video" or hole > JITTER_SECONDS else 0.0
        lost = min(told, hole)
        self.frames += 1
        self._ended = at + seconds
        self._last_frame = clock.now()
        context.deliver(
            EncodedFrame(
                context.session, context.track, at, arrived, kind, payload, self.track.codec, keyframe, lost
            )
        )


class AudioReceiver(TrackReceiver):
    """Receives an audio track through the jitter buffer."""

    def __init__(self, context: PeerContext, receiver: RTCRtpReceiver, track: MediaTrack, rate: int) -> None:
        super().__init__(context, receiver, track, rate)
        seconds = opus_seconds if track.codec == "opus" else byte_seconds
        self.jitter = Jitter(rate, context.reorder_packets, seconds=seconds)

    def tick(self, now: float) -> None:
        """Deliver what has waited long enough behind a hole."""
        self._deliver(self.jitter.poll(now))
        super().tick(now)

    def counts(self) -> dict[str, float]:
        """Counters for `Peer.stats`."""
        counts = self.jitter.counts
        return super().counts() | {
            "lost": counts.lost,
            "late": counts.late,
            "duplicate": counts.duplicate,
            "empty": counts.empty,
            "restarts": counts.restarts,
        }

    def _push(self, packet: Any) -> bool:
        self._deliver(
            self.jitter.push(Packet(packet.sequence_number, packet.timestamp, packet._data, self._arrived))
        )
        return False

    def _deliver(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._emit(frame, True, self.jitter.seconds(frame.payload))

    def _discard(self) -> None:
        self.jitter.reset()


class VideoReceiver(TrackReceiver):
    """Receives a video track through the access unit assembler."""

    def __init__(
        self, context: PeerContext, receiver: RTCRtpReceiver, track: MediaTrack, parameter_sets: bytes
    ) -> None:
        super().__init__(context, receiver, track, VIDEO_RATE)
        self.assembler = Assembler(track.codec, parameter_sets)
        self.empty = 0  # packets of padding only
        self.keyframes = 0
        self.plis = 0  # keyframe requests sent
        self._last_pli = float("-inf")

    def request_keyframe(self) -> None:
        """Send a PLI, at most one in KEYFRAME_SECONDS."""
        now = clock.now()
        if self.ssrc is None or now - self._last_pli < KEYFRAME_SECONDS:
            return
        self._last_pli = now
        self.plis += 1
        self.context.spawn(self.receiver._send_rtcp_pli(self.ssrc))

    def counts(self) -> dict[str, float]:
        """Counters for `Peer.stats`."""
        return super().counts() | {
            "empty": self.empty,
            "keyframes": self.keyframes,
            "held": self.assembler.withheld,
            "holes": self.assembler.holes,
            "plis": self.plis,
        }

    def _push(self, packet: Any) -> bool:
        if packet.ssrc != self.ssrc:  # a retransmission of a stream that is over
            return False
        now = self._arrived
        if not packet._data:
            self.empty += 1
        pictures, send_pli = self.assembler.push(packet, now)
        for picture in pictures:
            self.keyframes += picture.keyframe
            frame = Frame(picture.timestamp, picture.payload, now, 0.0, anew=picture.after_loss)
            self._emit(frame, picture.keyframe)
        if send_pli:
            self.plis += 1
            self._last_pli = now
        return send_pli

    def _discard(self) -> None:
        self.assembler.reset()

    def _reset(self) -> None:
        self._discard()
        self.request_keyframe()

    def _note_change(self) -> None:
        if not self.assembler.decodable:  # the new stream did not begin with a keyframe
            self.request_keyframe()
