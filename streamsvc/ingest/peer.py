"""One WebRTC publisher: an aiortc peer whose encoded frames are tapped before any decoder.

The path of a packet: socket -> datagram guard -> aiortc's ICE, DTLS, SRTP, RTP -> `track_receiver` ->
`tap(frame)`. Nothing here waits for a model or queues a frame; the tap must return at once. One task runs all
timers.

States passed to `on_state(state, reason)`: "connected"; "stalled" and "resumed" (neither media nor RTCP nor
consent for `stall_seconds`); "frozen" and "thawed" (no video comes, while the publisher lives: `freeze`); and
once "closed", if the peer ended by itself, with the reason "handshake" (never connected), "failed", "left"
(the publisher said goodbye) or "stalled".
"""

from __future__ import annotations

import asyncio
import copy
import functools
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.errors import CapacityError, InvalidRequest, PreconditionFailed, Unprocessable
from streamsvc.core.types import EncodedFrame, Kind, MediaTrack
from streamsvc.ingest import aiortc_hooks, candidates, consent, datagrams
from streamsvc.ingest.candidates import Reach
from streamsvc.ingest.freeze import FreezeDetector
from streamsvc.ingest.ice_servers import IceServers
from streamsvc.ingest.rtp_clock import RtpClock
from streamsvc.ingest.sdp import Offer, complete_answer, read_fragment, read_offer
from streamsvc.ingest.sdp_codecs import DECODERS, Choice
from streamsvc.ingest.track_receiver import AudioReceiver, PeerContext, TrackReceiver, VideoReceiver

log = structlog.get_logger(__name__)

TICK = 0.1  # seconds between two checks of the timers
CONSENT_AFTER = 0.8  # seconds of silence until consent is checked
CONSENT_SECONDS = 1.0  # between two consent checks
FREEZE = {"frozen": "no video comes; the rest goes on", "thawed": "video comes again"}
CLOSE_SECONDS = 3.0  # time limit of aiortc's own close


@dataclass(frozen=True, slots=True)
class FrameSink:
    """Where a peer's frames and states go."""

    session: str  # id
    zero: float  # `clock.now()` of session time 0
    tap: Callable[[EncodedFrame], None]  # must not block; what it raises is counted and ends nothing
    on_state: Callable[[str, str], None]  # called with the states of the module's docstring
    track: str = "main"  # name put into the frames


async def answer(
    offer: str, settings: Ingest, limits: Limits, sink: FrameSink, ice_servers: IceServers | None = None
) -> Peer:
    """Answer an offer; the peer then connects and feeds the sink by itself.

    Args:
        offer: SDP, untrusted.
        settings: timers and ICE servers.
        limits: security limits on the SDP.
        sink: receives frames and states.
        ice_servers: those of the settings, with what is known of them; None: nothing is known yet.

    Raises:
        InvalidRequest, Unprocessable, TooLarge: see `sdp.read_offer`. CapacityError: no port is free, or
            there was no time to answer.
    """
    peer = Peer(read_offer(offer, limits), settings, limits, sink)
    try:
        async with asyncio.timeout(limits.sdp_seconds):
            await peer._negotiate(ice_servers or configured(settings, limits))
    except (CapacityError, InvalidRequest, Unprocessable):
        await peer.close()
        raise
    except TimeoutError:
        await peer.close()
        raise CapacityError("the offer could not be answered in time", code="answer_late") from None
    except Exception as error:  # aiortc raises many classes for an offer it cannot answer
        await peer.close()
        raise InvalidRequest(
            f"the SDP cannot be answered ({type(error).__name__})", code="malformed_sdp"
        ) from None
    except BaseException:
        await peer.close()
        raise
    return peer


def configured(settings: Ingest, limits: Limits) -> IceServers:
    """The ICE servers of the settings; they get half of the time for an answer at most."""
    return IceServers(settings.ice_servers, min(settings.ice_seconds, limits.sdp_seconds / 2), settings.turn)


