"""Use of private names of aiortc and aioice (as in `candidates`, `datagrams`), and the check that they exist.

aiortc delivers decoded frames from a thread per track through unbounded queues, joins that thread on the
event loop, and accepts any datagram as DTLS. We want encoded frames as early as possible, so its receiver is
started without a thread, its jitter buffer is replaced, and its sockets are guarded (`datagrams`). The
versions are pinned for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import Any

from aioice import stun
from aioice.ice import Connection, StunProtocol
from aiortc import RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport, RtpRouter, SRTPProtectionProfile
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from OpenSSL import SSL

from streamsvc.core import clock
from streamsvc.core.errors import HookError
from streamsvc.ingest.nack import BoundedNack

AIORTC = "1.16."  # versions known to work
AIOICE = "0.13."
# aiortc's own cipher suites, and those for a server whose certificate is RSA (GStreamer's is).
CIPHERS = b":".join(
    b"ECDHE-" + kind + b"-" + suite
    for kind in (b"ECDSA", b"RSA")
    for suite in (b"AES128-GCM-SHA256", b"CHACHA20-POLY1305", b"AES128-SHA", b"AES256-SHA")
)

_RECEIVER = "_RTCRtpReceiver__"
_METHODS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (RTCRtpReceiver, ("receive", "_run_rtcp", "_handle_rtp_packet", "_handle_rtcp_packet", "_send_rtcp_pli")),
    (RTCDtlsTransport, ("_register_rtp_receiver", "_handle_rtp_data", "_handle_rtcp_data")),
    (RTCCertificate, ("_create_ssl_context",)),
    (JitterBuffer, ("add", "remove")),
    (Connection, ("get_component_candidates", "build_request", "data_received", "query_consent", "close")),
    (StunProtocol, ("datagram_received", "request")),
)
_ATTRIBUTES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (
        RTCRtpReceiver,
        tuple(
            _RECEIVER + name
            for name in (
                "codecs",
                "rtx_ssrc",
                "jitter_buffer",
                "decoder_thread",
                "decoder_queue",
                "nack_generator",
                "rtcp_task",
                "started",
                "active_ssrc",
                "remote_streams",
                "lsr",
                "lsr_time",
            )
        ),
    ),
    (RTCPeerConnection, ("_RTCPeerConnection__iceTransports", "_RTCPeerConnection__certificates")),
    (RTCDtlsTransport, ("_rtp_router", "_rx_srtp", "_state")),
    (RtpRouter, ("ssrc_table",)),
    (JitterBuffer, ("_origin", "_packets", "_capacity")),
    (Connection, ("_check_list", "_nominated", "_protocols", "_queue", "_local_username")),
    (RTCRtpTransceiver, ("_codecs",)),
)


def check_hooks() -> None:
    """Check that all private names exist; call this at start.

    Raises:
        HookError: another version is installed, or a name is missing; the message says which.
    """
    for package, known in (("aiortc", AIORTC), ("aioice", AIOICE)):
        if not version(package).startswith(known):
            raise HookError(
                f"{package} {version(package)} is installed; streamsvc uses private names of {known}x"
            )
    for owner, names in _METHODS:
        for name in names:
            if not callable(getattr(owner, name, None)):
                raise HookError(f"{owner.__module__}.{owner.__name__} has no method {name}")
    for owner, names in _ATTRIBUTES:
        attributes = owner.__init__.__code__.co_names  # type: ignore[misc]
        for name in names:
            if name not in attributes:
                raise HookError(f"{owner.__module__}.{owner.__name__} has no attribute {name}")


# --- receivers ---


def replace_jitter_buffer(receiver: RTCRtpReceiver, push: Callable[[Any], bool]) -> None:
    """Pass each packet to `push` instead of the receiver's jitter buffer.

    `push` returns whether to send a PLI. Retransmissions are unwrapped, and `packet._data` is the payload
    without the codec's RTP descriptor.
    """
    setattr(receiver, _RECEIVER + "jitter_buffer", _PacketTap(push))


class _PacketTap:
    """Replaces aiortc's JitterBuffer; it never returns a frame, so aiortc decodes nothing."""

    def __init__(self, push: Callable[[Any], bool]) -> None:
        self._push = push

    def add(self, packet: Any) -> tuple[bool, None]:
        return self._push(packet), None


def start_without_thread(receiver: RTCRtpReceiver) -> None:
    """Replace `receiver.receive` by one that starts no decoder thread, which `stop` would join."""

    async def receive(parameters: RTCRtpReceiveParameters) -> None:
        if getattr(receiver, _RECEIVER + "started"):
            return
        for codec in parameters.codecs:
            getattr(receiver, _RECEIVER + "codecs")[codec.payloadType] = codec
        for encoding in parameters.encodings:
            if encoding.rtx:
                getattr(receiver, _RECEIVER + "rtx_ssrc")[encoding.rtx.ssrc] = encoding.ssrc
        receiver.transport._register_rtp_receiver(receiver, parameters)
        setattr(receiver, _RECEIVER + "rtcp_task", asyncio.ensure_future(receiver._run_rtcp()))
        setattr(receiver, _RECEIVER + "started", True)

    receiver.receive = receive  # type: ignore[method-assign]


