"""What of a cluster grows with its nodes, and where it breaks: measured points, and a simulation beyond them.

    python -m load_tests.growth [--nodes 1 10 100] [--simulated 1 10 100 1000] [--sessions 8] [--events 30]
                                [--times 100] [--durable 1.5] [--live 3.0] [--followed 0.5] [--json FILE]

Measured: in a real redis-server so many made nodes, each with sessions and events, beside which the code that
serves does what it does (growth_redis.py): a heartbeat, a list, the resolution of a name, an event, a resume;
Redis' processor time of each, the wait for it, and Redis' memory. Then, with these costs, on a virtual clock:
all nodes beat and all sessions talk, every tenth node dies at once, and its publishers come again at random
nodes, as load_tests/cluster_publisher.py has them. Redis is one server with one queue, which it is. Per node:
as many sessions as the measured tables of load_tests/README.md allow (`REPLICAS`). No model runs. The end:
at how many nodes Redis is busy for LIMIT of the time, and with what. Exit status 1: below 100.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from load_tests import report
from load_tests.cluster_nodes import Redis, missing
from load_tests.growth_redis import MadeCluster, Point
from load_tests.growth_simulation import Costs, Load, Rates, Simulated, Simulation, load
from streamsvc.evaluation.markdown import markdown_table

LIMIT = 0.7  # of Redis' time: beyond it waits grow without bound
FEWEST = 100  # nodes that must be possible
# Sessions of one replica by what bounds it first, from the measured tables of load_tests/README.md.
REPLICAS: Mapping[str, int] = {
    "serve, one core, all frames decoded (table ingest)": 4,
    "serve, one core, codec keyframes alone (table ingest)": 8,
    "serve, event loop alone, any cores (0.06 to 0.08 of a core each)": 12,
    "hear, two cores, whisper-tiny.en, talk without pauses (table sessions)": 6,
    "all models on two cores (table all)": 2,
}


def breaks_at(costs: Costs, sessions: int, rates: Rates, most: int = 1_000_000) -> int:
    """The greatest number of nodes with which Redis is busy for less than LIMIT; `most`: it is more."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if load(costs, middle, sessions, rates).total < LIMIT:
            low = middle
        else:
            high = middle - 1
    return low


# --- report -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it. `loads`: by number of nodes. `breaks`: nodes by sessions of a replica."""

    rates: Rates
    points: list[Point]
    loads: dict[int, Load]
    simulated: list[Simulated]
    breaks: dict[int, int]
    appends_a_second: dict[int, float]


def verdict(found: Figures) -> list[str]:
    """What was promised and missed; [] if nothing."""
    return [
        f"with {sessions} sessions each, Redis holds {nodes} nodes"
        for sessions, nodes in found.breaks.items()
        if nodes < FEWEST
    ]


def table(found: Figures) -> str:
    """Measured points, the load that they make, and the simulation."""
    names = list(found.points[0].costs)
    measured = markdown_table(
        ("nodes", "sessions", "events", "MB", "bytes an event, a session", *names),
        [
            (
                f"{point.nodes}",
                f"{point.sessions}",
                f"{point.events}",
                f"{point.memory / 1e6:.1f}",
                f"{point.per_event:.0f}, {point.per_session:.0f}",
                *(
                    f"{cost.redis_ms:.3f}; {cost.p50:.2f}, {cost.p95:.2f}"
                    for cost in (point.costs[name] for name in names)
                ),
            )
            for point in found.points
        ],
    )
    loads = markdown_table(
        ("nodes", "operations a second", "Redis busy", *next(iter(found.loads.values())).shares),
        [
            (
                f"{nodes}",
                f"{one.operations:.0f}",
                f"{one.total:.1%}",
                *(f"{share:.1%}" for share in one.shares.values()),
            )
            for nodes, one in found.loads.items()
        ],
    )
    simulated = markdown_table(
        (
            "nodes",
            "sessions",
            "heartbeat p95 ms",
            "event p95 ms",
            "leases lost",
            "came again, not in time, last after s",
            "by 307",
            "refused",
            "fullest",
        ),
        [
            (
                f"{one.nodes}",
                f"{one.sessions}",
                f"{one.beat_ms:.1f}",
                f"{one.append_ms:.1f}",
                f"{one.leases}",
                f"{one.returned}, {one.lost}, {one.back_s:.1f}",
                f"{one.redirects}",
                f"{one.refused}",
                f"{one.fullest}",
            )
            for one in found.simulated
        ],
    )
    replicas = "\n".join(f"- {count}: {what}" for what, count in REPLICAS.items())
    broken = "; ".join(f"{nodes} with {sessions} sessions each" for sessions, nodes in found.breaks.items())
    fast = ", ".join(f"{rate:.0f} ({count} sessions)" for count, rate in found.appends_a_second.items())
    return (
        f"Per operation: Redis' CPU ms; wait p50, p95 ms.\n{measured}\n\n{loads}\n\n{simulated}\n\n"
        f"Sessions of a replica:\n{replicas}\n\nRedis is busy for {LIMIT:.0%} at nodes: {broken}.\n"
        f"Durable events a second, one a call: {fast}."
    )


async def measure(chosen: argparse.Namespace, folder: Path) -> Figures:
    """Measure in a Redis of our own, then simulate."""
    redis = Redis(folder)
    await asyncio.to_thread(redis.start)
    try:
        made = MadeCluster(redis)
        try:
            points = []
            for nodes in sorted(chosen.nodes):
                await made.grow(nodes, chosen.sessions, chosen.events)
                points.append(await made.point(chosen.sessions, chosen.times))
                print(f"measured among {nodes} nodes", file=sys.stderr, flush=True)
            await made.clear()
            appends = await made.saturated(20 * chosen.times)
        finally:
            await made.close()
    finally:
        await asyncio.to_thread(redis.kill)
    rates = Rates(chosen.durable, chosen.live, chosen.followed)
    return modelled(points, appends, rates, chosen.sessions, chosen.simulated)


def modelled(
    points: list[Point], appends: dict[int, float], rates: Rates, sessions: int, simulated: Sequence[int]
) -> Figures:
    """What follows from measured points, for so many nodes each."""
    costs = Costs(points)
    numbers = sorted(simulated)
    return Figures(
        rates,
        points,
        {nodes: load(costs, nodes, sessions, rates) for nodes in numbers},
        [Simulation(costs, rates, sessions, nodes).run() for nodes in numbers],
        {each: breaks_at(costs, each, rates) for each in sorted({2, sessions, *REPLICAS.values()})},
        appends,
    )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100], help="measured (%(default)s)")
    parser.add_argument("--simulated", type=int, nargs="+", default=[1, 10, 100, 1000], help="(%(default)s)")
    parser.add_argument("--sessions", type=int, default=8, help="of each node (%(default)s)")
    parser.add_argument("--events", type=int, default=30, help="of each session (%(default)s)")
    parser.add_argument("--times", type=int, default=100, help="that each operation is run (%(default)s)")
    parser.add_argument("--durable", type=float, default=1.5, help="events a second of a session")
    parser.add_argument("--live", type=float, default=3.0, help="ephemeral ones")
    parser.add_argument("--followed", type=float, default=0.5, help="share of sessions followed elsewhere")
    chosen = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        found = asyncio.run(measure(chosen, Path(folder)))
    report.finish(table(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
