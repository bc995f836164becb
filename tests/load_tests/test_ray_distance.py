"""The cost of distance is the difference of quantiles, and more than the goal is a missed promise."""

from __future__ import annotations

from load_tests.ray_distance import Distance, Times, added, quantile, table, wrong


def distance(later: float) -> Distance:
    near = Times([float(n) for n in range(100)], [5.0])
    return Distance({"process": near, "ray": Times([n + later for n in near.calls], [9.0])}, 10**9, 10**8)


def test_the_quantiles_are_of_the_steps() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0], 0.95) == 1.0
    assert added(distance(4.0), 0.95) == 4.0
    assert "Ray adds to a call: p50 4.0 ms, p95 4.0 ms" in table(distance(4.0))


def test_more_than_the_goal_is_a_missed_promise() -> None:
    assert wrong(distance(9.9)) == []
    assert "11.0 ms" in wrong(distance(11.0))[0]
