"""Decoding steps are counted by whether reading along was on."""

from __future__ import annotations

from typing import Any

import pytest

from load_tests.reading_along import figures, is_on, table, waits


def caption(received: float, queue: float, **more: Any) -> dict[str, Any]:
    return {
        "type": "caption.partial",
        "received": received,
        "stages": {"queue": queue, "asr": 100.0},
        **more,
    }


@pytest.mark.parametrize(
    ("second", "on"), [(0.5, None), (5.0, True), (15.2, None), (20.0, False), (31.6, True)]
)
def test_slices_take_turns_and_their_beginnings_do_not_count(second: float, on: bool | None) -> None:
    assert is_on(second, 15.0) is on


def test_waits_of_both_are_kept_apart() -> None:
    events = [
        caption(5.0, 40.0),
        caption(6.0, 20.0, type="caption.final"),
        caption(20.0, 10.0),
        caption(15.1, 9999.0),
        caption(7.0, 0.0, stages={}),
        {"type": "sight.ready", "received": 5.0},
    ]
    of = figures(waits(events, 15.0))
    assert (of["on"]["n"], of["off"]["n"]) == (2, 1)
    assert of["on"]["queue_p50"] == 0.03
    assert of["off"]["queue_p95"] == 0.01
    assert "| off | 1 | 0.010 / 0.010 | 0.100 / 0.100 |" in " ".join(table(of).split())
    assert figures(waits([], 15.0))["on"] == {"n": 0}
    assert "-" in table(figures(waits([], 15.0)))
