from __future__ import annotations

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
