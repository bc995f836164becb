"""The cost of Redis as a stage of an event, and how many events a second go through it.

    python -m load_tests.cluster_distance [--events 1000] [--followed 300] [--appends 4000] [--json FILE]

A closed caption is published to a log that stores it in SQLite, and to one that stores it there and in Redis,
in turns, in one run: milliseconds until its subscriber has it. `added` is the difference of each pair. Then a
node that follows the session by Redis: milliseconds until it has an event that its owner publishes. At last
as many events as go through, by sessions that write at once. All is real but the models: event log, SQLite on
disk, redis-server with an append-only file, a ClusterNode each. Exit status 1: Redis adds more than BUDGET ms
(p95). `--sabotage`: Redis sleeps before it answers; it must fail.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from load_tests import report
from load_tests.cluster_nodes import Redis, missing
from load_tests.growth_redis import MOST, MadeCluster, settings_of
from streamsvc.cluster.node import ClusterNode, NodeSetup
from streamsvc.cluster.session_copy import SessionCopy
from streamsvc.core import clock
from streamsvc.core.config import Limits
from streamsvc.core.session_clock import SessionClock
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store
from streamsvc.events.subscription import Subscription

BUDGET = 10.0  # ms, p95
PAUSE = 0.005  # seconds between two events, as no session has them closer
PATIENCE = 10.0  # seconds that one event is waited for
SLOW = 0.02  # seconds of Redis in the control run
CAPTION = {
    "text": "a closed caption of a few words",
    "words": [
        {"text": word, "start": 0.3 * n, "end": 0.3 * n + 0.25, "probability": 0.9}
        for n, word in enumerate(["a", "closed", "caption", "of", "a", "few", "words"])
    ],
    "start": 0.0,
    "end": 2.1,
    "language": "en",
}


@dataclass(frozen=True, slots=True)
class Side:
    """Milliseconds of so many events."""

    events: int
    p50: float
    p95: float
    longest: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds until a subscriber has an event: stored here alone, in Redis too, and the difference.

    followed: until another node has it. appends_a_second: durable events through Redis, by how many sessions
    write at once, one event a call. lost: events that Redis does not hold at the end.
    """

    alone: Side
    shared: Side
    added: Side
    followed: Side
    appends_a_second: dict[int, float]
    lost: int


def side(milliseconds: Sequence[float]) -> Side:
    """Percentiles."""
    p50, p95, longest = (round(float(np.percentile(milliseconds, part)), 3) for part in (50, 95, 100))
    return Side(len(milliseconds), p50, p95, longest)


class _Slow(SessionCopy):
    """A copy whose Redis is slow: the control run."""

    async def write(self, rows: Sequence[tuple[int, str, str | None, str]]) -> None:
        await clock.sleep(SLOW)
        await super().write(rows)


@contextlib.asynccontextmanager
async def _node(redis: Redis, name: str) -> AsyncIterator[ClusterNode]:
    """A node that has joined."""
    setup = NodeSetup(
        settings_of(redis, name, 4.0), name, "0" * 16, 3600.0, MOST, lambda bare: bare, lambda _: None
    )
    node = ClusterNode(setup)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


def _log(folder: Path, session: str) -> EventLog:
    return EventLog(session, SessionClock(), Limits(), Store(folder / session, events=MOST, frames=10))


async def _publish(log: EventLog, reader: Subscription) -> float:
    """Milliseconds until the subscriber has one event."""
    began = time.perf_counter()
    log.emit("caption.final", CAPTION)
    async with asyncio.timeout(PATIENCE):
        await reader.next()
    return 1000 * (time.perf_counter() - began)


