from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.packet_loss import play
from streamsvc.ingest.jitter import Frame, Jitter, Packet, byte_seconds, opus_seconds

OPUS_20MS = b"\x78\0\0"  # config 15: hybrid, 20 ms, one frame


def packet(number: int, arrived: float | None = None, payload: bytes = OPUS_20MS) -> Packet:
    return Packet(
        number & 0xFFFF, number * 960 & 0xFFFFFFFF, payload, number * 0.02 if arrived is None else arrived
    )


def feed(jitter: Jitter, numbers: list[int]) -> list[Frame]:
    return [
        frame for place, number in enumerate(numbers) for frame in jitter.push(packet(number, place * 0.02))
    ]


def order(frames: list[Frame]) -> list[int]:
    return [frame.timestamp // 960 for frame in frames]


def test_packets_in_order_are_delivered_at_once() -> None:
    jitter = Jitter()
    for number in range(100, 110):
        frames = jitter.push(packet(number))
        assert order(frames) == [number]
        assert frames[0].lost == 0.0


def test_swapped_packets_are_reordered_without_loss() -> None:
    jitter = Jitter()
    frames = feed(jitter, [1, 3, 2, 4])
    assert order(frames) == [1, 2, 3, 4]
    assert sum(frame.lost for frame in frames) == 0
    assert jitter.counts.lost == 0


def test_a_lost_packet_is_given_up_after_three_others_and_all_are_delivered_at_once() -> None:
    jitter = Jitter(reorder_packets=3)
    feed(jitter, [1])
    assert feed(jitter, [3, 4]) == []
    frames = feed(jitter, [5])
    assert order(frames) == [3, 4, 5]
    assert [round(frame.lost, 6) for frame in frames] == [0.02, 0.0, 0.0]
    assert jitter.counts.lost == 1
    assert order(feed(jitter, [6])) == [6]  # no lasting latency


def test_late_and_duplicate_packets_are_dropped_and_counted() -> None:
    jitter = Jitter()
    assert order(feed(jitter, [1, 3, 4, 4, 5, 2, 5])) == [1, 3, 4, 5]
    assert (jitter.counts.late, jitter.counts.duplicate) == (2, 1)


def test_sequence_numbers_and_timestamps_wrap() -> None:
    jitter = Jitter()
    frames = [
        f
        for n in range(65530, 65545)
        for f in jitter.push(
            Packet(n & 0xFFFF, (n * 960 + (1 << 32) - 65536 * 960) % (1 << 32), OPUS_20MS, n * 0.02)
        )
    ]
    assert len(frames) == 15
    assert all(frame.lost == 0 for frame in frames)


def test_a_pause_of_the_sender_is_not_a_loss() -> None:
    jitter = Jitter()
    jitter.push(Packet(1, 0, OPUS_20MS, 0.0))
    (frame,) = jitter.push(Packet(2, 48_000 * 5, OPUS_20MS, 5.0))
    assert frame.lost == 0.0


def test_a_loss_during_a_pause_counts_no_more_than_its_packets() -> None:
    jitter = Jitter(reorder_packets=1)
    jitter.push(Packet(1, 0, OPUS_20MS, 0.0))
    (frame,) = jitter.push(Packet(3, 48_000 * 5, OPUS_20MS, 5.0))
    assert frame.lost == pytest.approx(0.02)


def test_a_hole_is_given_up_after_its_time_when_no_packets_come() -> None:
    jitter = Jitter(reorder_packets=8, reorder_seconds=0.1)
    jitter.push(packet(1, 0.0))
    assert jitter.push(packet(3, 0.04)) == []
    assert jitter.poll(0.13) == []
    assert order(jitter.poll(0.15)) == [3]


def test_padding_yields_no_frame_and_leaves_no_hole() -> None:
    jitter = Jitter()
    frames = [f for p in (packet(1), packet(2, payload=b""), packet(3)) for f in jitter.push(p)]
    assert order(frames) == [1, 3]
    assert (jitter.counts.empty, jitter.counts.lost) == (1, 0)


def test_a_restarted_sender_is_accepted_at_its_second_packet() -> None:
    jitter = Jitter()
    feed(jitter, [1, 2])
    assert jitter.push(packet(30_000)) == []
    assert order(jitter.push(packet(30_001))) == [30_000, 30_001]
    assert jitter.counts.restarts == 1


def test_a_single_stray_packet_does_not_disturb_the_stream() -> None:
    jitter = Jitter()
    assert order(feed(jitter, [1, 2, 30_000, 3, 4])) == [1, 2, 3, 4]
    assert jitter.counts.restarts == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=4)), max_size=200
    )
)
def test_any_input_is_handled_within_bounds(packets: list[tuple[int, int, bytes]]) -> None:
    jitter = Jitter()
    delivered = 0
    for place, (sequence, timestamp, payload) in enumerate(packets):
        frames = jitter.push(Packet(sequence, timestamp, payload, place * 0.02))
        delivered += len(frames)
        assert len(jitter._waiting) < jitter.reorder_packets
        assert all(frame.payload and frame.lost >= 0 for frame in frames)
    assert delivered <= len(packets)


