"""Media time never jumps, whatever the timestamps do."""

from __future__ import annotations

import pytest

from streamsvc.ingest.timestamps import TrackClock


def test_missing_and_restarted_timestamps_are_bridged() -> None:
    track = TrackClock(start=5.0)
    assert track.place(5.0, 0.02) == 0.0
    assert track.place(None, 0.02) == pytest.approx(0.02)
    assert track.place(5.04, 0.02) == pytest.approx(0.04)
    assert track.place(95443.7, 0.02) == pytest.approx(0.06), (
        "a new time line continues at the end of the old one"
    )
    assert track.place(95443.72, 0.02) == pytest.approx(0.08)
    assert track.place(95444.72, 0.02) == pytest.approx(1.08), "a pause stays a pause"


def test_a_restart_continues_even_if_its_first_packet_has_no_pts() -> None:
    """GStreamer's RTSP server sends the first picture without a pts."""
    track = TrackClock(start=0.0)
    track.place(9.0, 0.04)
    track.restart(20.0, 0.0)
    assert track.place(None, 0.0) == 20.0
    assert track.place(0.04, 0.04) == pytest.approx(20.04)
