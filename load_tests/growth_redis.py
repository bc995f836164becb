"""Made nodes and sessions in a real Redis, and what each operation of a cluster costs there (for `growth`).

All of it runs the code that serves: the heartbeat of one `ClusterNode` with sessions of its own, the registry
and the shared log, among as many made nodes and sessions as are wanted. Redis' cost of an operation is the
processor time of its process; the wait for it is measured here, beside nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from load_tests.cluster_nodes import SECRET, Redis
from streamsvc.cluster.node import ClusterNode, NodeSetup
from streamsvc.cluster.records import Claim, NodeRecord, Row
from streamsvc.cluster.redis_client import RedisClient, number, text
from streamsvc.cluster.registry import Registry
from streamsvc.cluster.session_copy import SessionCopy
from streamsvc.cluster.shared_log import SharedLog
from streamsvc.core.cluster_config import Cluster

NODE = "measured"  # the one whose code runs; the others are made
NAMES = 4  # broadcasts of a name
LISTED = 50  # sessions that a list shows
KEPT = 3600.0  # seconds of retention
MOST = 100_000  # events kept of a session
BATCH = 64  # calls that are sent at once while made
LASTING = 3600.0  # seconds of a lease of what is made, so that it stays
WORDS = 9  # of a caption here
Op = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Cost:
    """One operation. `redis_ms`: processor time of Redis; `p50`, `p95`: milliseconds until its end."""

    name: str
    redis_ms: float
    p50: float
    p95: float


@dataclass(slots=True)
class Point:
    """What was measured among so many nodes. `memory`: bytes in Redis, `per_event`: of one."""

    nodes: int
    sessions: int
    events: int
    memory: int = 0
    per_event: float = 0.0
    per_session: float = 0.0
    costs: dict[str, Cost] = field(default_factory=dict)


class NoRows:
    """The store of a session that has stored nothing."""

    async def rows(self, after: int, limit: int) -> list[Row]:
        """None."""
        return []


def settings_of(redis: Redis, name: str, lease: float) -> Cluster:
    """Settings of a node of a Redis on this machine."""
    return Cluster.model_validate(
        {
            "url": redis.url,
            "node": name,
            "advertise": "http://10.0.0.1:8080",
            "secret": SECRET,
            "lease_seconds": lease,
            "heartbeat_seconds": lease / 2,
            "write_seconds": 30.0,  # whatever else this machine does, the cost of Redis is what is measured
        }
    )


def row(session: str, seq: int) -> Row:
    """A durable event as sessions have them: every third a closed caption of some words, others short."""
    kind = "caption.final" if seq % 3 == 0 else "speech.started"
    body: dict[str, object] = {
        "v": 1,
        "type": kind,
        "session": session,
        "track": "main",
        "epoch": "0123abcd",
        "id": f"0123abcd.{seq}",
        "at": seq * 1.25,
        "age_ms": 512.3,
        "stages": {"decode": 210.1, "queue": 12.2, "store": 8.0},
        "seq": seq,
    }
    if seq % 3 == 0:
        words = [
            {"text": "people", "start": seq + 0.34 * n, "end": seq + 0.34 * n + 0.3, "probability": 0.93}
            for n in range(WORDS)
        ]
        body |= {
            "text": " ".join(["people"] * WORDS),
            "words": words,
            "start": seq,
            "end": seq + 3.0,
            "language": "en",
        }
    return seq, kind, None, json.dumps(body, separators=(",", ":"))[:-1]


class MadeCluster:
    """Nodes and sessions that exist in Redis alone, and one node that works among them.

    Args:
        redis: a running server, whose data are deleted.
    """

    def __init__(self, redis: Redis) -> None:
        settings = settings_of(redis, NODE, LASTING)
        self.client = RedisClient(settings)
        self.registry = Registry(self.client, settings, NODE, KEPT)
        self.log = SharedLog(self.client, self.registry, events=MOST, frames=200)
        self.nodes = self.sessions = self.events = 0
        self._redis = redis
        self._node: ClusterNode | None = None

    async def close(self) -> None:
        """End what works; what was made stays."""
        if self._node is not None:
            await self._node.close()
        await self.client.close()

    async def clear(self) -> None:
        """Delete everything."""
        await self.client.run("FLUSHALL")
        self.nodes = self.sessions = self.events = 0

    async def grow(self, nodes: int, sessions: int, events: int) -> None:
        """Add made nodes until there are so many, each with so many sessions of so many events."""
        for number_of in range(self.nodes, nodes):
            name = f"n{number_of}"
            settings = settings_of(self._redis, name, LASTING)
            registry = Registry(self.client, settings, name, KEPT)
            record = NodeRecord(
                name,
                f"http://10.0.{number_of // 250}.{number_of % 250}:8080",
                f"{number_of:016x}",
                "0" * 16,
                "0.1.0",
                {"audio": 4, "audio_video": 2},
                sessions,
                8,
            )
            await registry.join(record)
            await self._fill(registry, number_of, sessions, events)
        self.nodes = nodes

    async def _fill(self, registry: Registry, node: int, sessions: int, events: int) -> None:
        log = SharedLog(self.client, registry, events=MOST, frames=200)
        calls = []
        for place in range(sessions):
            session = f"{node:04d}.{place:06d}"
            claim = await registry.claim(session)
            assert isinstance(claim, Claim)
            await log.enter(session, 1_700_000_000_000 + self.sessions, f"door{self.sessions // NAMES}")
            facts = {"started_utc": "2026-12-01T00:00:00.000Z", "name": f"door{self.sessions // NAMES}"}
            calls.append(
                log.facts(claim, facts | {"epoch": "0123abcd", "node": registry.node, "stored": "1"})
            )
            rows = (row(session, seq) for seq in range(1, events + 1))
            after = 0
            while page := list(islice(rows, 250)):
                calls.append(log.append(claim, after, page))
                after = page[-1][0]
            self.sessions += 1
            self.events += events
        for start in range(0, len(calls), BATCH):
            await log.write(calls[start : start + BATCH])

    async def work(self, sessions: int) -> list[SessionCopy]:
        """Start the node whose code is measured, with so many sessions."""
        if self._node is not None:
            await self._node.close()
        settings = settings_of(self._redis, NODE, LASTING)
        setup = NodeSetup(
            settings, NODE, "0" * 16, KEPT, MOST, lambda bare: bare, lambda _: None
        )  # heartbeats are so rare that only those asked for come
        self._node = ClusterNode(setup)
        await self._node.start()
        copies = [
            self._node.copy_of(
                f"{NODE}.{number_of}", {"started_utc": "2026-12-01T00:00:00+00:00", "name": f"m{number_of}"}
            )
            for number_of in range(sessions)
        ]
        for copy in copies:
            copy.begin(NoRows())
            await copy.catch_up()
        return copies

    async def point(self, sessions: int, times: int) -> Point:
        """Measure every operation so many times among what there is."""
        copies = await self.work(sessions)
        assert self._node is not None
        node = self._node
        seqs = dict.fromkeys(range(len(copies)), 0)

        async def append() -> None:
            place = min(seqs, key=lambda one: seqs[one])
            seqs[place] += 1
            await copies[place].write([row(copies[place].session, seqs[place])])

        async def listed() -> None:
            await self.log.look(await self.log.recent(LISTED))

        async def resolved() -> None:
            await self.log.look(await self.log.broadcasts(f"door{max(0, self.sessions - 1) // NAMES // 2}"))

        async def resumed() -> None:
            await self.log.read(f"{0:04d}.{0:06d}", 0, 100)

        async def claimed() -> None:
            claim = await self.registry.claim(f"new.{time.monotonic_ns()}")
            assert isinstance(claim, Claim)
            await self.registry.release(claim)

        live = [("caption.partial", None, row("a", 3)[3])]
        streams = [self.client.of(copy.session, part) for copy in copies for part in ("log", "live")]

        async def passed_on() -> None:
            claim = copies[0].claim
            assert claim is not None
            await self.log.write([self.log.live(claim, [(0, *one) for one in live])])

        async def followed() -> None:
            ends = ["9999999999999-0"] * len(streams)
            await self.client.run("XREAD", "COUNT", 500, "STREAMS", *streams, *ends)

        found = Point(self.nodes, self.sessions, self.events)
        ops: dict[str, Op] = {
            "heartbeat": node._beat_once,
            "nodes": self.registry.nodes,
            "append": append,
            "live": passed_on,
            "follow": followed,
            "list": listed,
            "resolve": resolved,
            "resume 100": resumed,
            "claim, release": claimed,
        }
        for name, op in ops.items():
            found.costs[name] = await self._cost(name, op, times)
        found.memory = await self.memory()
        if self.sessions and self.events:
            log = await self.client.run("MEMORY", "USAGE", self.client.of(f"{0:04d}.{0:06d}", "log"))
            found.per_event = number(log) / (self.events / self.sessions)
            found.per_session = found.memory / self.sessions - number(log)
        return found

    async def memory(self) -> int:
        """Bytes that Redis uses for its data."""
        return int(await self._info("memory", "used_memory_dataset"))

    async def _info(self, section: str, name: str) -> float:
        lines = text(await self.client.run("INFO", section)).splitlines()
        return next(
            float(line.partition(":")[2].rstrip("%")) for line in lines if line.startswith(f"{name}:")
        )

    async def _cpu(self) -> float:
        lines = text(await self.client.run("INFO", "cpu")).splitlines()
        return sum(
            float(line.partition(":")[2])
            for line in lines
            if line.startswith(("used_cpu_sys:", "used_cpu_user:"))
        )

    async def _cost(self, name: str, op: Op, times: int) -> Cost:
        await op()  # connections, scripts
        before, waits = await self._cpu(), []
        for _ in range(times):
            began = time.perf_counter()
            await op()
            waits.append(1000 * (time.perf_counter() - began))
        spent = 1000 * (await self._cpu() - before) / times
        return Cost(name, spent, *(float(np.percentile(waits, part)) for part in (50, 95)))

    async def saturated(self, appends: int, at_once: Sequence[int] = (1, 8, 32)) -> dict[int, float]:
        """Durable events a second through Redis, with so many sessions writing at once, one event a call."""
        found = {}
        for together in at_once:
            copies = await self.work(together)

            async def write(copy: SessionCopy, count: int = appends // together) -> None:
                for seq in range(1, count + 1):
                    await copy.write([row(copy.session, seq)])

            began = time.perf_counter()
            await asyncio.gather(*(write(copy) for copy in copies))
            passed = time.perf_counter() - began
            for copy in copies:
                assert not copy.waiting, "Redis has fallen behind"
            kept = 0
            for copy in copies:
                kept += number(await self.client.run("XLEN", self.client.of(copy.session, "log")))
                await self.client.run(
                    "DEL", *(self.client.of(copy.session, part) for part in ("log", "meta", "owner", "fence"))
                )
            found[together] = kept / passed
        return found
