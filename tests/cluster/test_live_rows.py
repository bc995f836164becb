"""Ephemeral events on their way to followers."""

from __future__ import annotations

import pytest

from streamsvc.cluster.contact import CopyTools
from streamsvc.cluster.live_rows import WAITING, LiveRows
from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import Claim, Owner
from streamsvc.core import metrics
from streamsvc.core.tasks import BackgroundTasks
from tests.builders.cluster import SESSION, node_of
from tests.builders.redis_server import RedisServer


def dropped() -> float:
    return metrics.REGISTRY.get_sample_value("streamsvc_cluster_dropped_total", {"kind": "ephemeral"}) or 0.0


def tools_of(node: ClusterNode, tasks: BackgroundTasks) -> CopyTools:
    contact = node.contact
    return CopyTools(node.registry, node.log, contact, tasks.spawn, node.settings.write_seconds)


async def claim_of(node: ClusterNode) -> Claim:
    claim = await node.registry.claim(SESSION)
    assert isinstance(claim, Claim)
    return claim


async def test_rows_are_sent_in_order(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        rows = LiveRows(tools_of(node, BackgroundTasks()), lambda: None)
        claim = await claim_of(node)
        for number in range(5):
            rows.put(claim, (0, "caption.partial", None, str(number)))
        await rows.sent()
        found = await node.redis.run("XRANGE", node.redis.of(SESSION, "live"), "-", "+")
        assert isinstance(found, list)
        assert [entry[1][3] for entry in found if isinstance(entry, list) and isinstance(entry[1], list)] == [
            b"0",
            b"1",
            b"2",
            b"3",
            b"4",
        ]


async def test_the_oldest_rows_are_dropped_and_counted(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        rows = LiveRows(tools_of(node, BackgroundTasks()), lambda: None)
        claim, before = await claim_of(node), dropped()
        for number in range(WAITING + 2):
            rows.put(claim, (0, "caption.partial", None, str(number)))
        await rows.sent()
        assert await node.redis.run("XLEN", node.redis.of(SESSION, "live")) == WAITING
        assert dropped() == before + 2


async def test_without_redis_they_are_dropped_and_counted(redis_server: RedisServer) -> None:
    async with node_of(redis_server, heartbeat_seconds=5.0, lease_seconds=10.0) as node:
        rows = LiveRows(tools_of(node, BackgroundTasks()), lambda: None)
        claim, before = await claim_of(node), dropped()
        redis_server.kill()
        rows.put(claim, (0, "caption.partial", None, "a"))
        await rows.sent()
        assert not node.up  # it was found out here
        rows.put(claim, (0, "caption.partial", None, "b"))
        await rows.sent()
        assert dropped() == before + 2


async def test_who_has_lost_the_session_sends_nothing(redis_server: RedisServer) -> None:
    lost: list[bool] = []
    async with node_of(redis_server) as node:
        rows = LiveRows(tools_of(node, BackgroundTasks()), lambda: lost.append(True))
        claim = await claim_of(node)
        rows.put(Claim(SESSION, Owner("one", claim.owner.fence - 1)), (0, "caption.partial", None, "a"))
        await rows.sent()
        assert lost == [True]
        assert await node.redis.run("XLEN", node.redis.of(SESSION, "live")) == 0
        await rows.stop()


async def test_nothing_is_asked_of_a_redis_that_is_away(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []

    async def write(calls: object) -> int:
        written.append(calls)
        return 0

    async with node_of(redis_server, heartbeat_seconds=5.0) as node:
        rows = LiveRows(tools_of(node, BackgroundTasks()), lambda: None)
        claim = await claim_of(node)
        monkeypatch.setattr(node.log, "write", write)
        node.contact.lost()
        rows.put(claim, (0, "caption.partial", None, "a"))
        await rows.sent()
    assert written == []
