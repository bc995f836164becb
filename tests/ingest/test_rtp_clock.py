from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.ingest.rtp_clock import Sync

RATES = {"audio": 48_000, "video": 90_000}


def test_a_track_follows_its_own_clock_and_not_the_jitter_of_arrival() -> None:
    chance = random.Random(1)
    sync = Sync(100.0, {"audio": 48_000})
    times = [sync.at("audio", n * 960, 100.0 + n * 0.02 + chance.uniform(0, 0.03)) for n in range(500)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0.017 < step < 0.021 for step in steps)
    assert times[-1] == pytest.approx(499 * 0.02, abs=0.02)


def test_sender_reports_put_video_on_the_audio_s_clock() -> None:
    chance = random.Random(2)
    sync = Sync(0.0, RATES)
    late = 0.25  # seconds that the network or the encoder keeps the video back
    apart = []
    for n in range(1000):
        spoken = n * 0.02
        audio = sync.at("audio", (12_345 + n * 960) % 2**32, spoken)
        video = sync.at("video", (2**32 - 5000 + n * 1800) % 2**32, spoken + late)
        if n % 50 == 49:
            sync.report("audio", 3e9 + spoken + chance.uniform(-0.015, 0.016), (12_345 + n * 960) % 2**32)
            sync.report("video", 3e9 + spoken, (2**32 - 5000 + n * 1800) % 2**32)
        apart.append(video - audio)
    assert apart[10] == pytest.approx(late, abs=0.01)
    assert sync.shared
    assert all(abs(difference) < 0.02 for difference in apart[300:])


def test_timestamps_wrap() -> None:
    sync = Sync(0.0, {"video": 90_000})
    times = [sync.at("video", (2**32 - 9000 + n * 3000) % 2**32, n / 30) for n in range(30)]
    assert times == pytest.approx([n / 30 for n in range(30)], abs=1e-6)


def test_a_new_rtp_base_goes_on_where_arrival_is() -> None:
    sync = Sync(0.0, {"audio": 48_000})
    for n in range(100):
        sync.at("audio", n * 960, n * 0.02)
    assert sync.at("audio", 3_000_000_000, 5.0) == pytest.approx(5.0)


def test_a_sender_whose_clock_stood_still_is_mended_within_seconds() -> None:
    sync = Sync(0.0, {"audio": 48_000})
    for n in range(100):
        sync.at("audio", n * 960, n * 0.02)
    at = 0.0
    for n in range(100, 300):
        at = sync.at("audio", n * 960, n * 0.02 + 10)
    assert at == pytest.approx(299 * 0.02 + 10, abs=0.01)


def test_a_network_that_stood_still_moves_nothing() -> None:
    sync = Sync(0.0, {"audio": 48_000})
    for n in range(400):
        at = sync.at("audio", n * 960, max(n * 0.02, 6.0 if n >= 200 else 0.0))
        assert at == pytest.approx(n * 0.02, abs=0.005)


def test_a_republish_continues_the_session_s_time() -> None:
    assert Sync(50.0, {"audio": 48_000}).at("audio", 777, 50.0 + 123.0) == 123.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["audio", "video"]), st.booleans(), st.integers(0, 2**32 - 1), st.floats(0, 5)
        ),
        max_size=100,
    )
)
def test_time_never_goes_back_within_a_track(events: list[tuple[str, bool, int, float]]) -> None:
    sync = Sync(0.0, RATES)
    now = 0.0
    last = {"audio": float("-inf"), "video": float("-inf")}
    for kind, is_report, timestamp, pause in events:
        now += pause
        if is_report:
            sync.report(kind, 3e9 + now, timestamp)
        else:
            at = sync.at(kind, timestamp, now)
            assert at >= last[kind]
            last[kind] = at
