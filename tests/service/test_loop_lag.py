"""Lag of the event loop: a delay counts as far as our own work explains it."""

from __future__ import annotations

import pytest

from streamsvc.service.loop_lag import LoopLag


def lag(*samples: tuple[float, float]) -> float:
    made = LoopLag()
    for late, computed in samples:
        made.add(late, computed)
    return made.seconds


def test_one_in_ten_samples_may_be_late() -> None:
    assert lag(*[(0.2, 0.2)] * 5, *[(0.001, 0.001)] * 45) == pytest.approx(0.001)
    assert lag(*[(0.2, 0.2)] * 6, *[(0.001, 0.001)] * 44) == pytest.approx(0.2)


def test_what_we_computed_nothing_in_is_the_delay_of_other_programs() -> None:
    assert lag(*[(0.5, 0.003)] * 50) == pytest.approx(0.003)
    assert lag(*[(-0.001, 0.09)] * 50) == 0.0


def test_too_few_samples_say_nothing_and_old_ones_are_forgotten() -> None:
    assert lag(*[(0.5, 0.5)] * 49) == 0.0
    assert lag(*[(0.5, 0.5)] * 49, *[(0.0, 0.0)] * 50) == 0.0
