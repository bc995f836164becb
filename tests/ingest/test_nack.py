"""A jump of the sequence number adds no more than can be asked for, and aiortc would ask for the same."""

from __future__ import annotations

from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.rtcrtpreceiver import NackGenerator
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.ingest import aiortc_hooks
from streamsvc.ingest.nack import ASKED_FOR, BoundedNack


class Counted(set[int]):
    """A set that counts what is added."""

    added = 0

    def add(self, one: int) -> None:
        """Add one."""
        self.added += 1
        super().add(one)


def packet(sequence: int) -> RtpPacket:
    return RtpPacket(sequence_number=sequence & 0xFFFF)


def test_jumps_by_anything_add_and_keep_no_more_than_is_asked_for() -> None:
    nack = BoundedNack()
    nack.missing = missing = Counted()
    for jump in range(200):
        before = missing.added
        nack.add(packet(jump * 32_000))
        assert missing.added - before <= ASKED_FOR
        assert len(missing) <= ASKED_FOR


@given(st.integers(0, 0xFFFF), st.lists(st.integers(-50, 400), max_size=60))
def test_the_same_packets_are_asked_for_as_by_aiortc(base: int, steps: list[int]) -> None:
    ours, plain, sequence = BoundedNack(), NackGenerator(), base
    for step in steps:
        sequence += step
        assert ours.add(packet(sequence)) == plain.add(packet(sequence))
        assert ours.missing == plain.missing


async def test_only_a_video_receiver_gets_one_and_a_new_stream_a_new_one() -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind, wanted in (("audio", type(None)), ("video", BoundedNack)):
        receiver: Any = connection.addTransceiver(kind, "recvonly").receiver
        aiortc_hooks.reset_nack(receiver)
        first: Any = receiver._RTCRtpReceiver__nack_generator
        assert type(first) is wanted
        if isinstance(first, BoundedNack):
            first.missing.add(1)
            aiortc_hooks.reset_nack(receiver)
            second: Any = receiver._RTCRtpReceiver__nack_generator
            assert not second.missing
    await connection.close()