async def measure(folder: Path, *, events: int, followed: int, appends: int, slow: bool = False) -> Figures:
    """Measure with a Redis in `folder`."""
    redis = Redis(folder / "redis")
    await asyncio.to_thread(redis.start)
    try:
        async with _node(redis, "owner") as owner, _node(redis, "other") as other:
            alone, shared = _log(folder, "alone"), _log(folder, "shared")
            facts = {"started_utc": "2026-12-01T00:00:00+00:00", "epoch": shared.epoch}
            copy = owner.copy_of("shared", facts)
            if slow:
                copy.__class__ = _Slow
            shared.share(copy)
            try:
                pairs = await _in_turns(alone, shared, events)
                waits = await _followed(shared, other, followed)
                lost = shared.seq - len(await owner.log.read("shared", 0, MOST))
            finally:
                for log in (alone, shared):
                    await log.end()
        made = MadeCluster(redis)
        try:
            rates = await made.saturated(appends)
        finally:
            await made.close()
    finally:
        await asyncio.to_thread(redis.kill)
    return Figures(
        side([one for one, _ in pairs]),
        side([two for _, two in pairs]),
        side([two - one for one, two in pairs]),
        side(waits),
        rates,
        lost,
    )


async def _in_turns(alone: EventLog, shared: EventLog, events: int) -> list[tuple[float, float]]:
    readers = {log: log.subscribe() for log in (alone, shared)}
    pairs = []
    for number in range(events + 1):
        found: dict[EventLog, float] = {}
        for log in (alone, shared) if number % 2 else (shared, alone):  # neither is always the first
            await clock.sleep(PAUSE)
            found[log] = await _publish(log, readers[log])
        pairs.append((found[alone], found[shared]))
    for log, reader in readers.items():
        log.unsubscribe(reader)
    return pairs[1:]  # the first one claims the session


async def _followed(shared: EventLog, other: ClusterNode, events: int) -> list[float]:
    """Milliseconds until another node has each event."""
    waits = []
    async with contextlib.aclosing(other.followers.follow("shared", shared.seq)) as rows:
        for _ in range(events):
            await clock.sleep(PAUSE)
            coming = asyncio.ensure_future(anext(rows))
            await asyncio.sleep(0)
            began = time.perf_counter()
            shared.emit("caption.final", CAPTION)
            async with asyncio.timeout(PATIENCE):
                while (await coming)[-1][0] < shared.seq:
                    coming = asyncio.ensure_future(anext(rows))
            waits.append(1000 * (time.perf_counter() - began))
    return waits


def verdict(found: Figures) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = []
    if found.added.p95 > BUDGET:
        wrong.append(f"Redis adds {found.added.p95:.1f} ms (p95) to an event")
    if found.lost:
        wrong.append(f"Redis does not hold {found.lost} events")
    return wrong


def table(found: Figures) -> str:
    """A row each."""
    names = {
        "alone": "SQLite alone",
        "shared": "SQLite and Redis",
        "added": "added by Redis",
        "followed": "until another node has it",
    }
    rows = [
        (what, *(f"{value:.2f}" for value in (one.p50, one.p95, one.longest)), f"{one.events}")
        for name, what in names.items()
        for one in [getattr(found, name)]
    ]
    rates = ", ".join(f"{rate:.0f} ({count} sessions)" for count, rate in found.appends_a_second.items())
    return f"{markdown_table(('ms', 'p50', 'p95', 'longest', 'events'), rows)}\nEvents a second: {rates}."


async def _run(chosen: argparse.Namespace, folder: Path) -> Figures:
    return await measure(
        folder,
        events=chosen.events,
        followed=chosen.followed,
        appends=chosen.appends,
        slow=chosen.sabotage,
    )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--events", type=int, default=1000, help="of each side (%(default)s)")
    parser.add_argument("--followed", type=int, default=300, help="events to another node (%(default)s)")
    parser.add_argument("--appends", type=int, default=4000, help="as fast as they go (%(default)s)")
    parser.add_argument("--sabotage", action="store_true", help="the control run: Redis is slow")
    chosen = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory(prefix="cluster-distance-") as folder:
        found = asyncio.run(_run(chosen, Path(folder)))
    report.finish(table(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
