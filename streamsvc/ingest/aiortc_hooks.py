"""Every private name of aiortc and aioice that the ingest builds on, in one place, and the check that they are there.

aiortc hands out decoded frames from a thread per track through unbounded queues, joins that thread on the event loop, and
takes any datagram for DTLS (FIELD_NOTES 1 to 7). We want encoded frames, early, and nothing else; so its receiver is
started without a thread, its jitter buffer is replaced, and its sockets are guarded. aiortc is pinned for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from aioice import stun
from aioice.ice import Connection, StunProtocol
from aiortc import RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtptransceiver import RTCRtpTransceiver

from streamsvc.core.errors import HookError

AIORTC = "1.16."  # versions known to work
AIOICE = "0.13."
QUEUED_DATAGRAMS = 2048  # security limit: datagrams waiting for DTLS and SRTP
LOOPBACK = "127.0.0.1"

_RECEIVER = "_RTCRtpReceiver__"
_METHODS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (RTCRtpReceiver, ("receive", "_run_rtcp", "_handle_rtp_packet", "_handle_rtcp_packet", "_send_rtcp_pli")),
    (RTCDtlsTransport, ("_register_rtp_receiver",)),
    (JitterBuffer, ("add", "remove")),
    (Connection, ("get_component_candidates", "build_request", "data_received", "close")),
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
            )
        ),
    ),
    (RTCPeerConnection, ("_RTCPeerConnection__iceTransports",)),
    (JitterBuffer, ("_origin", "_packets", "_capacity")),
    (Connection, ("_check_list", "_nominated", "_protocols", "_queue", "_local_username")),
    (RTCRtpTransceiver, ("_codecs",)),
)


def check_hooks() -> None:
    """Check that everything we build on is there; to be called at start.

    Raises:
        HookError: the version is another one, or a name is missing; the message says which.
    """
    for package, known in (("aiortc", AIORTC), ("aioice", AIOICE)):
        if not version(package).startswith(known):
            raise HookError(
                f"{package} {version(package)} is installed; streamsvc builds on private names of {known}x"
            )
    for owner, names in _METHODS:
        for name in names:
            if not callable(getattr(owner, name, None)):
                raise HookError(f"{owner.__module__}.{owner.__name__} has no method {name} any more")
    for owner, names in _ATTRIBUTES:
        made = owner.__init__.__code__.co_names  # type: ignore[misc]
        for name in names:
            if name not in made:
                raise HookError(f"{owner.__module__}.{owner.__name__} has no attribute {name} any more")


# --- receivers ----------------------------------------------------------------------------------------------------


def replace_buffer(receiver: RTCRtpReceiver, add: Callable[[Any], bool]) -> None:
    """Let `add(packet) -> whether a PLI should be sent` take each packet instead of the receiver's jitter buffer.

    The packet has its retransmission unwrapped, and `_data` is its payload without the codec's RTP descriptor.
    """
    setattr(receiver, _RECEIVER + "jitter_buffer", _Tap(add))


class _Tap:
    """Stands where aiortc's JitterBuffer stood; as it never returns a frame, aiortc's decoder never gets one."""

    def __init__(self, add: Callable[[Any], bool]) -> None:
        self._add = add

    def add(self, packet: Any) -> tuple[bool, None]:
        return self._add(packet), None


def start_without_thread(receiver: RTCRtpReceiver) -> None:
    """Replace `receiver.receive`: the same, but no decoder thread (so that `stop` has none to join)."""

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


def watch_packets(
    receiver: RTCRtpReceiver, wanted: Callable[[Any], bool], reported: Callable[[Any], None]
) -> None:
    """Ask `wanted(packet)` before the receiver sees an RTP packet; tell `reported(packet)` each RTCP packet."""
    rtp, rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

    async def handle_rtp(packet: Any, arrival_time_ms: int) -> None:
        if wanted(packet):
            await rtp(packet, arrival_time_ms=arrival_time_ms)

    async def handle_rtcp(packet: Any) -> None:
        reported(packet)
        await rtcp(packet)

    receiver._handle_rtp_packet = handle_rtp  # type: ignore[method-assign]
    receiver._handle_rtcp_packet = handle_rtcp  # type: ignore[method-assign]


def forget_missing(receiver: RTCRtpReceiver) -> None:
    """Ask for no retransmission of what is missing now (a new stream begins)."""
    generator = getattr(receiver, _RECEIVER + "nack_generator")
    if generator is not None:
        generator.max_seq = None
        generator.missing.clear()


def is_retransmission(receiver: RTCRtpReceiver, packet: Any) -> bool:
    """Whether a packet is an RTX one (RFC 4588), which has an SSRC of its own."""
    codec = getattr(receiver, _RECEIVER + "codecs").get(packet.payload_type)
    return codec is not None and codec.name.lower() == "rtx"


# --- ICE ----------------------------------------------------------------------------------------------------------


def connections(peer: RTCPeerConnection) -> list[Connection]:
    """The ICE connections of a peer (one, when all media are bundled)."""
    return [transport._connection for transport in peer._RTCPeerConnection__iceTransports]  # type: ignore[attr-defined]


def offer_loopback(connection: Connection) -> None:
    """Let the connection gather 127.0.0.1 too, which aioice never does: for tests and containers."""
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str], timeout: int = 5) -> Any:
        return await gather(component, [*addresses, LOOPBACK], timeout)

    connection.get_component_candidates = get_component_candidates  # type: ignore[method-assign]


def guard_sources(connection: Connection, refused: Callable[[], None]) -> None:
    """Take DTLS and SRTP only from addresses of the check list; call `refused` for every other datagram.

    Who is on the check list has sent a STUN request with our password. Without this, one stranger's ClientHello breaks
    the handshake (FIELD_NOTES 3). To be called after gathering.
    """
    for protocol in connection._protocols:
        protocol.datagram_received = _guard(connection, protocol, refused)  # type: ignore[method-assign, assignment]


def _guard(
    connection: Connection, protocol: StunProtocol, refused: Callable[[], None]
) -> Callable[[Any, tuple[Any, ...]], None]:
    known: set[tuple[str, int]] = set()
    passed = protocol.datagram_received
    component = protocol.local_candidate.component

    def datagram_received(data: Any, address: tuple[Any, ...]) -> None:
        if not data:  # aiortc would read its first byte, and end the call with an IndexError
            refused()
            return
        if data[0] < 4:  # STUN (RFC 7983)
            passed(data, address)
            return
        source = (address[0], address[1])
        if source not in known:
            if not any(
                pair.remote_addr == source and pair.protocol is protocol for pair in connection._check_list
            ):
                refused()
                return
            known.add(source)
        if connection._queue.qsize() >= QUEUED_DATAGRAMS:
            refused()
            return
        connection.data_received(data, component)

    return datagram_received


async def ask_consent(connection: Connection) -> bool:
    """Send one STUN binding request on the chosen pair (RFC 7675); whether it was answered."""
    password = connection.remote_password
    for pair in list(connection._nominated.values()):
        request = connection.build_request(pair, nominate=False)
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=(password or "").encode(), retransmissions=0
            )
        except (stun.TransactionError, ConnectionError, OSError):
            continue
        return True
    return False


async def close_rest(connections: list[Connection]) -> None:
    """Close what aiortc's own close left open; never raises."""
    for connection in connections:
        protocols = list(connection._protocols)
        try:
            await connection.close()
        except Exception:
            for protocol in protocols:
                protocol.transport.close()
