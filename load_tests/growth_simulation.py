"""A cluster of many nodes on a virtual clock, with Redis as one server of measured costs (for `growth`)."""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from load_tests.growth_redis import Point
from streamsvc.cluster.node import NODES_A_SECOND

HEARTBEAT, LEASE = 1.0, 4.0  # seconds, as cluster.heartbeat_seconds and lease_seconds
SECONDS, DIES = 12.0, 4.0  # of a simulation; when every tenth node dies
RETURN = (1.5, 6.0)  # seconds after which a publisher offers again
AGAIN = 0.25  # seconds between two offers
REDIRECT = 0.05  # seconds until a redirected offer is at the other node
FOLLOWS = 10.0  # reads a second of a node that follows sessions (cluster/followers.py)
TAKEN = 0.8  # of the places, at the beginning


@dataclass(frozen=True, slots=True)
class Rates:
    """What a session does. durable, live: events a second; followed: share of sessions followed elsewhere."""

    durable: float = 1.5
    live: float = 3.0
    followed: float = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """Redis' busy share by what keeps it busy, and operations a second."""

    shares: Mapping[str, float]
    operations: float

    @property
    def total(self) -> float:
        """Of all of it."""
        return sum(self.shares.values())


class Costs:
    """Redis' seconds of an operation among N nodes: as measured, in between and beyond by a straight line."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._nodes = [float(point.nodes) for point in points]
        self._ms = {name: [point.costs[name].redis_ms for point in points] for name in points[0].costs}

    def of(self, name: str, nodes: float) -> float:
        """Seconds."""
        xs, ys = self._nodes, self._ms[name]
        if nodes > xs[-1] and len(xs) > 1:  # beyond: the slope of the last two points, which never falls
            slope = max(0.0, (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]))
            return (ys[-1] + slope * (nodes - xs[-1])) / 1000
        return float(np.interp(nodes, xs, ys)) / 1000


def look_seconds(nodes: float) -> float:
    """Seconds between two looks of one node at the records of all."""
    return max(HEARTBEAT, nodes / NODES_A_SECOND)


def load(costs: Costs, nodes: float, sessions: int, rates: Rates) -> Load:
    """What so many nodes with so many sessions each ask of Redis."""
    followed = rates.followed * sessions
    per_second = {
        "heartbeat": 1.0 / HEARTBEAT,
        "nodes": 1.0 / look_seconds(nodes),
        "append": rates.durable * sessions,
        "live": rates.live * followed,
        "follow": FOLLOWS if followed else 0.0,
    }
    shares = {name: nodes * rate * costs.of(name, nodes) for name, rate in per_second.items()}
    return Load(shares, nodes * sum(per_second.values()))


@dataclass(slots=True)
class Simulated:
    """A cluster of so many nodes on a virtual clock. Milliseconds, seconds and counts.

    beat_ms, append_ms: p95 from asking to Redis' answer. leases: that ran out although the node lived.
    returned: publishers of dead nodes; back_s: the last of them from its first offer, lost: not back at the
    end. redirects, refused: of their offers. fullest: sessions of the fullest node at the end.
    """

    nodes: int
    sessions: int
    beat_ms: float = 0.0
    append_ms: float = 0.0
    leases: int = 0
    returned: int = 0
    lost: int = 0
    back_s: float = 0.0
    redirects: int = 0
    refused: int = 0
    fullest: int = 0


@dataclass(slots=True)
class Node:
    """A node: sessions it has, what it knows of the others' sessions, and when its lease was renewed."""

    has: int
    known: Sequence[int] = ()
    looked: float = float("-inf")
    renewed: float = 0.0
    dead: bool = False


