"""The faults of `load_tests.cluster`: sockets, nodes and Redis are killed at random, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from load_tests import cluster_counts
from load_tests.beside import Beside
from load_tests.cluster_nodes import Node, Redis
from load_tests.serve_process import KEY

AUTHORISED = {"Authorization": f"Bearer {KEY}"}
REST = (1.0, 3.0)  # seconds between two faults
AWAY = (1.0, 4.0)  # that Redis is away
CAPTIONED = 3.0  # after a publisher is back, in which its captions come
RETURN_SECONDS = 45.0  # within which all publishers of a dead node are expected elsewhere
READY_SECONDS = 30.0  # within which a node is ready after a restart, or after Redis is back
POLL = 0.1
CHANGE_SECONDS = 0.3  # between two changes of one session


@dataclass(slots=True)
class Running:
    """The parts of a cluster that runs.

    `sessions`: ids by name. `publishers`: raw log of the publishers. `failed`: what did not come about.
    """

    nodes: Sequence[Node]
    redis: Redis
    folder: Path
    sessions: Mapping[str, str] = field(default_factory=dict)
    crowd: Sequence[Beside] = ()
    failed: list[str] = field(default_factory=list)

    @property
    def publishers(self) -> Path:
        """The raw log of the publishers."""
        return self.folder / "publishers.jsonl"

    @property
    def addresses(self) -> list[str]:
        """Where the nodes are reached."""
        return [node.address for node in self.nodes]

    def placed(self) -> dict[str, tuple[int, float]]:
        """Names that are published now: the node, and since which monotonic second."""
        found: dict[str, tuple[int, float]] = {}
        for line in cluster_counts.read(self.publishers):
            if line["kind"] == "accepted":
                found[line["name"]] = (line["node"], line["t"])
            elif line["kind"] == "gone":
                found.pop(line["name"], None)
        return found


class Faults:
    """Kills what runs, and waits until it has recovered. All is noted in `faults.jsonl`.

    Args:
        running: the cluster.
        seed: of what is killed, and when.
    """

    def __init__(self, running: Running, seed: int) -> None:
        self.stalled: list[float] = []  # seconds from a kill until another node has told a session as stalled
        self.changes = 0
        self.refused = 0  # changes that no node took, as while an owner is dead
        self.readiness: list[bool] = []  # of each outage of Redis: whether /readyz told it
        self._running = running
        self._draw = random.Random(seed)
        self._out = (running.folder / "faults.jsonl").open("a", buffering=1, encoding="utf-8")

    def close(self) -> None:
        """Close the log."""
        self._out.close()

    def _note(self, kind: str, began: float, **more: Any) -> None:
        self._out.write(json.dumps({"t": began, "kind": kind, "until": time.monotonic(), **more}) + "\n")

    async def rest(self) -> None:
        """Let everything run for a while."""
        await asyncio.sleep(self._draw.uniform(*REST))

    async def sockets(self, count: int, seconds: float) -> None:
        """Kill so many sockets within some seconds, each of some subscriber of some session."""
        for _ in range(count):
            await asyncio.sleep(self._draw.uniform(0, 2 * seconds / count))
            session = self._draw.choice(sorted(self._running.sessions.values()))
            number = self._draw.randrange(len(self._running.crowd))
            with contextlib.suppress(OSError):
                self._running.crowd[number].tell(session)
            self._note("socket", time.monotonic(), session=session, subscriber=number)

    async def node(self, *, restart_redis: bool = False) -> None:
        """Kill a node that has a publisher, wait for it elsewhere, and start the node again.

        Args:
            restart_redis: Redis is away now, and is started again a second after the kill.
        """
        running = self._running
        placed = running.placed()
        nodes = sorted({node for node, _ in placed.values()})
        if not nodes:
            running.failed.append("no publisher was there when a node was to be killed")
            return
        number = self._draw.choice(nodes)
        victims = [name for name, (node, _) in placed.items() if node == number]
        began = time.monotonic()
        await asyncio.to_thread(running.nodes[number].kill)
        if restart_redis:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(running.redis.start)
        await asyncio.gather(*(self._stalled(name, number, began) for name in victims))
        await self._returned(victims, began)
        await asyncio.sleep(CAPTIONED + self._draw.uniform(*REST))
        await asyncio.to_thread(running.nodes[number].start)
        await self._ready([running.nodes[number]])
        self._note("node", began, node=number, sessions=[running.sessions[name] for name in victims])

    async def _stalled(self, name: str, dead: int, began: float) -> None:
        """Ask the other nodes until one tells the session as stalled, or its publisher is back."""
        others = [node for number, node in enumerate(self._running.nodes) if number != dead]
        async with httpx.AsyncClient(timeout=5, headers=AUTHORISED) as client:
            while time.monotonic() - began < RETURN_SECONDS:
                if self._running.placed().get(name, (0, 0.0))[1] > began:
                    return  # before anybody could have noticed
                with contextlib.suppress(httpx.HTTPError, ValueError):
                    node = self._draw.choice(others)
                    path = f"{node.address}/v1/sessions/{self._running.sessions[name]}"
                    if (await client.get(path)).json().get("state") == "stalled":
                        self.stalled.append(time.monotonic() - began)
                        return
                await asyncio.sleep(POLL)

    async def _returned(self, names: Sequence[str], since: float) -> None:
        """Wait until all publishers are back."""
        until = time.monotonic() + RETURN_SECONDS
        while time.monotonic() < until:
            placed = self._running.placed()
            if all(placed.get(name, (0, 0.0))[1] > since for name in names):
                return
            await asyncio.sleep(POLL)
        self._running.failed.append(f"a publisher was not back within {RETURN_SECONDS:.0f} s")

    async def redis(self) -> None:
        """Kill Redis, and start it again after a while."""
        running = self._running
        began = time.monotonic()
        sessions = [running.sessions[name] for name in running.placed()]
        await asyncio.to_thread(running.redis.kill)
        away = self._draw.uniform(*AWAY)
        told = await self._told_by_readyz(began + away)
        await asyncio.sleep(max(0.0, began + away - time.monotonic()))
        self.readiness.append(told)
        await asyncio.to_thread(running.redis.start)
        self._note("redis", began, sessions=sessions)
        await self._ready(running.nodes)

    async def both(self) -> None:
        """Kill Redis, and a node while it is away: what was seen meanwhile may be lost, but must be told."""
        began = time.monotonic()
        await asyncio.to_thread(self._running.redis.kill)
        await asyncio.sleep(self._draw.uniform(*AWAY))
        await self.node(restart_redis=True)
        self._note("both", began)
        await self._ready(self._running.nodes)

    async def _told_by_readyz(self, until: float) -> bool:
        """Whether every node has told by then, in /readyz, that failover is off."""
        waiting = set(self._running.addresses)
        async with httpx.AsyncClient(timeout=5) as client:
            while waiting and time.monotonic() < until:
                for address in sorted(waiting):
                    with contextlib.suppress(httpx.HTTPError, ValueError):
                        if (await client.get(f"{address}/readyz")).json().get("failover") is False:
                            waiting.discard(address)
                await asyncio.sleep(POLL)
        return not waiting

    async def _ready(self, nodes: Sequence[Node]) -> None:
        """Wait until nodes say that they are ready, and that sessions would go on elsewhere."""
        until = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(timeout=5) as client:
            for node in nodes:
                while time.monotonic() < until:
                    with contextlib.suppress(httpx.HTTPError, ValueError):
                        answer = await client.get(f"{node.address}/readyz")
                        if answer.status_code == 200 and answer.json().get("failover"):
                            break
                    await asyncio.sleep(POLL)
                else:
                    self._running.failed.append(f"{node.name} was not ready within {READY_SECONDS:.0f} s")

    async def change(self, session: str) -> None:
        """Change a session again and again at any node, each time with a durable event, without end."""
        async with httpx.AsyncClient(timeout=5, headers=AUTHORISED) as client:
            while True:
                address = self._draw.choice(self._running.addresses)
                try:
                    answer = await client.patch(
                        f"{address}/v1/sessions/{session}", json={"vocabulary": ["Ada"]}
                    )
                    self.changes += answer.is_success
                    self.refused += not answer.is_success
                except httpx.HTTPError:
                    self.refused += 1
                await asyncio.sleep(CHANGE_SECONDS)
