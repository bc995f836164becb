"""Nodes of a cluster in a test's process: their settings with short leases, and a session's own log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from streamsvc.cluster.node import ClusterNode, NodeSetup
from streamsvc.cluster.records import NodeRecord, Row
from streamsvc.core.cluster_config import Cluster
from tests.builders.redis_server import RedisServer

SECRET = "a secret of all the nodes"
FACTS = {"started_utc": "2026-12-01T10:00:00.000Z", "name": "lecture", "epoch": "abcd", "stored": "1"}
SHORT = 0.4  # seconds of a lease that is to run out
SESSION = "lecture.20261201-100000-3f9c"
PATIENCE = 10.0  # seconds for what comes within a heartbeat or a lease


def settings_of(server: RedisServer, **groups: Any) -> Cluster:
    """Settings with heartbeats of 0.05 s; on a busy machine leases last, and events wait long for Redis."""
    values = {
        "url": server.url,
        "advertise": "http://127.0.0.1:1",
        "secret": SECRET,
        "lease_seconds": 10.0,
        "heartbeat_seconds": 0.05,
        "write_seconds": 5.0,
    }
    return Cluster.model_validate(values | groups)


@dataclass
class Own:
    """What a session has stored itself: a RowSource."""

    stored: list[Row] = field(default_factory=list)
    readable: bool = True

    async def rows(self, after: int, limit: int) -> list[Row]:
        return [row for row in self.stored if row[0] > after][:limit] if self.readable else []

    def add(self, count: int = 1) -> list[Row]:
        """Store so many more rows; returns them."""
        first = len(self.stored) + 1
        new: list[Row] = [
            (seq, "caption.final", None, f'{{"seq":{seq}') for seq in range(first, first + count)
        ]
        self.stored += new
        return new


@contextlib.asynccontextmanager
async def node_of(
    server: RedisServer, name: str = "one", *, fenced: Callable[[str], None] = lambda _: None, **groups: Any
) -> AsyncIterator[ClusterNode]:
    """A node that has joined; leaves at the end."""
    node = ClusterNode(setup_of(server, name, fenced=fenced, **groups))
    await node.start()
    try:
        yield node
    finally:
        await node.close()


def setup_of(
    server: RedisServer,
    name: str,
    *,
    fenced: Callable[[str], None] = lambda _: None,
    keys: str = "same",
    **groups: Any,
) -> NodeSetup:
    """What a node is made of."""

    def loaded(record: NodeRecord) -> NodeRecord:
        return replace(record, free={"audio": 3, "audio_video": 2}, sessions=1, limit=4)

    return NodeSetup(settings_of(server, **groups), name, keys, 3600.0, 1000, loaded, fenced)


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)
