"""One WebRTC publisher: an aiortc peer whose encoded frames are tapped before any decoder.

The path of a packet: socket -> source guard -> aiortc's ICE, DTLS, SRTP, RTP -> our filter (one stream per track) ->
audio: jitter.Jitter, video: video.Assembler -> sync.Sync (session time) -> `tap(frame)`. Nothing here waits for a model or
queues a frame; the tap must return at once. One task watches the timers.

States told to `on_state(state, reason)`: "connected"; "stalled" and "resumed" (neither media nor RTCP nor consent for
`stall_seconds`); and once "closed", if the peer ended by itself, with the reason "handshake" (never connected), "failed",
"left" (the publisher said goodbye) or "stalled".
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.rtp import RtcpSrPacket

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.errors import InvalidRequest, PreconditionFailed, Unprocessable
from streamsvc.core.types import EncodedFrame, Kind, MediaTrack
from streamsvc.ingest import aiortc_hooks
from streamsvc.ingest.depacketizer import Assembler
from streamsvc.ingest.jitter import Frame, Jitter, Packet, byte_seconds, opus_seconds
from streamsvc.ingest.rtp_clock import Sync
from streamsvc.ingest.sdp import DECODERS, Offer, read_fragment, read_offer

log = structlog.get_logger(__name__)

TICK = 0.1  # seconds between two looks at the timers
PROBE_SECONDS = 0.8  # of silence, then a consent request is sent each second
WATCHDOG_SECONDS = 3.0  # packets come, and no frame
CLOSE_SECONDS = 3.0  # for aiortc's own close
SOURCE_SECONDS = 2.0  # of silence of a track's SSRC, before another one may take its place
KEYFRAME_SECONDS = 0.5  # between two requests for a keyframe

Tap = Callable[[EncodedFrame], None]
OnState = Callable[[str, str], None]


async def answer(
    offer: str,
    settings: Ingest,
    limits: Limits,
    *,
    session: str,
    zero: float,
    tap: Tap,
    on_state: OnState,
    track: str = "main",
) -> Peer:
    """Answer an offer; the peer then connects and feeds the tap by itself.

    Args:
        offer: SDP, untrusted.
        settings: timers and ICE servers.
        limits: security limits on the SDP.
        session: id of the session.
        zero: `clock.now()` of session time 0.
        tap: takes each frame; must not block. What it raises is counted, and ends nothing.
        on_state: told the states above.
        track: name put into the frames.

    Raises:
        InvalidRequest, Unprocessable, TooLarge: see `sdp.read_offer`.
    """
    checked = read_offer(offer, limits)
    peer = Peer(
        checked, settings, limits, session=session, zero=zero, tap=tap, on_state=on_state, track=track
    )
    try:
        async with asyncio.timeout(limits.sdp_seconds):
            await peer._negotiate()
    except (InvalidRequest, Unprocessable):
        await peer.close()
        raise
    except TimeoutError:
        await peer.close()
        raise InvalidRequest("the SDP could not be answered in time", code="malformed_sdp") from None
    except Exception as error:  # aiortc's own checks of a description raise many kinds; the offer is at fault
        await peer.close()
        raise InvalidRequest(
            f"the SDP cannot be answered ({type(error).__name__})", code="malformed_sdp"
        ) from None
    except BaseException:
        await peer.close()
        raise
    return peer


class Peer:
    """A publisher. Made by `answer`.

    Attributes:
        sdp: the answer, complete with candidates.
        etag: names the ICE session, quoted as HTTP wants it.
        tracks: what will come.
    """

    def __init__(
        self,
        offer: Offer,
        settings: Ingest,
        limits: Limits,
        *,
        session: str,
        zero: float,
        tap: Tap,
        on_state: OnState,
        track: str,
    ) -> None:
        self.sdp = ""
        self.etag = f'"{secrets.token_hex(8)}"'
        self.tracks: tuple[MediaTrack, ...] = ()
        self.state = "new"
        self._offer = offer
        self._settings, self._limits = settings, limits
        self._session, self._track = session, track
        self._zero, self._tap, self._on_state = zero, tap, on_state
        self._inputs: dict[Kind, _Input] = {}
        self._sync = Sync(zero, {})
        self._refused = self._tap_errors = 0
        self._candidates = offer.candidates
        self._born = self._heard = clock.now()
        self._connections: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[Any] | None = None
        self._probed = 0.0
        servers = [RTCIceServer(urls=url) for url in settings.ice_servers]
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))

    async def _negotiate(self) -> None:
        peer = self._pc
        await peer.setRemoteDescription(RTCSessionDescription(self._offer.text, "offer"))
        tracks = []
        rates: dict[str, int] = {}
        for transceiver in peer.getTransceivers():
            kind: Kind = "audio" if transceiver.kind == "audio" else "video"
            codec = _choose_codec(transceiver, self._settings.start_kbps)
            if kind not in self._offer.kinds:
                continue
            name = DECODERS[codec.name.lower()]
            tracks.append(MediaTrack(kind, name))
            rates[kind] = codec.clockRate
            self._inputs[kind] = (_Audio if kind == "audio" else _Video)(
                self, transceiver.receiver, name, codec.clockRate
            )
            aiortc_hooks.start_without_thread(transceiver.receiver)
        self._sync = Sync(self._zero, rates)
        self.tracks = tuple(tracks)
        self._connections = aiortc_hooks.connections(peer)
        for connection in self._connections:
            if self._settings.loopback:
                aiortc_hooks.offer_loopback(connection)
        await peer.setLocalDescription(await peer.createAnswer())
        for connection in self._connections:
            aiortc_hooks.guard_sources(connection, self._refuse)
        self.sdp = peer.localDescription.sdp
        self._born = self._heard = clock.now()
        self._spawn(self._watch())

    # --- what the doors may do -------------------------------------------------------------------------------------

    async def add_candidates(self, fragment: str) -> None:
        """Add trickled candidates (RFC 8840).

        Raises:
            InvalidRequest: the fragment is malformed, or there are too many candidates by now.
            Unprocessable: it restarts ICE ("ice_restart"), which aiortc cannot; the session goes on.
            PreconditionFailed: the peer is closed.
        """
        found = read_fragment(fragment, self._limits)
        restarts = (found.ufrag not in (None, self._offer.ufrag)) or (
            found.password not in (None, self._offer.password)
        )
        if restarts:
            raise Unprocessable(
                "ICE restart is not supported; the session goes on as it is", code="ice_restart"
            )
        if self._closing is not None:
            raise PreconditionFailed("the publisher's connection is closed")
        self._candidates += len(found.candidates)
        if self._candidates > self._limits.sdp_candidates:
            raise InvalidRequest(f"more than {self._limits.sdp_candidates} candidates", code="malformed_sdp")
        for candidate in found.candidates:
            # All media are bundled, so that every candidate is one of the only transport, whatever its mid.
            for transport in {
                transceiver.receiver.transport.transport for transceiver in self._pc.getTransceivers()
            }:
                await transport.addRemoteCandidate(candidate)

    def request_keyframe(self) -> None:
        """Ask the publisher for a keyframe (PLI); at most one request in KEYFRAME_SECONDS is sent. Never fails."""
        video = self._inputs.get("video")
        if isinstance(video, _Video) and self._closing is None:
            video.ask_keyframe()

    def stats(self) -> dict[str, float]:
        """Counters since the start; `audio_*` and `video_*` count packets unless they say otherwise.

        refused: datagrams of strangers. tap_errors: exceptions of the tap. shared_clock: 1 once both tracks lie on one clock.
        """
        numbers: dict[str, float] = {
            "refused": self._refused,
            "tap_errors": self._tap_errors,
            "shared_clock": float(self._sync.shared),
        }
        for kind, source in self._inputs.items():
            numbers |= {f"{kind}_{name}": value for name, value in source.counts().items()}
        return numbers

    async def close(self) -> None:
        """End the connection and free everything. Never raises; may be called again, and by several."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._shut())
        await asyncio.shield(self._closing)

    async def _shut(self) -> None:
        self.state = "closed"
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pc.close()
        except Exception as error:
            log.warning("peer.close_failed", session=self._session, error=type(error).__name__)
        await aiortc_hooks.close_rest([*self._connections, *aiortc_hooks.connections(self._pc)])
        self._tap = lambda frame: None

    # --- what happens by itself ------------------------------------------------------------------------------------

    def _emit(
        self,
        kind: Kind,
        codec: str,
        payload: bytes,
        timestamp: int,
        arrived: float,
        keyframe: bool,
        lost: float | None,
    ) -> None:
        """Hand a frame to the tap. `lost`: seconds lost before it; None: as much as its time lies behind the last one."""
        before = self._inputs[kind].last_at
        at = self._sync.at(kind, timestamp, arrived)
        if lost is None:
            lost = 0.0 if before is None else max(0.0, at - before)
        self._inputs[kind].last_at = at
        self._inputs[kind].last_frame = arrived
        frame = EncodedFrame(self._session, self._track, at, arrived, kind, payload, codec, keyframe, lost)
        try:
            self._tap(frame)
        except Exception as error:  # would end aiortc's receiving task, and with it the call
            self._tap_errors += 1
            if self._tap_errors == 1:
                log.error("peer.tap_failed", session=self._session, error=type(error).__name__)

    def _heard_now(self) -> float:
        self._heard = clock.now()
        return self._heard

    def _refuse(self) -> None:
        self._refused += 1

    def _tell(self, state: str, reason: str = "") -> None:
        self.state = state
        try:
            self._on_state(state, reason)
        except Exception as error:
            log.error("peer.on_state_failed", session=self._session, error=type(error).__name__)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _end(self, reason: str) -> None:
        """The peer ends by itself."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._shut())
            self._tell("closed", reason)

    async def _watch(self) -> None:
        """All timers of the peer."""
        while self._closing is None:
            await clock.sleep(TICK)
            now = clock.now()
            connection = self._pc.connectionState
            if connection in ("failed", "closed"):
                if connection == "failed":  # "dtls" tells of a certificate or a cipher, "ice" of the network
                    dtls = sorted(
                        {transceiver.receiver.transport.state for transceiver in self._pc.getTransceivers()}
                    )
                    log.warning(
                        "peer.failed", session=self._session, ice=self._pc.iceConnectionState, dtls=dtls
                    )
                self._end("left" if connection == "closed" else "failed")
            elif self.state == "new":
                if connection == "connected":
                    self._heard = now
                    self._tell("connected")
                elif now - self._born > self._settings.handshake_seconds:
                    self._end("handshake")
            else:
                self._look_for_life(now)
                for source in self._inputs.values():
                    source.look(now)

    def _look_for_life(self, now: float) -> None:
        silence = now - self._heard
        if (
            silence > PROBE_SECONDS
            and now - self._probed > 1.0
            and (self._probe is None or self._probe.done())
        ):
            self._probed = now
            self._probe = self._spawn(self._ask_consent())
        if silence > self._settings.close_seconds:
            self._end("stalled")
        elif silence > self._settings.stall_seconds and self.state != "stalled":
            self._tell("stalled", "neither media nor RTCP nor consent")
        elif silence <= self._settings.stall_seconds and self.state == "stalled":
            self._tell("resumed")

    async def _ask_consent(self) -> None:
        for connection in self._connections:
            if await aiortc_hooks.ask_consent(connection):
                self._heard_now()


class _Input:
    """What one track's packets go through."""

    def __init__(self, peer: Peer, receiver: Any, codec: str, rate: int, kind: Kind) -> None:
        self.peer, self.receiver, self.codec, self.rate, self.kind = peer, receiver, codec, rate, kind
        self.last_at: float | None = None
        self.last_frame = clock.now()
        self.last_packet = float("-inf")
        self.frames = self.packets = self.foreign = self.resets = 0
        self.ssrc: int | None = None
        aiortc_hooks.replace_buffer(receiver, self._add)
        aiortc_hooks.watch_packets(receiver, self._wanted, self._reported)

    def _wanted(self, packet: Any) -> bool:
        """One stream per track: a second SSRC (a simulcast layer) must not corrupt the first; when that is silent, it takes over."""
        now = self.peer._heard_now()
        if aiortc_hooks.is_retransmission(self.receiver, packet):
            return True
        if packet.ssrc != self.ssrc:
            if self.ssrc is not None and now - self.last_packet < SOURCE_SECONDS:
                self.foreign += 1
                return False
            if self.ssrc is not None:
                aiortc_hooks.forget_missing(self.receiver)
                self._reset()
            self.ssrc = packet.ssrc
        self.packets += 1
        self.last_packet = now
        return True

    def _reported(self, packet: Any) -> None:
        self.peer._heard_now()
        if isinstance(packet, RtcpSrPacket) and packet.ssrc == self.ssrc:
            ntp = packet.sender_info.ntp_timestamp / (1 << 32)
            self.peer._sync.report(self.kind, ntp, packet.sender_info.rtp_timestamp)

    def _add(self, packet: Any) -> bool:
        """Take a packet in place of aiortc's jitter buffer; whether to send a PLI."""
        raise NotImplementedError

    def _reset(self) -> None:
        raise NotImplementedError

    def look(self, now: float) -> None:
        """Called at each tick."""
        if now - self.last_packet < TICK * 10 and now - self.last_frame > WATCHDOG_SECONDS:
            self.resets += 1
            self.last_frame = now
            self._reset()

    def counts(self) -> dict[str, float]:
        """Counters for `Peer.stats`."""
        return {
            "packets": self.packets,
            "frames": self.frames,
            "foreign": self.foreign,
            "resets": self.resets,
        }


