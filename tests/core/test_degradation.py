from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.answers import deadline
from streamsvc.answers.deadline import plan
from streamsvc.core.degradation import TOP, Costs, Fidelity, fidelity, measured
from streamsvc.service.load_policy import CALM, LIMITS, PATIENT, TRIAL, Load, LoadState, admits, step

TICK = 0.5  # seconds between observations
LATE, FINE, BETWEEN = Load(backlog=1.0), Load(), Load(backlog=0.6)


def climbed(loads: list[Load], ladder: LoadState | None = None, start: float = 1000.0) -> list[LoadState]:
    """The ladder after each of some observations, a tick apart."""
    ladder, seen = ladder or LoadState(), []
    for number, load in enumerate(loads):
        ladder = step(ladder, load, start + number * TICK)
        seen.append(ladder)
    return seen


def changes(seen: list[LoadState]) -> int:
    return sum(a.level != b.level for a, b in pairwise(seen))


# --- costs ---


def test_usual_rates_hold_until_three_measurements_replace_them() -> None:
    costs = Costs()
    usual = costs.of("see", "frame")
    for _ in range(2):
        costs = measured(costs, "see", "frame", 9.0)
    assert costs.of("see", "frame") == usual
    assert measured(costs, "see", "frame", 9.0).of("see", "frame") == 9.0


def test_a_cost_is_of_one_unit_and_no_unit_tells_nothing() -> None:
    costs = Costs()
    for _ in range(3):
        costs = measured(costs, "think", "token", 1.0, units=50)
    assert costs.of("think", "token") == pytest.approx(0.02)
    assert measured(costs, "think", "token", 5.0, units=0) == costs


def test_an_unknown_unit_is_an_error() -> None:
    with pytest.raises(KeyError):
        Costs().of("hear", "furlong")


@given(st.lists(st.floats(0.05, 0.1), min_size=3, max_size=40), st.integers(0, 39))
def test_one_stall_is_never_believed(usual: list[float], where: int) -> None:
    costs = Costs()
    for seconds in [*usual[:where], 30.0, *usual[where:]]:
        costs = measured(costs, "hear", "step", seconds)
    assert costs.of("hear", "step") <= 0.12


def test_what_stays_slow_is_believed_and_what_has_become_fast_again_too() -> None:
    costs = Costs()
    for _ in range(20):
        costs = measured(costs, "hear", "step", 0.1)
    for _ in range(3):
        costs = measured(costs, "hear", "step", 0.5)
    assert costs.of("hear", "step") == 0.5
    for _ in range(20):
        costs = measured(costs, "hear", "step", 0.1)
    assert costs.of("hear", "step") == 0.1


# --- plans ---


@given(
    st.floats(-1.0, 5.0),
    st.integers(0, 4096),
    st.booleans(),
    st.floats(0.0001, 0.01),
    st.floats(0.001, 0.2),
    st.floats(0.01, 1.0),
)
def test_what_is_planned_ends_before_the_deadline(
    left: float, window: int, keyframe: bool, read: float, write: float, frame: float
) -> None:
    costs = Costs(
        {("think", "prompt"): (read,) * 3, ("think", "token"): (write,) * 3, ("see", "frame"): (frame,) * 3}
    )
    planned = plan(costs, 100.0, 100.0 + left, window=window, keyframe=keyframe)
    looked = frame if planned.keyframe_wait else 0.0
    spent = planned.keyframe_wait + looked + planned.window_tokens * read + planned.phrase_tokens * write
    assert not planned.fits or spent <= left + 1e-6
    assert planned.keyframe_wait <= deadline.KEYFRAME_WAIT
    assert planned.window_tokens <= window
    assert planned.fits or planned.phrase_tokens == 0


def test_what_cannot_be_in_time_is_not_started_and_says_so() -> None:
    planned = plan(Costs(), 10.0, 10.01, window=400)
    assert not planned.fits
    assert planned.left_out == ("answer",)


def test_a_short_deadline_quotes_the_evidence_without_a_phrase() -> None:
    planned = plan(Costs(), 10.0, 10.2, window=400)
    assert planned.fits
    assert planned.left_out == ("phrase",)


def test_a_shortened_window_is_said() -> None:
    planned = plan(Costs(), 10.0, 10.5, window=400)
    assert 64 <= planned.window_tokens < 400
    assert planned.left_out == ("window",)


def test_a_usual_deadline_leaves_nothing_out() -> None:
    planned = plan(Costs(), 10.0, 13.0, window=400, keyframe=True)
    assert planned.left_out == ()
    assert (planned.keyframe_wait, planned.window_tokens, planned.phrase_tokens) == (0.3, 400, 48)


# --- the ladder ---


def test_the_first_late_caption_spends_a_level_at_once() -> None:
    assert climbed([LATE])[0].level == 1
    assert climbed([LATE])[0].reason == "speech waits for recognition"


@pytest.mark.parametrize(("load", "seconds"), [(LATE, 12.0), (Load(backlog=9.0), 6.0)])
def test_the_top_is_reached_fast_and_never_by_more_than_one_level_at_once(load: Load, seconds: float) -> None:
    seen = climbed([load] * 40)
    reached = next(number for number, ladder in enumerate(seen) if ladder.level == TOP)
    assert reached * TICK == seconds
    assert all(abs(a.level - b.level) <= 1 for a, b in pairwise(seen))
    assert seen[-1].level == TOP


