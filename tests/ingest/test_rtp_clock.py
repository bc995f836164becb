from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.ingest.rtp_clock import RtpClock

RATES = {"audio": 48_000, "video": 90_000}


def test_a_track_follows_its_own_clock_and_not_the_jitter_of_arrival() -> None:
    chance = random.Random(1)
    rtp = RtpClock(100.0, {"audio": 48_000})
    times = [rtp.at("audio", n * 960, 100.0 + n * 0.02 + chance.uniform(0, 0.03)) for n in range(500)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0.017 < step < 0.021 for step in steps)
    assert times[-1] == pytest.approx(499 * 0.02, abs=0.02)


def test_sender_reports_map_video_to_the_audio_clock() -> None:
    chance = random.Random(2)
    rtp = RtpClock(0.0, RATES)
    late = 0.25  # seconds by which the network or the encoder delays the video
    apart = []
    for n in range(1000):
        spoken = n * 0.02
        audio = rtp.at("audio", (12_345 + n * 960) % 2**32, spoken)
        video = rtp.at("video", (2**32 - 5000 + n * 1800) % 2**32, spoken + late)
        if n % 50 == 49:
            rtp.report("audio", 3e9 + spoken + chance.uniform(-0.015, 0.016), (12_345 + n * 960) % 2**32)
            rtp.report("video", 3e9 + spoken, (2**32 - 5000 + n * 1800) % 2**32)
        apart.append(video - audio)
    assert apart[10] == pytest.approx(late, abs=0.01)
    assert rtp.shared
    assert all(abs(difference) < 0.02 for difference in apart[300:])


def test_timestamps_wrap() -> None:
    rtp = RtpClock(0.0, {"video": 90_000})
    times = [rtp.at("video", (2**32 - 9000 + n * 3000) % 2**32, n / 30) for n in range(30)]
    assert times == pytest.approx([n / 30 for n in range(30)], abs=1e-6)


def test_a_new_rtp_base_continues_at_the_arrival() -> None:
    rtp = RtpClock(0.0, {"audio": 48_000})
    for n in range(100):
        rtp.at("audio", n * 960, n * 0.02)
    assert rtp.at("audio", 3_000_000_000, 5.0) == pytest.approx(5.0)


def test_a_sender_whose_clock_stood_still_is_corrected_within_seconds() -> None:
    rtp = RtpClock(0.0, {"audio": 48_000})
    for n in range(100):
        rtp.at("audio", n * 960, n * 0.02)
    at = 0.0
    for n in range(100, 300):
        at = rtp.at("audio", n * 960, n * 0.02 + 10)
    assert at == pytest.approx(299 * 0.02 + 10, abs=0.01)


def test_a_network_stall_does_not_move_the_clock() -> None:
    rtp = RtpClock(0.0, {"audio": 48_000})
    for n in range(400):
        at = rtp.at("audio", n * 960, max(n * 0.02, 6.0 if n >= 200 else 0.0))
        assert at == pytest.approx(n * 0.02, abs=0.005)


def test_a_republish_continues_the_session_s_time() -> None:
    assert RtpClock(50.0, {"audio": 48_000}).at("audio", 777, 50.0 + 123.0) == 123.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["audio", "video"]), st.booleans(), st.integers(0, 2**32 - 1), st.floats(0, 5)
        ),
        max_size=100,
    )
)
def test_time_never_goes_back_within_a_track(events: list[tuple[str, bool, int, float]]) -> None:
    rtp = RtpClock(0.0, RATES)
    now = 0.0
    last = {"audio": float("-inf"), "video": float("-inf")}
    for kind, is_report, timestamp, pause in events:
        now += pause
        if is_report:
            rtp.report(kind, 3e9 + now, timestamp)
        else:
            at = rtp.at(kind, timestamp, now)
            assert at >= last[kind]
            last[kind] = at


@pytest.mark.parametrize("wild", [3e9 + 40_000.0, 3e9 - 40_000.0, 0.0])
def test_a_report_that_cannot_be_does_not_move_the_pictures(wild: float) -> None:
    rtp = RtpClock(0.0, RATES)
    for n in range(500):
        spoken = n * 0.02
        rtp.at("audio", n * 960, spoken)
        assert rtp.at("video", n * 1800, spoken) == pytest.approx(spoken, abs=0.05)
        if n % 50 == 49:
            rtp.report("audio", 3e9 + spoken, n * 960)
            rtp.report("video", wild if n == 149 else 3e9 + spoken, n * 1800)


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_many_small_jumps_ahead_do_not_take_the_time_away_from_arrival(kind: str) -> None:
    rtp = RtpClock(0.0, RATES)
    stamp, ahead = 0, 0.0
    for n in range(400):  # 0.4 s in every frame of 20 ms
        stamp += round(0.4 * RATES[kind])
        ahead = max(ahead, rtp.at(kind, stamp, n * 0.02) - n * 0.02)
    assert ahead < 4.0
    for n in range(400, 800):  # a sender whose clock goes right again
        stamp += round(0.02 * RATES[kind])
        at = rtp.at(kind, stamp, n * 0.02)
    assert at == pytest.approx(799 * 0.02, abs=1.0)
