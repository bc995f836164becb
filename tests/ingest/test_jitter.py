from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.packet_loss import play
from streamsvc.ingest.jitter import (
    LONGEST_WAIT,
    MAX_WAITING,
    Frame,
    Jitter,
    Packet,
    byte_seconds,
    opus_seconds,
)

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
    jitter.push(packet(1))
    assert jitter.push(packet(3)) + jitter.push(packet(4)) == []
    frames = jitter.push(packet(5))
    assert order(frames) == [3, 4, 5]
    assert [round(frame.lost, 6) for frame in frames] == [0.02, 0.0, 0.0]
    assert jitter.counts.lost == 1
    assert order(jitter.push(packet(6))) == [6]  # no lasting latency


Link = tuple[list[tuple[int, float]], int]


def link(loss: float, spread: float, seed: int) -> Link:
    """What arrives of 4000 packets, each late by a random part of `spread` seconds; and how many are lost."""
    rng = random.Random(seed)
    sent = [(n, n * 0.02 + rng.uniform(0, spread if n else 0)) for n in range(4000) if rng.random() >= loss]
    return sorted(sent, key=lambda one: one[1]), 4000 - len(sent)


def listen(arrivals: list[tuple[int, float]]) -> tuple[Jitter, list[float]]:
    """The buffer after these packets, and how many seconds each of its frames waited in it."""
    jitter, waits = Jitter(), list[float]()
    for n, at in arrivals:
        waits += [at - frame.arrived for frame in jitter.push(packet(n, at))]
    return jitter, waits


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.1, 0.15, 0.2])
@pytest.mark.parametrize("seed", [1, 2])
def test_only_lost_packets_count_as_lost_where_the_delay_varies(spread: float, seed: int) -> None:
    arrivals, lost = link(0.05, spread, seed)
    jitter, waits = listen(arrivals)
    assert lost > 150
    # Those of the first moments come before it is known by how much the delay varies.
    assert jitter.counts.late <= 5
    assert jitter.counts.lost <= lost + 5
    assert max(waits) <= max(0.06, LONGEST_WAIT) + 0.1


def test_packets_in_order_wait_for_nothing_where_the_delay_varies() -> None:
    _, waits = listen([(n, max(n * 0.02, n // 10 * 0.2 + 0.15)) for n in range(2000)])  # in bursts
    assert max(waits) == 0


def test_a_loss_where_the_delay_is_steady_waits_for_three_packets_alone() -> None:
    arrivals, lost = link(0.05, 0.005, 3)
    _, waits = listen(arrivals)
    stalls = [wait for wait in waits if wait > 0]
    assert len(stalls) > lost
    assert sorted(stalls)[len(stalls) * 9 // 10] <= 0.065


def test_the_wait_is_bounded_however_late_packets_come() -> None:
    jitter = Jitter()
    jitter.push(packet(1, 0.0))
    jitter.push(packet(0, 5.0))  # late by five seconds
    times = [5.0 + 0.02 * n for n in range(3, 20)]
    came = [at for n, at in enumerate(times, 3) if jitter.push(packet(n, at))]
    assert came[0] - times[0] == pytest.approx(LONGEST_WAIT, abs=0.021)


def test_packets_that_came_too_late_count_for_the_next_wait() -> None:
    jitter, late = Jitter(), list[int]()
    for n in range(0, 600, 6):  # of six packets the first comes 110 ms late: after the others, or lost
        before = jitter.counts.late
        for other in range(n + 1, n + 6):
            jitter.push(packet(other))
        jitter.push(packet(n, n * 0.02 + 0.11))
        late.append(jitter.counts.late - before)
    assert sum(late) == late[0] + late[1] <= 2


def test_few_packets_wait_behind_a_hole_however_fast_they_come() -> None:
    jitter = Jitter()
    jitter.push(packet(1, 0.0))
    jitter.push(packet(0, 5.0))
    assert not any(jitter.push(packet(n, 5.0)) for n in range(3, MAX_WAITING + 2))
    assert len(jitter.push(packet(MAX_WAITING + 2, 5.0))) == MAX_WAITING


def test_another_stream_does_not_wait_for_the_delays_of_the_last_one() -> None:
    jitter = Jitter()
    jitter.push(packet(1, 0.0))
    jitter.push(packet(0, 5.0))
    jitter.reset()
    assert order(feed(jitter, [101, 103, 104, 105])) == [101, 103, 104, 105]


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
        assert len(jitter._waiting) < MAX_WAITING
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
