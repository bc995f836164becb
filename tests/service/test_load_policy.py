"""Levels rise with backlog at once and fall after calm; admission refuses before sessions are late."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.degradation import ALL_LEVELS, MAX_LEVEL
from streamsvc.service.load_policy import (
    FAILOVER,
    FORCED,
    LIMITS,
    MAX_RECOVERY,
    OTHERS,
    OUTAGES,
    PROBATION,
    RECOVERING,
    RECOVERY,
    Load,
    LoadState,
    described,
    process_reason,
    reason,
    step,
)

TICK = 0.5  # seconds between measurements
LATE, FINE, BETWEEN = Load(backlog=1.0), Load(), Load(backlog=0.6)


def states(loads: list[Load], state: LoadState | None = None, start: float = 1000.0) -> list[LoadState]:
    """The state after each of several loads, measured a tick apart."""
    state = state or LoadState()
    history = []
    for number, load in enumerate(loads):
        state = step(state, load, start + number * TICK)
        history.append(state)
    return history


def level_changes(history: list[LoadState]) -> int:
    return sum(a.level != b.level for a, b in pairwise(history))


def test_overload_raises_the_level_at_once() -> None:
    assert states([LATE])[0].level == 1
    assert states([LATE])[0].cause == "backlog"


@pytest.mark.parametrize(("load", "seconds"), [(LATE, 12.0), (Load(backlog=9.0), 6.0)])
def test_the_highest_level_is_reached_fast_and_one_level_at_a_time(load: Load, seconds: float) -> None:
    history = states([load] * 40)
    reached = next(number for number, state in enumerate(history) if state.level == MAX_LEVEL)
    assert reached * TICK == seconds
    assert all(abs(a.level - b.level) <= 1 for a, b in pairwise(history))
    assert history[-1].level == MAX_LEVEL


def test_the_level_is_lowered_after_the_recovery_time_and_no_sooner() -> None:
    up = states([LATE])[-1]
    history = states([FINE] * 21, up, 1000.5)
    assert [state.level for state in history] == [1] * 20 + [0]
    assert 20 * TICK == RECOVERY
    assert history[-1].cause == ""


def test_between_the_watermarks_the_level_holds_and_calm_restarts() -> None:
    up = states([LATE])[-1]
    history = states([*[FINE] * 15, BETWEEN, *[FINE] * 20], up, 1000.5)
    assert {state.level for state in history} == {1}


@pytest.mark.parametrize("name", LIMITS)
def test_each_wait_raises_the_level_as_far_as_that_relieves_it(name: str) -> None:
    limit = LIMITS[name]
    history = states([replace(FINE, **{name: limit.high * 1.1})] * 100)
    assert history[-1].level == limit.max_level
    assert history[-1].cause == name


@pytest.mark.parametrize("levels", [(1, 3, 6, 7), (1, 2, 3, 5, 6, 7), ALL_LEVELS])
def test_levels_that_save_nothing_are_stepped_over_both_ways(levels: tuple[int, ...]) -> None:
    state, seen = LoadState(), [0]
    for number in range(400):
        state = step(state, LATE if number < 60 else FINE, 1000.0 + number * TICK, levels)
        if state.level != seen[-1]:
            seen.append(state.level)
    assert seen == [0, *levels, *reversed(levels[:-1]), 0]


@pytest.mark.parametrize(("name", "top"), [("see_wait", 3), ("think_wait", 6)])
def test_a_wait_that_no_level_in_use_relieves_raises_nothing(name: str, top: int) -> None:
    state = LoadState()
    for number in range(100):
        state = step(state, replace(FINE, **{name: 9.0}), 1000.0 + number * TICK, (1, 3, 6, 7))
    assert state.level == top


def test_the_reason_told_is_true_of_the_session_that_is_told() -> None:
    raised = states([Load(backlog=1.0)])[-1]
    assert reason(raised, Load(backlog=1.0)) == LIMITS["backlog"].reason
    assert reason(raised, Load()) == reason(raised, Load(see_wait=9.0)) == OTHERS, "a silent film"
    for name, limit in LIMITS.items():
        slow = replace(FINE, **{name: 9.0})
        assert reason(states([slow])[-1], slow) == limit.reason
    lowered = states([FINE] * 21, states([LATE] * 8)[-1], 1004.0)[-1]
    assert lowered.level
    assert reason(lowered, Load()) == RECOVERING
    assert reason(LoadState(), Load(backlog=9.0)) == ""
    assert reason(LoadState(5), Load(backlog=9.0)) == FORCED


def test_a_failed_level_is_tried_again_after_twice_the_calm() -> None:
    again = states([*[FINE] * 21, LATE], states([LATE])[-1], 1000.5)[-1]
    assert (again.level, again.failed_level, again.backoff) == (1, 0, 2 * RECOVERY)
    assert [state.level for state in states([FINE] * 41, again, 1012.0)] == [1] * 40 + [0]


def test_the_backoff_is_reset_once_a_level_has_held() -> None:
    again = states([*[FINE] * 21, LATE], states([LATE])[-1], 1000.5)[-1]
    history = states([FINE] * int((2 * RECOVERY + PROBATION) / TICK + 1), again, 1012.0)
    assert (history[-2].failed_level, history[-1].failed_level, history[-1].backoff) == (0, -1, RECOVERY)


loads = st.builds(Load, *(st.floats(0.0, 3.0) for _ in range(3)))


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(loads, max_size=200))
def test_every_state_recovers(before: list[Load]) -> None:
    state = states(before)[-1] if before else LoadState()
    history = states(
        [FINE] * int((MAX_RECOVERY + PROBATION + MAX_LEVEL * (RECOVERY + TICK)) / TICK + 1), state, 5000.0
    )
    assert history[-1].level == 0


@pytest.mark.slow
@settings(deadline=None, max_examples=25)  # an hour each
@given(st.floats(0.0, 7.0), st.floats(0.1, 1.0))
def test_a_steady_load_that_one_level_can_bear_does_not_flap(need: float, eases: float) -> None:
    """Levels at or above `need` drain the backlog, those below let it grow; an hour of it."""
    state, backlog, history = LoadState(), 0.0, []
    for number in range(7200):
        backlog = min(20.0, max(0.0, backlog + TICK * (eases if state.level < need else -eases)))
        state = step(state, Load(backlog=backlog), 1000.0 + number * TICK)
        history.append(state)
    assert level_changes(history[-1200:]) <= 20  # of the last ten minutes
    assert max(state.level for state in history) >= need  # the level that the load needs is reached


@settings(deadline=None)
@given(st.lists(st.sampled_from([LATE, FINE, BETWEEN]), min_size=1, max_size=12), st.integers(60, 200))
def test_the_level_changes_a_bounded_number_of_times_for_each_change_of_the_load(
    phases: list[Load], ticks: int
) -> None:
    history = states([load for load in phases for _ in range(ticks)])
    assert level_changes([LoadState(), *history]) <= MAX_LEVEL * len(phases)


def test_every_reason_has_a_message_of_what_is_late_what_is_reduced_and_what_works() -> None:
    for limit in LIMITS.values():
        told = described(4, limit.reason, (2, 4, 6, 7))
        assert (told["level"], told["reason"]) == (4, limit.reason)
        assert told["reduced"] == ["captions come in longer steps", "fewer pictures are looked at"]
        cause = f"{limit.message[0].upper()}{limit.message[1:]}"
        assert told["message"] == (
            f"{cause}. For now, captions come in longer steps; fewer pictures are looked at. "
            "Still working: captions, pictures and questions."
        )
    for known in (OTHERS, RECOVERING, FORCED):
        message = described(7, known)["message"]
        assert known not in message, "words for users"
        assert "questions are refused" in message
    assert described(0, "recovered")["message"] == "Nothing is reduced: this machine keeps up."
    assert described(1, "")["message"].startswith("This machine is busy. For now, ")


def test_the_reason_of_the_process_names_its_cause_whoever_asks() -> None:
    assert process_reason(states([LATE])[-1]) == LIMITS["backlog"].reason
    assert process_reason(LoadState()) == ""


def test_failover_that_is_off_is_told_with_what_it_means() -> None:
    told = described(0, FAILOVER)
    assert told["level"] == 0
    assert told["message"].startswith("Failover is off: Redis")
    assert "may be lost" in told["message"]
    assert "follows late" not in told["message"]  # nothing is late


@pytest.mark.parametrize("level", [0, 3])
def test_an_outage_is_told_in_words_at_any_level(level: int) -> None:
    told = described(level, OUTAGES["hear"])
    assert told["level"] == level
    assert told["message"].startswith("Speech recognition is being restarted.")