class Simulation:
    """Runs in virtual time: each event is taken from a heap, and Redis does one thing after the other.

    Args:
        costs: of Redis.
        rates: of sessions.
        places: of a node; TAKEN of them are taken at the beginning.
        count: nodes.
        seed: of all that is drawn.
    """

    def __init__(self, costs: Costs, rates: Rates, places: int, count: int, seed: int = 7) -> None:
        names = ("heartbeat", "nodes", "append", "live", "claim, release")
        self._cost = {name: costs.of(name, count) for name in names}
        self._rates = rates
        self._places = places
        self._draw = random.Random(seed)
        self._nodes = [Node(max(1, int(places * TAKEN))) for _ in range(count)]
        self._published = [node.has for node in self._nodes]  # what each node's record says
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._entered = 0
        self._free_at = 0.0  # when Redis has done all that it was asked
        self._beats: list[float] = []
        self._appends: list[float] = []
        self._found = Simulated(count, sum(node.has for node in self._nodes))

    def run(self) -> Simulated:
        """Simulate SECONDS."""
        for node in range(len(self._nodes)):
            self._at(self._draw.uniform(0, HEARTBEAT), functools.partial(self._beat, node))
            for durable in (True, False):
                talk = functools.partial(self._talk, node, durable)
                self._at(self._draw.uniform(0, HEARTBEAT), talk)
        self._at(DIES, self._die)
        while self._heap and self._heap[0][0] < SECONDS:
            now, _, do = heapq.heappop(self._heap)
            do(now)
        found = self._found
        found.beat_ms, found.append_ms = (
            1000 * float(np.percentile(of, 95)) if of else 0.0 for of in (self._beats, self._appends)
        )
        found.fullest = max(node.has for node in self._nodes if not node.dead)
        return found

    def _at(self, time: float, do: Callable[[float], None]) -> None:
        self._entered += 1
        heapq.heappush(self._heap, (time, self._entered, do))

    def _asked(self, now: float, name: str) -> float:
        """When Redis has answered what it is asked now."""
        self._free_at = max(self._free_at, now) + self._cost[name]
        return self._free_at

    def _beat(self, number: int, now: float) -> None:
        node = self._nodes[number]
        if node.dead:
            return
        done = self._asked(now, "heartbeat")
        self._beats.append(done - now)
        self._found.leases += node.renewed > 0 and done - node.renewed > LEASE
        node.renewed = done
        self._published[number] = node.has
        if now - node.looked >= look_seconds(len(self._nodes)):
            done = self._asked(done, "nodes")
            node.known, node.looked = tuple(self._published), now
        self._at(max(done, now + HEARTBEAT), functools.partial(self._beat, number))

    def _talk(self, number: int, durable: bool, now: float) -> None:
        node = self._nodes[number]
        rate = (self._rates.durable if durable else self._rates.live * self._rates.followed) * node.has
        if node.dead or rate <= 0:
            return
        done = self._asked(now, "append" if durable else "live")
        if durable:
            self._appends.append(done - now)
        self._at(now + self._draw.expovariate(rate), functools.partial(self._talk, number, durable))

    def _die(self, now: float) -> None:
        """Every tenth node dies; its publishers are taken once its lease has run out."""
        count = len(self._nodes)
        for number in self._draw.sample(range(count), count // 10):
            node = self._nodes[number]
            node.dead = True
            self._at(now + LEASE, functools.partial(self._forget, number))
            self._found.returned += node.has
            self._found.lost += node.has
            for _ in range(node.has):
                back = now + self._draw.uniform(*RETURN)
                self._at(max(back, node.renewed + LEASE), functools.partial(self._offer, back, -1))

    def _forget(self, number: int, now: float) -> None:
        """The record of a dead node is gone: nobody is sent there any more."""
        self._published[number] = self._places

    def _offer(self, since: float, to: int, now: float) -> None:
        """A publisher offers at a random node, or where it was sent (`to`): nobody is sent twice."""
        number = to if to >= 0 else self._draw.randrange(len(self._nodes))
        node = self._nodes[number]
        if node.dead:
            self._at(now + AGAIN, functools.partial(self._offer, since, -1))
        elif node.has < self._places:
            node.has += 1
            self._found.lost -= 1
            self._found.back_s = max(self._found.back_s, self._asked(now, "claim, release") - since)
        elif to < 0 and min(node.known, default=self._places) < self._places:
            self._found.redirects += 1
            most = node.known.index(min(node.known))  # room, as it knows: the others think so too
            self._at(now + REDIRECT, functools.partial(self._offer, since, most))
        else:
            self._found.refused += 1
            self._at(now + AGAIN, functools.partial(self._offer, since, -1))
