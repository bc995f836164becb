"""Costs as measured, and the fidelity of each degradation level."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.degradation import (
    ALL_LEVELS,
    Costs,
    Fidelity,
    WorkRate,
    fidelity,
    levels_in_use,
    reduced,
    working,
)


def test_defaults_hold_until_three_samples_replace_them() -> None:
    costs = Costs()
    usual = costs.of("see", "frame")
    for _ in range(2):
        costs = costs.add("see", "frame", 9.0)
    assert costs.of("see", "frame") == usual
    assert costs.add("see", "frame", 9.0).of("see", "frame") == 9.0


def test_a_cost_is_per_unit_and_zero_units_are_no_sample() -> None:
    costs = Costs()
    for _ in range(3):
        costs = costs.add("think", "token", 1.0, units=50)
    assert costs.of("think", "token") == pytest.approx(0.02)
    assert costs.add("think", "token", 5.0, units=0) == costs


def test_an_unknown_unit_is_an_error() -> None:
    with pytest.raises(KeyError):
        Costs().of("hear", "furlong")


@given(st.lists(st.floats(0.05, 0.1), min_size=3, max_size=40), st.integers(0, 39))
def test_a_single_stall_is_ignored(usual: list[float], position: int) -> None:
    costs = Costs()
    for seconds in [*usual[:position], 30.0, *usual[position:]]:
        costs = costs.add("hear", "step", seconds)
    assert costs.of("hear", "step") <= 0.12


def test_costs_follow_a_lasting_slowdown_and_its_end() -> None:
    costs = Costs()
    for _ in range(20):
        costs = costs.add("hear", "step", 0.1)
    for _ in range(3):
        costs = costs.add("hear", "step", 0.5)
    assert costs.of("hear", "step") == 0.5
    for _ in range(20):
        costs = costs.add("hear", "step", 0.1)
    assert costs.of("hear", "step") == 0.1


def test_each_level_adds_its_change_to_those_below() -> None:
    assert fidelity(0) == Fidelity()
    assert fidelity(1) == Fidelity(scenes=False), "a model that sees rests before anything of speech"
    assert fidelity(2) == Fidelity(scenes=False, step=0.7)
    assert fidelity(4) == Fidelity(step=0.7, whole_screen=True, keyframes=0.2, scenes=False)
    assert fidelity(5) == replace(fidelity(4), reading=False)
    assert fidelity(6) == replace(fidelity(5), questions=False)
    assert fidelity(7) == replace(fidelity(6), step=1.0, partials=False)


@pytest.mark.parametrize("level", [-1, 8])
def test_an_unknown_level_is_an_error(level: int) -> None:
    with pytest.raises(ValueError, match="levels are 0 to 7"):
        fidelity(level)


def test_levels_that_save_nothing_are_not_in_use() -> None:
    assert levels_in_use(screen_text=True, sight=True, reading=True) == ALL_LEVELS
    assert levels_in_use(screen_text=False, sight=True, reading=True) == (1, 2, 4, 5, 6, 7)
    assert levels_in_use(screen_text=True, sight=False, reading=True) == (2, 3, 4, 5, 6, 7)
    assert levels_in_use(screen_text=False, sight=False, reading=False) == (2, 4, 6, 7)


def test_every_level_is_told_in_words_and_those_out_of_use_are_not() -> None:
    assert reduced(0) == []
    assert len(reduced(7)) == 7
    assert reduced(5, (2, 4, 6, 7)) == ["captions come in longer steps", "fewer pictures are looked at"]
    for level in ALL_LEVELS:
        assert ("questions are refused" in reduced(level)) == ("questions" not in working(level))
        assert ("complete" in working(level)) == (not fidelity(level).partials)


def test_a_rate_of_work_follows_the_total_and_survives_a_restart_of_it() -> None:
    rate = WorkRate()
    for second in range(0, 20, 2):
        rate.add(second * 0.5, float(second))
    assert rate.value == pytest.approx(0.5, abs=0.01)
    rate.add(0.0, 20.0)  # another process counts from 0
    assert 0 <= rate.value < 0.3
