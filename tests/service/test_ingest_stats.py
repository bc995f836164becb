"""What a publisher sends is counted by track, and its rates are of the last whole seconds."""

from __future__ import annotations

import pytest

from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.service.ingest_stats import TrackStats


def frame(at: float, size: int = 100, *, gap: float = 0.0, keyframe: bool = False) -> EncodedFrame:
    return EncodedFrame("s", "main", at, 1000.0 + at, "video", bytes(size), "vp8", keyframe, gap)


def test_frames_bytes_gaps_and_rates_are_counted() -> None:
    counts = TrackStats(MediaTrack("video", "vp8"))
    for number in range(200):  # 25 a second for 8 s
        counts.count(frame(number / 25, keyframe=number % 50 == 0, gap=0.4 if number == 100 else 0.0))
    assert counts.body(1008.5, dropped=3) == {
        "codec": "vp8",
        "frames": 200,
        "bytes": 20_000,
        "keyframes": 4,
        "gaps": 1,
        "gap_seconds": 0.4,
        "dropped": 3,
        "frames_per_second": 25.0,
        "kbit_per_second": 20.0,
        "at": 7.96,
        "last_packet_age_seconds": pytest.approx(0.54),
    }
    assert counts.body(1060.0, 0)["frames_per_second"] == 0.0, "nothing has come for a while"
    assert len(counts._seconds) < 10


def test_a_new_track_has_a_rate_and_one_without_frames_has_none() -> None:
    counts = TrackStats(MediaTrack("audio", "opus"))
    empty = counts.body(1000.0, 0)
    assert (empty["frames"], empty["kbit_per_second"]) == (0, 0.0)
    assert "last_packet_age_seconds" not in empty
    assert "keyframes" not in empty
    counts.count(frame(0.1))
    assert counts.body(1000.3, 0)["frames_per_second"] == 1.0