def intercept_packets(
    receiver: RTCRtpReceiver,
    accept: Callable[[Any, int], Iterator[tuple[Any, int]]],
    on_rtcp: Callable[[Any], None],
) -> None:
    """Pass the RTP packets that `accept` yields; call `on_rtcp` for each RTCP packet.

    `accept` gets a packet and its arrival in milliseconds, and yields such pairs: none, or earlier ones too.
    """
    rtp, rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

    async def handle_rtp(packet: Any, arrival_time_ms: int) -> None:
        # aiortc's arrival is of the wall clock, and its bitrate estimate walks over each millisecond between
        # two of them: a clock that is set by a month would hold up everything.
        for accepted, arrived_ms in accept(packet, round(1000 * clock.now())):
            await rtp(accepted, arrival_time_ms=arrived_ms)

    async def handle_rtcp(packet: Any) -> None:
        on_rtcp(packet)
        await rtcp(packet)

    receiver._handle_rtp_packet = handle_rtp  # type: ignore[method-assign]
    receiver._handle_rtcp_packet = handle_rtcp  # type: ignore[method-assign]


def drop_broken_packets(peer: RTCPeerConnection, on_broken: Callable[[], None]) -> None:
    """Drop and report each packet that aiortc cannot handle, which would end the call; before connecting."""
    for transport in {transceiver.receiver.transport for transceiver in peer.getTransceivers()}:
        for name in ("_handle_rtp_data", "_handle_rtcp_data"):
            setattr(transport, name, _dropping(getattr(transport, name), on_broken))


def _dropping(
    handle: Callable[..., Awaitable[None]], on_broken: Callable[[], None]
) -> Callable[..., Awaitable[None]]:
    async def handle_or_drop(*arguments: Any, **named: Any) -> None:
        try:
            await handle(*arguments, **named)
        except ConnectionError:
            raise
        except Exception:  # such as struct.error, for a header extension of another length than its kind's
            on_broken()

    return handle_or_drop


def reset_nack(receiver: RTCRtpReceiver) -> None:
    """Request no retransmission of the packets missing now (a stream begins)."""
    name = _RECEIVER + "nack_generator"
    if getattr(receiver, name) is not None:  # it is None for audio
        setattr(receiver, name, BoundedNack())


def forget_stream(receiver: RTCRtpReceiver, ssrc: int) -> None:
    """Free what is kept of a stream that has ended, and report on it no longer.

    A receiver report holds at most 31 streams (RFC 3550 section 6.4.2); aiortc keeps all that it has seen.
    """
    for name in ("active_ssrc", "remote_streams", "lsr", "lsr_time"):
        getattr(receiver, _RECEIVER + name).pop(ssrc, None)
    receiver.transport._rtp_router.ssrc_table.pop(ssrc, None)


def is_retransmission(receiver: RTCRtpReceiver, packet: Any) -> bool:
    """Whether a packet is an RTX one (RFC 4588); these have their own SSRC."""
    codec = getattr(receiver, _RECEIVER + "codecs").get(packet.payload_type)
    return codec is not None and codec.name.lower() == "rtx"


# --- DTLS ---


def accept_rsa_certificates(peer: RTCPeerConnection) -> None:
    """Offer suites for RSA certificates too where we are the DTLS client; call it before connecting."""
    for certificate in peer._RTCPeerConnection__certificates:  # type: ignore[attr-defined]
        _offer_suites(certificate)


def _offer_suites(certificate: RTCCertificate) -> None:
    create = certificate._create_ssl_context

    def create_ssl_context(srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        context = create(srtp_profiles)
        context.set_cipher_list(CIPHERS)
        return context

    certificate._create_ssl_context = create_ssl_context  # type: ignore[method-assign]


# --- ICE ---


def ice_connections(peer: RTCPeerConnection) -> list[Connection]:
    """The ICE connections of a peer: one when all media are bundled."""
    return [transport._connection for transport in peer._RTCPeerConnection__iceTransports]  # type: ignore[attr-defined]


def is_encrypted(peer: RTCPeerConnection) -> bool:
    """Whether the DTLS handshake is over, so that SRTP can be read."""
    return any(transceiver.receiver.transport.state == "connected" for transceiver in peer.getTransceivers())


async def check_consent(connection: Connection, repeats: int = 0) -> bool:
    """Check consent by one STUN binding request (RFC 7675), repeated; return whether it was answered."""
    password = connection.remote_password
    for pair in list(connection._nominated.values()):
        request = connection.build_request(pair, nominate=False)
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=(password or "").encode(), retransmissions=repeats
            )
        except (stun.TransactionError, ConnectionError, OSError):
            continue
        return True
    return False


async def close_connections(connections: list[Connection], seconds: float) -> None:
    """Close what aiortc's own close left open; never raises.

    Args:
        connections: of one peer.
        seconds: time limit of each: a TURN server may be gone.
    """
    for connection in connections:
        protocols = list(connection._protocols)
        try:
            async with asyncio.timeout(seconds):
                await connection.close()
        except Exception:
            for protocol in protocols:
                protocol.transport.close()
