"""One stream of a track at a time: a new one is processed from its first packet, a layer beside it is not."""

from __future__ import annotations

import pytest

from streamsvc.ingest.stream_choice import KEPT, LAYER_SECONDS, OTHERS, StreamChoice

PERIOD = 0.02  # seconds between two packets


class Track:
    """A choice that is fed, with what it passed on as (ssrc, number of the packet)."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []
        self.choice = StreamChoice[tuple[int, int]](self.forgotten.append)
        self.passed: list[tuple[int, int]] = []
        self.now = 100.0

    def send(self, ssrc: int, first: int, count: int, period: float = PERIOD) -> None:
        for number in range(first, first + count):
            self.one(ssrc, number)
            self.now += period

    def one(self, ssrc: int, number: int) -> None:
        passed = self.choice.take(ssrc, (ssrc, number), self.now)
        assert all(stream == self.choice.ssrc for stream, _ in passed)
        self.passed += passed


def test_a_new_stream_without_a_goodbye_loses_nothing() -> None:
    track = Track()
    track.send(1, 0, 100)
    track.send(2, 0, 100)
    assert track.passed == [(1, n) for n in range(100)] + [(2, n) for n in range(100)]
    assert (track.choice.changes, track.choice.dropped, track.forgotten) == (1, 0, [1])


def test_it_is_known_a_tenth_of_a_second_after_the_last_packet() -> None:
    track = Track()
    track.send(1, 0, 100)
    last = track.now - PERIOD
    while track.choice.ssrc == 1:
        track.send(2, 0, 1)
    assert track.now - PERIOD - last <= 0.1 + PERIOD


def test_after_a_goodbye_it_is_known_at_once() -> None:
    track = Track()
    track.send(1, 0, 10)
    track.choice.goodbye(7)
    track.one(2, 0)
    track.choice.goodbye(1)
    track.one(2, 1)
    assert track.passed[10:] == [(2, 0), (2, 1)]


def test_late_packets_of_the_old_stream_do_not_hold_up_the_new_one() -> None:
    track = Track()
    track.send(1, 0, 8)
    for ssrc, number in ((2, 0), (1, 8), (2, 1), (1, 9), (2, 2)):
        track.one(ssrc, number)
        track.now += PERIOD
    track.send(2, 3, 20)
    assert [number for ssrc, number in track.passed if ssrc == 2] == list(range(23))


def test_a_stream_that_comes_back_is_new_again() -> None:
    track = Track()
    for ssrc in (1, 2, 1, 3, 1):
        track.send(ssrc, 0, 150)
    assert len(track.passed) == 5 * 150
    assert track.choice.changes == 4


@pytest.mark.parametrize("period", [0.005, 0.033, 0.2])
def test_layers_side_by_side_never_mix(period: float) -> None:
    track = Track()
    for number in range(200):
        for ssrc in (1, 2, 3):
            track.one(ssrc, number)
            track.now += period / 3
    changes = track.choice.changes
    assert changes <= 2, "while nothing is known of their pace"
    assert len({ssrc for ssrc, _ in track.passed[-150:]}) == 1
    assert track.choice.dropped >= 2 * 190


def test_a_layer_follows_after_two_seconds_of_silence() -> None:
    track = Track()
    for number in range(20):
        track.one(1, number)
        track.send(2, number, 1)
    silent = track.now - PERIOD
    while track.choice.ssrc == 1:
        track.send(2, 0, 1)
    assert track.now - PERIOD - silent == pytest.approx(LAYER_SECONDS, abs=PERIOD)
    track.send(2, 50, 3)
    assert [number for ssrc, number in track.passed if ssrc == 2] == [0, 50, 51, 52]


def test_a_stray_packet_changes_nothing() -> None:
    track = Track()
    track.send(1, 0, 10)
    track.one(9, 0)
    track.now += 5.0
    track.send(1, 10, 10)
    track.send(9, 1, 2)
    track.send(1, 20, 10)
    assert {ssrc for ssrc, _ in track.passed} == {1}


def test_what_is_kept_and_remembered_is_bounded() -> None:
    track = Track()
    track.one(1, 0)
    for number in range(KEPT + 10):
        track.one(2, number)
    assert track.choice.dropped == 10
    for ssrc in range(3, 3 + OTHERS):
        track.one(ssrc, 0)
    assert track.forgotten == [2], "the one that is longest silent"
    assert track.choice.dropped == 10 + KEPT
