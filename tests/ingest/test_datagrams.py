"""Datagrams of strangers are refused, and media are handled where they are received."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pylibsrtp
import pytest
from aiortc.rtcdtlstransport import State

from streamsvc.ingest import datagrams


class Connected:
    """What `guard_datagrams` needs of an ICE connection with one known address; `got`, `media`: let in."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.media: list[bytes] = []
        self.waiting = 0
        self.refused = 0
        self.encrypted = False
        protocol = SimpleNamespace(
            datagram_received=lambda data, address: None, local_candidate=SimpleNamespace(component=1)
        )
        self._protocols = [protocol]
        self._check_list = [SimpleNamespace(remote_addr=("192.0.2.1", 9), protocol=protocol)]
        self._queue = SimpleNamespace(qsize=lambda: self.waiting)
        guarded: Any = self
        datagrams.guard_datagrams(guarded, self._refuse, lambda: self.encrypted, self.media.append)
        self.receive = protocol.datagram_received

    def _refuse(self) -> None:
        self.refused += 1

    def data_received(self, data: bytes, component: int) -> None:
        self.got.append(data)


KNOWN, STRANGER = ("192.0.2.1", 9), ("192.0.2.2", 9)


def test_datagrams_of_an_unchecked_address_or_over_the_queue_are_refused() -> None:
    connection = Connected()
    connection.encrypted = True
    connection.receive(b"\x16hello", STRANGER)
    connection.receive(b"", KNOWN)
    assert (connection.refused, connection.got) == (2, [])
    connection.receive(b"\x16hello", KNOWN)
    connection.waiting = datagrams.QUEUED_DATAGRAMS
    connection.receive(b"\x16hello", KNOWN)
    assert (connection.refused, connection.got) == (3, [b"\x16hello"])
    connection.receive(b"\x80media", STRANGER)
    assert (connection.refused, connection.media) == (4, [])
    connection.receive(b"\x80media", KNOWN)
    assert connection.media == [b"\x80media"], "media wait in no queue"


def test_of_media_that_overtake_the_handshake_the_newest_are_kept() -> None:
    connection = Connected()
    sent = [b"\x80" + number.to_bytes(2) for number in range(datagrams.EARLY_DATAGRAMS + 100)]
    for data in sent:
        connection.receive(data, KNOWN)
    assert connection.media == []
    connection.encrypted = True
    connection.receive(b"\x80last", KNOWN)
    assert connection.media == [*sent[101:], b"\x80last"]


class Dtls:
    """What `media_path` needs of a DTLS transport: packets are as they were sent, unless "forged"."""

    def __init__(self, connection: object) -> None:
        self.transport = SimpleNamespace(_connection=connection)
        self._state = State.CONNECTED
        self._rx_srtp = SimpleNamespace(unprotect=self._checked, unprotect_rtcp=self._checked)
        self.handled: list[tuple[str, bytes]] = []
        self.waits: asyncio.Future[str] | None = None

    def _checked(self, data: bytes) -> bytes:
        if b"forged" in data:
            raise pylibsrtp.Error("authentication failed")
        if len(data) > 1500:
            raise ValueError("packet is too long")
        return data

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        if data.endswith(b"gone"):
            raise ConnectionError
        if self.waits is not None:
            self.handled.append((await self.waits, data))
        self.handled.append(("rtp", data))

    async def _handle_rtcp_data(self, data: bytes) -> None:
        self.handled.append(("rtcp", data))


def path(dtls: Dtls, connection: object) -> Callable[[bytes], None]:
    transceiver = SimpleNamespace(receiver=SimpleNamespace(transport=dtls))
    peer: Any = SimpleNamespace(getTransceivers=lambda: [transceiver, transceiver])
    of: Any = connection
    return datagrams.media_path(peer, of)


RTP, RTCP = b"\x80\x60", b"\x80\xc8"


def test_media_are_handled_before_the_next_datagram_is_received() -> None:
    connection = object()
    dtls = Dtls(connection)
    take = path(dtls, connection)
    take(RTP)
    take(RTCP)
    assert dtls.handled == [("rtp", RTP), ("rtcp", RTCP)]


def test_media_that_are_forged_too_long_or_cannot_be_answered_end_nothing() -> None:
    connection = object()
    dtls = Dtls(connection)
    take = path(dtls, connection)
    for data in (RTP + b"forged", RTCP + b"forged", RTP + bytes(3000), RTP + b"gone", RTP):
        take(data)
    assert dtls.handled == [("rtp", RTP)]


def test_media_of_a_connection_that_is_over_are_dropped() -> None:
    connection = object()
    dtls = Dtls(connection)
    take = path(dtls, connection)
    dtls._state = State.CLOSED
    take(RTP)
    assert dtls.handled == []


async def test_handling_that_has_to_wait_goes_on_in_a_task() -> None:
    dtls = Dtls(None)
    dtls.waits = asyncio.get_running_loop().create_future()
    rest = datagrams.run_now(dtls._handle_rtp_data(RTP, 0))
    assert rest is not None
    assert dtls.handled == []
    dtls.waits.set_result("bound")
    await rest
    assert dtls.handled == [("bound", RTP), ("rtp", RTP)]
    assert datagrams.run_now(dtls._handle_rtcp_data(RTCP)) is None


async def test_handling_that_waits_in_vain_fails_as_it_would_in_a_task() -> None:
    dtls = Dtls(None)
    dtls.waits = asyncio.get_running_loop().create_future()
    rest = datagrams.run_now(dtls._handle_rtp_data(RTP, 0))
    assert rest is not None
    dtls.waits.set_exception(OSError("no channel"))
    with pytest.raises(OSError, match="no channel"):
        await rest