class _Audio(_Input):
    def __init__(self, peer: Peer, receiver: Any, codec: str, rate: int) -> None:
        super().__init__(peer, receiver, codec, rate, "audio")
        self.jitter = Jitter(
            rate, peer._settings.reorder_packets, seconds=opus_seconds if codec == "opus" else byte_seconds
        )

    def _add(self, packet: Any) -> bool:
        self._deliver(
            self.jitter.push(Packet(packet.sequence_number, packet.timestamp, packet._data, clock.now()))
        )
        return False

    def _deliver(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.frames += 1
            self.peer._emit(
                "audio", self.codec, frame.payload, frame.timestamp, frame.arrived, True, frame.lost
            )

    def _reset(self) -> None:
        self.jitter.reset()

    def look(self, now: float) -> None:
        self._deliver(self.jitter.poll(now))
        super().look(now)

    def counts(self) -> dict[str, float]:
        counts = self.jitter.counts
        more = {name: getattr(counts, name) for name in ("lost", "late", "duplicate", "empty", "restarts")}
        return super().counts() | more


class _Video(_Input):
    def __init__(self, peer: Peer, receiver: Any, codec: str, rate: int) -> None:
        super().__init__(peer, receiver, codec, rate, "video")
        self.assembler = Assembler(codec)
        self.empty = self.keyframes = self.asked = 0
        self._asked_at = float("-inf")

    def _add(self, packet: Any) -> bool:
        now = clock.now()
        if not packet._data:
            self.empty += 1
        pictures, ask = self.assembler.push(packet, now)
        for picture in pictures:
            self.frames += 1
            self.keyframes += picture.keyframe
            lost = None if picture.after_loss else 0.0
            self.peer._emit(
                "video", self.codec, picture.payload, picture.timestamp, now, picture.keyframe, lost
            )
        if ask:
            self.asked += 1
            self._asked_at = now
        return ask

    def _reset(self) -> None:
        self.assembler.reset()
        self.ask_keyframe()

    def ask_keyframe(self) -> None:
        now = clock.now()
        if self.ssrc is None or now - self._asked_at < KEYFRAME_SECONDS:
            return
        self._asked_at = now
        self.asked += 1
        self.peer._spawn(self.receiver._send_rtcp_pli(self.ssrc))

    def counts(self) -> dict[str, float]:
        more = {
            "empty": self.empty,
            "keyframes": self.keyframes,
            "held": self.assembler.held,
            "holes": self.assembler.holes,
            "plis": self.asked,
        }
        return super().counts() | more


def _choose_codec(transceiver: RTCRtpTransceiver, start_kbps: int) -> Any:
    """Answer with one codec (and its retransmissions), so that a track is what its MediaTrack says."""
    codecs = transceiver._codecs
    chosen = next((codec for codec in codecs if codec.name.lower() in DECODERS), None)
    if chosen is None:
        raise Unprocessable(
            f"no codec offered for {transceiver.kind} is supported", code="no_supported_codec"
        )
    if transceiver.kind == "audio":  # Opus wherever it stands in the list
        chosen = next((codec for codec in codecs if codec.name.lower() == "opus"), chosen)
    else:
        chosen.parameters["x-google-start-bitrate"] = (
            start_kbps  # else Chromium starts small (FIELD_NOTES 11)
        )
    transceiver._codecs = [
        codec for codec in codecs if codec is chosen or codec.parameters.get("apt") == chosen.payloadType
    ]
    return chosen
