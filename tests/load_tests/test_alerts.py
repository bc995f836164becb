"""Alerts by faults: each alert has a fault or a reason, and what did not fire by its fault is told."""

from __future__ import annotations

from collections import Counter

import pytest

from load_tests.alert_plans import PLANS
from load_tests.alert_stage import merged
from load_tests.alerts import AT, PATIENCE, SERIES_ONLY, Fired, names, patience, table, verdict

FINE = Fired("StreamsvcDown", "a kill", seconds=5.0, silent=True)


def test_an_alert_that_fires_by_its_fault_is_fine() -> None:
    assert verdict([FINE]) == []


def test_an_alert_that_does_not_fire_or_fires_before_its_fault_is_wrong() -> None:
    assert verdict([FINE, Fired("A", "a fault", None, True)]) == ["A did not fire: a fault"]
    assert verdict([Fired("A", "a fault", 3.0, False)]) == ["A had fired before its fault: a fault"]
    assert len(verdict([Fired("A", "a fault", None, False)])) == 2


def test_a_run_without_results_is_wrong() -> None:
    assert verdict([]) == ["no fault was made"]


def test_each_alert_has_one_fault_or_a_reason_why_not() -> None:
    tried = Counter(alert for plan in PLANS for step in plan.steps for alert in step.alerts)
    assert set(tried.values()) == {1}
    assert {*tried, *SERIES_ONLY} == set(names())
    assert set(tried).isdisjoint(SERIES_ONLY)
    assert set(AT) <= set(tried)


@pytest.mark.parametrize(
    ("alert", "seconds"), [("StreamsvcDown", 4.0), ("StreamsvcLate", 20.0), ("StreamsvcRestarts", 240.0)]
)
def test_an_alert_is_waited_for_as_long_as_its_rule_takes(alert: str, seconds: float) -> None:
    assert patience(alert, 15.0) == PATIENCE + seconds


def test_the_table_has_every_alert_and_names_what_only_series_fire() -> None:
    told = table([FINE, Fired("StreamsvcLate", "a stop", None, False)])
    assert "| StreamsvcDown | a kill  | 5 " in told.replace("  |", " |").replace("a kill |", "a kill  |")
    assert "never" in told and "NO" in told
    assert all(alert in told for alert in SERIES_ONLY)


def test_later_settings_win_and_groups_are_put_together() -> None:
    assert merged({"a": {"x": 1, "y": 1}}, {"a": {"y": 2}, "b": {"z": 3}}) == {
        "a": {"x": 1, "y": 2},
        "b": {"z": 3},
    }