class Peer:
    """A WebRTC publisher. Made by `answer`.

    Attributes:
        sdp: the answer, complete with candidates.
        etag: identifies the ICE session, quoted as in HTTP.
        tracks: the tracks that the publisher sends.
        state: "new", "connected", "stalled", "resumed" or "closed".
    """

    def __init__(self, offer: Offer, settings: Ingest, limits: Limits, sink: FrameSink) -> None:
        self.sdp = ""
        self.etag = f'"{secrets.token_hex(8)}"'
        self.tracks: tuple[MediaTrack, ...] = ()
        self.state = "new"
        self._offer = offer
        self._settings = settings
        self._limits = limits
        self._sink = sink
        self._rtp_clock = RtpClock(sink.zero, {})
        self._receivers: dict[Kind, TrackReceiver] = {}
        self._freeze = FreezeDetector()
        self._discarding = False
        self._refused = 0  # datagrams of strangers
        self._tap_errors = 0
        self._candidates = offer.candidates
        self._created = clock.now()
        self._last_activity = self._created
        self._connections: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._consent_check: asyncio.Task[Any] | None = None
        self._last_consent_check = 0.0
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def _negotiate(self, ice_servers: IceServers) -> None:
        pc = self._pc
        aiortc_hooks.accept_rsa_certificates(pc)
        await pc.setRemoteDescription(RTCSessionDescription(self._offer.text, "offer"))
        self._open_receivers()
        aiortc_hooks.drop_broken_packets(pc, self._count_refused)
        self._connections = aiortc_hooks.ice_connections(pc)
        for connection in self._connections:
            consent.be_patient(connection, aiortc_hooks.check_consent)
            candidates.gather_also(connection, Reach.of(self._settings), ice_servers.gather)
        await pc.setLocalDescription(await pc.createAnswer())
        encrypted = functools.partial(aiortc_hooks.is_encrypted, pc)
        for connection in self._connections:
            media = datagrams.media_path(pc, connection)
            datagrams.guard_datagrams(connection, self._count_refused, encrypted, media)
        self.sdp = complete_answer(pc.localDescription.sdp, self._offer)
        self._spawn(self._run_timers())

    def _open_receivers(self) -> None:
        """Choose one codec per track and hook into aiortc's receivers."""
        chosen: dict[Kind, tuple[RTCRtpReceiver, Choice]] = {}
        for transceiver, (media, choice) in zip(
            self._pc.getTransceivers(), self._offer.accepted, strict=True
        ):
            codecs = copy.deepcopy(choice.codecs)
            transceiver._codecs = list(codecs)
            if media.kind == "video":  # Chromium starts at a low bitrate otherwise
                codecs[0].parameters["x-google-start-bitrate"] = self._settings.start_kbps
            if media.sends:
                chosen["audio" if media.kind == "audio" else "video"] = (transceiver.receiver, choice)
        self._rtp_clock = RtpClock(
            self._sink.zero, {kind: choice.codecs[0].clockRate for kind, (_, choice) in chosen.items()}
        )
        context = PeerContext(
            session=self._sink.session,
            track=self._sink.track,
            rtp_clock=self._rtp_clock,
            reorder_packets=self._settings.reorder_packets,
            deliver=self._deliver,
            note_activity=self._note_activity,
            spawn=self._spawn,
        )
        for kind, (receiver, choice) in chosen.items():
            codec = choice.codecs[0]
            track = MediaTrack(kind, DECODERS[codec.name.lower()], keyframes_on_request=kind == "video")
            if kind == "audio":
                self._receivers[kind] = AudioReceiver(context, receiver, track, codec.clockRate)
            else:
                self._receivers[kind] = VideoReceiver(context, receiver, track, choice.parameter_sets)
            aiortc_hooks.start_without_thread(receiver)
        self.tracks = tuple(receiver.track for receiver in self._receivers.values())

    # --- called by the service ---

    async def add_candidates(self, fragment: str) -> None:
        """Add trickled candidates (RFC 8840).

        Raises:
            InvalidRequest: the fragment is malformed, or there are too many candidates in all.
            Unprocessable: "ice_restart": aiortc cannot restart ICE; the session continues.
            PreconditionFailed: the peer is closed.
        """
        trickled = read_fragment(fragment, self._limits)
        restarts = trickled.ufrag not in (None, self._offer.ufrag) or (
            trickled.password not in (None, self._offer.password)
        )
        if restarts:
            raise Unprocessable("ICE restart is not supported; the session continues", code="ice_restart")
        if self._closing is not None:
            raise PreconditionFailed("the publisher's connection is closed")
        self._candidates += len(trickled.candidates)
        if self._candidates > self._limits.sdp_candidates:
            raise InvalidRequest(f"more than {self._limits.sdp_candidates} candidates", code="malformed_sdp")
        # All media are bundled, so every candidate belongs to the only transport, whatever its mid.
        transports = {transceiver.receiver.transport.transport for transceiver in self._pc.getTransceivers()}
        for candidate in trickled.candidates:
            for transport in transports:
                await transport.addRemoteCandidate(candidate)

    def request_keyframe(self) -> None:
        """Ask the publisher for a codec keyframe (PLI), rate-limited. Never fails."""
        video = self._receivers.get("video")
        if isinstance(video, VideoReceiver) and self._closing is None:
            video.request_keyframe()

    def stats(self) -> dict[str, float]:
        """Counters since the start; `audio_*` and `video_*` count packets unless they say otherwise.

        refused: datagrams of strangers. tap_errors: exceptions of the tap. shared_clock, frozen: 1 or 0.
        """
        numbers: dict[str, float] = {
            "refused": self._refused,
            "tap_errors": self._tap_errors,
            "shared_clock": float(self._rtp_clock.shared),
            "frozen": float(self._freeze.frozen),
        }
        for kind, receiver in self._receivers.items():
            numbers |= {f"{kind}_{name}": value for name, value in receiver.counts().items()}
        return numbers

    async def close(self) -> None:
        """Close the connection and free everything. Never raises; idempotent, also concurrently."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._shut_down())
        await asyncio.shield(self._closing)

    async def _shut_down(self) -> None:
        self.state = "closed"
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pc.close()
        except Exception as error:
            log.warning("peer.close_failed", session=self._sink.session, error=type(error).__name__)
        await aiortc_hooks.close_connections(
            [*self._connections, *aiortc_hooks.ice_connections(self._pc)], CLOSE_SECONDS
        )
        self._discarding = True

    # --- called by the tracks ---

    def _deliver(self, frame: EncodedFrame) -> None:
        if self._discarding:
            return
        try:
            self._sink.tap(frame)
        except Exception as error:  # would end aiortc's receiving task, and with it the call
            self._tap_errors += 1
            if self._tap_errors == 1:
                log.error("peer.tap_failed", session=self._sink.session, error=type(error).__name__)

    def _note_activity(self) -> float:
        self._last_activity = clock.now()
        return self._last_activity

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _count_refused(self) -> None:
        self._refused += 1

    # --- timers ---

    async def _run_timers(self) -> None:
        while self._closing is None:
            await clock.sleep(TICK)
            self._tick(clock.now())

    def _tick(self, now: float) -> None:
        connection = self._pc.connectionState
        if connection == "failed":
            _log_failure(self._sink.session, self._pc)
            self._end("failed")
        elif connection == "closed":
            self._end("left")
        elif self.state == "new":
            if connection == "connected":
                self._last_activity = now
                self._set_state("connected")
            elif now - self._created > self._settings.handshake_seconds:
                self._end("handshake")
        else:
            self._check_liveness(now)
            for receiver in self._receivers.values():
                receiver.tick(now)
            video = self._receivers.get("video")
            if video is not None and video.packets and self.state != "stalled":
                news = self._freeze.tick(now, video.last_packet)
                if news == "ask":
                    self.request_keyframe()
                elif news:
                    self._tell(news, FREEZE[news])

    def _check_liveness(self, now: float) -> None:
        silence = now - self._last_activity
        if (
            silence > CONSENT_AFTER
            and now - self._last_consent_check > CONSENT_SECONDS
            and (self._consent_check is None or self._consent_check.done())
        ):
            self._last_consent_check = now
            self._consent_check = self._spawn(self._check_consent())
        if silence > self._settings.close_seconds:
            self._end("stalled")
        elif silence > self._settings.stall_seconds and self.state != "stalled":
            self._set_state("stalled", "neither media nor RTCP nor consent")
        elif silence <= self._settings.stall_seconds and self.state == "stalled":
            self._set_state("resumed")

    async def _check_consent(self) -> None:
        for connection in self._connections:
            if await aiortc_hooks.check_consent(connection):
                self._note_activity()

    def _set_state(self, state: str, reason: str = "") -> None:
        self.state = state
        self._tell(state, reason)

    def _tell(self, state: str, reason: str) -> None:
        try:
            self._sink.on_state(state, reason)
        except Exception as error:
            log.error("peer.on_state_failed", session=self._sink.session, error=type(error).__name__)

    def _end(self, reason: str) -> None:
        """Close the peer from inside."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._shut_down())
            self._set_state("closed", reason)


def _log_failure(session: str, pc: RTCPeerConnection) -> None:
    # A failed DTLS state points at a certificate or a cipher, a failed ICE state at the network.
    dtls = sorted({transceiver.receiver.transport.state for transceiver in pc.getTransceivers()})
    log.warning("peer.failed", session=session, ice=pc.iceConnectionState, dtls=dtls)
