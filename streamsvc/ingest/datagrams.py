"""What becomes of a datagram of a peer: STUN, DTLS and SRTP (RFC 7983), by its first byte and its sender.

STUN goes to aioice, DTLS to aiortc's task. Media are decrypted and handled where they are received: aiortc's
queue and the wake-up of its task cost as much as the rest of a packet's way. The packets of a picture come
together, so a socket that has one is read on. The private names used here are checked by
`aiortc_hooks.check_hooks`.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

import pylibsrtp
from aioice.ice import Connection, StunProtocol
from aiortc import RTCPeerConnection
from aiortc.rtcdtlstransport import State
from aiortc.rtp import is_rtcp

EARLY_DATAGRAMS = 512  # security limit: SRTP kept until the handshake is over; full: the oldest is dropped
QUEUED_DATAGRAMS = 256  # security limit: datagrams queued for DTLS
TOGETHER = 16  # datagrams of one socket handled in a row, so that no publisher holds up the others
LONGEST = 65_536  # bytes


def media_path(peer: RTCPeerConnection, connection: Connection) -> Callable[[bytes], None]:
    """What decrypts a datagram of SRTP or SRTCP and handles the packet, at once; it never raises."""
    transports = (transceiver.receiver.transport for transceiver in peer.getTransceivers())
    dtls = next((one for one in transports if one.transport._connection is connection), None)

    def take(data: bytes) -> None:
        if dtls is None or dtls._state is not State.CONNECTED:  # of no media; closed
            return
        session = dtls._rx_srtp
        try:
            if is_rtcp(data):
                run_now(dtls._handle_rtcp_data(session.unprotect_rtcp(data)))
            else:
                run_now(dtls._handle_rtp_data(session.unprotect(data), arrival_time_ms=0))
        except (pylibsrtp.Error, ValueError):  # forged or repeated; too long
            return
        except ConnectionError:  # no answer can be sent any more
            return

    return take


def run_now(work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run a coroutine without a task until it first waits, and the rest as a task, which is returned.

    What handles a packet waits for nothing but a TURN channel that is being bound.
    """
    try:
        waits = work.send(None)
    except StopIteration:
        return None
    return asyncio.ensure_future(_rest(work, waits))


@types.coroutine
def _rest(work: Coroutine[Any, Any, None], waits: Any) -> Generator[Any, Any, None]:
    try:
        while True:
            try:
                told = yield waits
            except BaseException as error:
                waits = work.throw(error)
            else:
                waits = work.send(told)
    except StopIteration:
        return


def guard_datagrams(
    connection: Connection,
    on_refused: Callable[[], None],
    encrypted: Callable[[], bool],
    on_media: Callable[[bytes], None],
) -> None:
    """Accept DTLS and SRTP only from addresses of the ICE check list; report the others.

    An address on the check list has sent a STUN request with our password. Without this guard one ClientHello
    of a stranger breaks the handshake. SRTP that overtakes the end of the handshake, which aiortc drops, is
    kept until `encrypted`: a publisher that is the DTLS server sends at once. Call this after gathering.

    Args:
        connection: of a peer.
        on_refused: called for each datagram that is not accepted.
        encrypted: whether the handshake is over.
        on_media: gets SRTP and SRTCP.
    """
    early: deque[bytes] = deque(maxlen=EARLY_DATAGRAMS)
    door = _Door(on_refused, encrypted, on_media, early)
    for protocol in connection._protocols:
        guarded = _guard(connection, protocol, door)
        protocol.datagram_received = guarded  # type: ignore[method-assign, assignment]


@dataclass(frozen=True, slots=True)
class _Door:
    """What the sockets of a connection share."""

    on_refused: Callable[[], None]
    encrypted: Callable[[], bool]
    on_media: Callable[[bytes], None]
    early: deque[bytes]  # media that came before the end of the handshake


def _guard(
    connection: Connection, protocol: StunProtocol, door: _Door
) -> Callable[[Any, tuple[Any, ...]], None]:
    known: set[tuple[str, int]] = set()
    readable = False
    receive_stun = protocol.datagram_received
    component = protocol.local_candidate.component
    on_refused, on_media, early = door.on_refused, door.on_media, door.early

    def datagram_received(data: Any, address: tuple[Any, ...]) -> None:
        nonlocal readable
        if not data:  # aiortc would read its first byte: an IndexError that ends the call
            on_refused()
            return
        if data[0] < 4:  # STUN (RFC 7983)
            receive_stun(data, address)
            return
        source = (address[0], address[1])
        if source not in known:
            if not any(
                pair.remote_addr == source and pair.protocol is protocol for pair in connection._check_list
            ):
                on_refused()
                return
            known.add(source)
        if data[0] >= 128:  # SRTP (RFC 7983)
            if readable:
                on_media(data)
                return
            early.append(data)
            readable = door.encrypted()
            while readable and early:
                on_media(early.popleft())
            return
        if connection._queue.qsize() >= QUEUED_DATAGRAMS:
            on_refused()
            return
        connection.data_received(data, component)

    return _reading_on(protocol, datagram_received)


def _reading_on(
    protocol: StunProtocol, received: Callable[[Any, tuple[Any, ...]], None]
) -> Callable[[Any, tuple[Any, ...]], None]:
    """Handle what else has come to the socket of a host candidate, without another turn of the event loop."""
    sock = getattr(getattr(protocol, "transport", None), "_sock", None)  # a relayed one has none
    if sock is None:
        return received

    def received_and_more(data: Any, address: tuple[Any, ...]) -> None:
        received(data, address)
        for _ in range(TOGETHER - 1):
            try:
                data, address = sock.recvfrom(LONGEST)
            except OSError:  # there is no more, or what asyncio will meet and report
                return
            received(data, address)

    return received_and_more