def test_a_level_is_given_back_after_the_stated_calm_and_no_sooner() -> None:
    up = climbed([LATE])[-1]
    seen = climbed([FINE] * 21, up, 1000.5)
    assert [ladder.level for ladder in seen] == [1] * 20 + [0]
    assert 20 * TICK == CALM
    assert seen[-1].reason == ""


def test_between_the_limits_nothing_changes_and_calm_begins_anew() -> None:
    up = climbed([LATE])[-1]
    seen = climbed([*[FINE] * 15, BETWEEN, *[FINE] * 20], up, 1000.5)
    assert {ladder.level for ladder in seen} == {1}


@pytest.mark.parametrize("name", LIMITS)
def test_each_strain_goes_as_far_as_it_can_be_helped_and_no_farther(name: str) -> None:
    limit = LIMITS[name]
    seen = climbed([replace(FINE, **{name: limit.high * 1.1})] * 100)
    assert seen[-1].level == limit.most
    assert seen[-1].reason == limit.reason


def test_a_full_processor_alone_spends_nothing_and_nothing_is_given_back_to_it() -> None:
    full = replace(FINE, cpu=1.0)
    assert climbed([full] * 100)[-1].level == 0
    assert climbed([full] * 100, climbed([LATE])[-1], 1000.5)[-1].level == 1


def test_a_level_that_proves_too_low_is_tried_again_after_twice_the_calm() -> None:
    again = climbed([*[FINE] * 21, LATE], climbed([LATE])[-1], 1000.5)[-1]
    assert (again.level, again.missed, again.patience) == (1, 0, 2 * CALM)
    assert [ladder.level for ladder in climbed([FINE] * 41, again, 1012.0)] == [1] * 40 + [0]


def test_a_level_that_held_is_forgiven() -> None:
    again = climbed([*[FINE] * 21, LATE], climbed([LATE])[-1], 1000.5)[-1]
    seen = climbed([FINE] * int((2 * CALM + TRIAL) / TICK + 1), again, 1012.0)
    assert (seen[-2].missed, seen[-1].missed, seen[-1].patience) == (0, -1, CALM)


loads = st.builds(Load, *(st.floats(0.0, 3.0) for _ in range(3)), st.floats(0.0, 1.0))


@settings(deadline=None)
@given(st.lists(loads, max_size=200))
def test_it_always_recovers_from_whatever_it_was(before: list[Load]) -> None:
    ladder = climbed(before)[-1] if before else LoadState()
    seen = climbed([FINE] * int((PATIENT + TRIAL + TOP * (CALM + TICK)) / TICK + 1), ladder, 5000.0)
    assert seen[-1].level == 0


@settings(deadline=None, max_examples=25)  # an hour each
@given(st.floats(0.0, 7.0), st.floats(0.1, 1.0))
def test_a_steady_load_that_one_level_can_bear_does_not_flap(need: float, eases: float) -> None:
    """Levels at or above `need` drain the backlog, those below let it grow; an hour of it."""
    ladder, backlog, seen = LoadState(), 0.0, []
    for number in range(7200):
        backlog = min(20.0, max(0.0, backlog + TICK * (eases if ladder.level < need else -eases)))
        ladder = step(ladder, Load(backlog=backlog), 1000.0 + number * TICK)
        seen.append(ladder)
    assert changes(seen[-1200:]) <= 20  # of the last ten minutes
    assert max(ladder.level for ladder in seen) >= need  # it never starves: what is needed is given


@settings(deadline=None)
@given(st.lists(st.sampled_from([LATE, FINE, BETWEEN]), min_size=1, max_size=12), st.integers(60, 200))
def test_the_level_changes_a_bounded_number_of_times_for_each_change_of_the_load(
    phases: list[Load], ticks: int
) -> None:
    seen = climbed([load for load in phases for _ in range(ticks)])
    assert changes([LoadState(), *seen]) <= TOP * len(phases)


# --- what a level means ---


def test_each_level_spends_what_the_design_says_and_keeps_what_was_spent_below() -> None:
    assert fidelity(0) == Fidelity()
    assert fidelity(1) == Fidelity(step=0.7)
    assert fidelity(4) == Fidelity(step=0.7, whole_screen=True, keyframes=0.2, scenes=False)
    assert fidelity(6) == replace(fidelity(4), window_tokens=150, questions=False)
    assert fidelity(7) == replace(fidelity(6), step=1.0, partials=False)


@pytest.mark.parametrize("level", [-1, 8])
def test_a_level_that_is_none_is_an_error(level: int) -> None:
    with pytest.raises(ValueError, match="levels 0 to 7"):
        fidelity(level)


# --- admission ---


def test_the_first_session_always_comes_in() -> None:
    assert admits(LoadState(level=3), 1.0, live=0)


def test_nobody_comes_in_while_fidelity_is_spent() -> None:
    assert admits(LoadState(), 0.25, live=1)
    assert not admits(LoadState(level=1), 0.25, live=1)


def test_a_session_for_which_the_processor_has_no_room_is_refused_before_it_makes_others_late() -> None:
    assert admits(LoadState(), 0.6, live=2)
    assert not admits(LoadState(), 0.7, live=2)
