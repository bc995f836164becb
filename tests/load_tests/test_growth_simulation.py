"""Growth without a Redis: costs between and beyond what was measured, and a cluster on a virtual clock."""

from __future__ import annotations

import pytest

from load_tests.growth import Figures, breaks_at, modelled, table, verdict
from load_tests.growth_redis import Cost, Point
from load_tests.growth_simulation import Costs, Rates, Simulation, load, look_seconds

OPS = ("nodes", "append", "live", "follow", "claim, release")
RATES = Rates(durable=2.0, live=3.0, followed=0.5)


def point(nodes: int, heartbeat: float, other: float = 0.05) -> Point:
    """Costs in milliseconds of Redis' time."""
    costs = {name: Cost(name, other, 1.0, 2.0) for name in OPS}
    return Point(
        nodes, nodes * 8, nodes * 80, 10**6, 500.0, 900.0,
        {"heartbeat": Cost("heartbeat", heartbeat, 1.0, 2.0), **costs},
    )  # fmt: skip


def test_costs_lie_between_the_points_and_go_on_as_the_last_two() -> None:
    costs = Costs([point(1, 0.1), point(10, 0.2), point(100, 1.1)])
    assert [1000 * costs.of("heartbeat", nodes) for nodes in (1, 55, 100, 200)] == pytest.approx(
        [0.1, 0.65, 1.1, 2.1]
    )
    assert Costs([point(1, 0.1)]).of("heartbeat", 50) == pytest.approx(0.0001)
    # Less at the last point is chance: beyond it nothing gets cheaper.
    assert Costs([point(1, 0.3), point(10, 0.2)]).of("heartbeat", 1000) == pytest.approx(0.0002)


def test_the_load_is_what_the_nodes_ask_and_tells_what_it_is_for() -> None:
    one = load(Costs([point(1, 1.0)]), 10, 8, RATES)
    # Ten nodes: a heartbeat of 1 ms, 16 events, 12 ephemeral ones and 10 reads of 0.05 ms each second.
    assert one.shares == pytest.approx(
        {"heartbeat": 0.01, "nodes": 0.0005, "append": 0.008, "live": 0.006, "follow": 0.005}
    )
    assert one.operations == pytest.approx(10 * (1 + 1 + 16 + 12 + 10))
    assert load(Costs([point(1, 1.0)]), 10, 8, Rates(2.0, 3.0, 0.0)).shares["follow"] == 0.0


def test_nodes_look_at_each_other_the_less_often_the_more_they_are() -> None:
    assert [look_seconds(nodes) for nodes in (1, 50, 1000)] == [1.0, 1.0, 20.0]


def test_heartbeats_that_grow_with_the_nodes_break_it_sooner() -> None:
    flat, growing = Costs([point(1, 0.1), point(100, 0.1)]), Costs([point(1, 0.1), point(100, 1.1)])
    assert breaks_at(flat, 8, RATES) == pytest.approx(0.7 / 0.002, abs=9)
    assert breaks_at(growing, 8, RATES) < breaks_at(flat, 8, RATES)
    assert breaks_at(Costs([point(1, 0.0, 0.0)]), 8, RATES, most=5000) == 5000


def test_publishers_of_dead_nodes_find_the_free_places() -> None:
    found = Simulation(Costs([point(1, 0.1)]), RATES, places=5, count=20).run()
    assert (found.sessions, found.returned, found.lost, found.leases) == (80, 8, 0, 0)
    assert found.fullest == 5 and 0 < found.back_s < 6.0
    assert 0 < found.append_ms < 5.0


def test_redis_that_is_asked_too_much_lets_leases_run_out() -> None:
    # Once around all nodes takes six seconds of Redis, and a lease has four.
    found = Simulation(Costs([point(1, 300.0)]), RATES, places=5, count=20).run()
    assert found.leases > 0 and found.beat_ms > 1000


def test_without_a_free_place_publishers_are_refused() -> None:
    found = Simulation(Costs([point(1, 0.1)]), RATES, places=1, count=20).run()
    assert (found.returned, found.lost) == (2, 2)
    assert found.refused > 0


def test_the_verdict_names_a_redis_that_breaks_early() -> None:
    def figures(heartbeat: float) -> Figures:
        return modelled([point(1, heartbeat), point(10, heartbeat)], {1: 100.0}, RATES, 8, [1, 10, 50])

    assert verdict(figures(0.01)) == []
    assert verdict(figures(100.0))[0].startswith("with 2 sessions each, Redis holds ")
    assert "Redis is busy for 70% at nodes" in table(figures(0.01))
