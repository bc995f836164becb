"""A cluster in small: a node and some sockets are killed, and nothing that was seen is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.cluster import Plan, _rounds, run
from load_tests.cluster_figures import verdict
from load_tests.cluster_nodes import missing

SMALL = Plan(sessions=1, subscribers=2, places=1, kills=5, node_kills=1, redis_kills=0, both=0)


def test_faults_are_spread_and_every_socket_is_killed_in_some_round() -> None:
    rounds = _rounds(Plan(kills=10, node_kills=4, redis_kills=1, both=1))
    assert [kind for kind, _ in rounds].count("node") == 4
    assert {kind for kind, _ in rounds} == {"node", "redis", "both"}
    assert sum(sockets for _, sockets in rounds) == 10
    assert rounds[0][0] == "node"  # Redis is not what goes first
    assert _rounds(Plan(kills=3, node_kills=0, redis_kills=0, both=0)) == [("none", 3)]


@pytest.mark.load
@pytest.mark.xdist_group("real time")
@pytest.mark.skipif(bool(missing()), reason=missing())
async def test_nothing_that_was_seen_is_lost_with_a_node(tmp_path: Path) -> None:
    found = await run(SMALL, tmp_path)
    assert found.killed == {"node": 1, "socket": 5}
    assert found.events > 20 and found.returns >= 1
    # How soon captions are there again depends on what else the machine does: the load test tells.
    figures = (found.lost, found.repeated, found.out_of_order, found.missing, found.changed)
    assert figures == (0, 0, 0, 0, 0), found.examples
    assert found.other_sessions == 0 and found.captions_never == 0
    assert [line for line in verdict(found) if "after" not in line] == []