@given(st.integers(0, 2**32), st.sets(st.integers(1, 198)), st.randoms(use_true_random=False))
def test_every_packet_not_lost_or_late_is_delivered_once_and_in_order(
    base: int, lost: set[int], chance: random.Random
) -> None:
    numbers = [n for n in range(200) if n not in lost]
    for place in range(2, len(numbers) - 1, 7):
        if chance.random() < 0.5:
            numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
    jitter = Jitter()
    out = [
        f
        for place, n in enumerate(numbers)
        for f in jitter.push(
            Packet((base + n) & 0xFFFF, (base + n * 960) & 0xFFFFFFFF, OPUS_20MS, place * 0.02)
        )
    ]
    out += jitter.poll(1e9)
    places = [((frame.timestamp - base) & 0xFFFFFFFF) // 960 for frame in out]
    assert places == sorted(set(places))
    assert len(places) + jitter.counts.late == len(numbers)
    assert sum(frame.lost for frame in out) == pytest.approx(
        0.02 * (200 - len(places)), abs=0.021 if 199 not in places else 1e-6
    )


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_loss_costs_what_was_lost_and_adds_no_latency(loss: float) -> None:
    ours, plain = play(loss, packets=10_000, seed=7)
    assert ours.missing <= 1.1 * 0.02 * ours.lost
    assert ours.worst_stall <= 0.15
    assert ours.added <= 0.001
    assert plain.missing > 3 * ours.missing  # why the buffer exists


@pytest.mark.parametrize(
    ("payload", "seconds"),
    [
        (b"", 0),
        (b"\x00", 0.01),
        (b"\x08", 0.02),
        (b"\x18", 0.06),
        (b"\x78", 0.02),
        (b"\x79", 0.04),
        (b"\x83\x04", 0.01),
        (b"\xff\xff", 0.12),
        (b"\xfb", 0.02),
    ],
)
def test_the_duration_of_an_opus_packet_is_read_from_its_header(payload: bytes, seconds: float) -> None:
    assert opus_seconds(payload) == pytest.approx(seconds)


def test_g711_has_8000_bytes_a_second() -> None:
    assert byte_seconds(bytes(160)) == 0.02


def test_the_first_frame_after_a_restart_does_not_claim_to_know_the_loss() -> None:
    jitter = Jitter()
    (first,) = jitter.push(Packet(1, 960, b"\xfc", 0.0))
    assert not first.anew
    assert jitter.push(Packet(20_000, 7, b"\xfc", 0.02)) == []
    anew = jitter.push(Packet(20_001, 967, b"\xfc", 0.04))
    assert [frame.anew for frame in anew] == [True, False]
