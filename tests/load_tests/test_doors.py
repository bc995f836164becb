"""What is told of doors, and that a door without a caption is wrong."""

from __future__ import annotations

from load_tests.doors import Arrival, told, verdict


def test_medians_are_told_by_door_and_one_without_a_caption_is_wrong() -> None:
    found = [Arrival("whip", 1.0, 3.0), Arrival("rtmp", 2.0, 5.0), Arrival("rtmp", 2.2, 4.0)]
    assert verdict(found) == []
    assert "| rtmp | 2     | 2.1         | 4.5              |" in told(found)
    assert verdict([Arrival("rtmp", 1.0, None)]) == ["rtmp was not captioned"]
    assert "none" in told([Arrival("rtmp", None, None)])
