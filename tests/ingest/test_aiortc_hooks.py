from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from streamsvc.core import clock
from streamsvc.core.errors import HookError
from streamsvc.ingest import aiortc_hooks


def test_the_installed_aiortc_has_every_hook() -> None:
    aiortc_hooks.check_hooks()


def test_a_missing_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RTCRtpReceiver, "_handle_rtp_packet")
    with pytest.raises(HookError, match="_handle_rtp_packet"):
        aiortc_hooks.check_hooks()


def test_a_missing_attribute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RTCRtpReceiver, "__init__", lambda self, kind, transport: None)
    with pytest.raises(HookError, match="_RTCRtpReceiver__codecs"):
        aiortc_hooks.check_hooks()


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiortc_hooks, "version", lambda package: "2.0.0")
    with pytest.raises(HookError, match=r"aiortc 2\.0\.0"):
        aiortc_hooks.check_hooks()


class Connected:
    """What `guard_datagrams` needs of an ICE connection with one known address; `got`: what it let in."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
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
        aiortc_hooks.guard_datagrams(guarded, self._refuse, lambda: self.encrypted)
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
    connection.waiting = aiortc_hooks.QUEUED_DATAGRAMS
    connection.receive(b"\x16hello", KNOWN)
    connection.receive(b"\x80media", KNOWN)
    assert (connection.refused, connection.got) == (4, [b"\x16hello"])


def test_of_media_that_overtake_the_handshake_the_newest_are_kept() -> None:
    connection = Connected()
    sent = [b"\x80" + number.to_bytes(2) for number in range(aiortc_hooks.EARLY_DATAGRAMS + 100)]
    for data in sent:
        connection.receive(data, KNOWN)
    assert connection.got == []
    connection.encrypted = True
    connection.receive(b"\x80last", KNOWN)
    assert connection.got == [*sent[101:], b"\x80last"]


async def test_the_arrival_of_a_packet_is_of_the_monotonic_clock() -> None:
    class Receiver:
        arrivals: ClassVar[list[int]] = []

        async def _handle_rtp_packet(self, packet: str, arrival_time_ms: int) -> None:
            self.arrivals.append(arrival_time_ms)

        async def _handle_rtcp_packet(self, packet: str) -> None:
            """None comes."""

    receiver: Any = Receiver()
    aiortc_hooks.intercept_packets(receiver, lambda packet, ms: iter([(packet, ms)]), lambda packet: None)
    await receiver._handle_rtp_packet("a", 10**15)
    assert abs(Receiver.arrivals[0] - 1000 * clock.now()) < 10_000
