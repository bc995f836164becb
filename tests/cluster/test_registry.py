"""Nodes and claims."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamsvc.cluster.records import Claim, NodeRecord, Owner
from streamsvc.cluster.redis_client import RedisClient
from streamsvc.cluster.registry import Registry
from streamsvc.core.errors import ClusterUnavailable
from tests.builders.cluster import SESSION, SHORT, settings_of
from tests.builders.redis_server import RedisServer

RECORD = NodeRecord("one", "http://10.0.0.5:8080", "abcd", "k", free={"audio": 2})


def registry_of(redis: RedisClient, server: RedisServer, node: str, **groups: float) -> Registry:
    return Registry(redis, settings_of(server, **groups), node, 3600.0)


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    client = RedisClient(settings_of(redis_server))
    yield client
    await client.close()


async def test_a_node_is_listed_for_one_lease(redis: RedisClient, redis_server: RedisServer) -> None:
    registry = registry_of(redis, redis_server, "one", lease_seconds=SHORT)
    assert await registry.nodes() == []
    assert await registry.join(RECORD)
    assert await registry.nodes() == [RECORD]
    await asyncio.sleep(0.5)
    assert await registry.nodes() == []
    assert await registry.join(replace(RECORD, instance="another process"))
    await registry.leave(replace(RECORD, instance="another process"))
    assert await registry.nodes() == []


async def test_a_dead_node_is_forgotten(
    redis: RedisClient, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsvc.cluster.registry.FORGOTTEN", 0.5)
    registry = registry_of(redis, redis_server, "one", lease_seconds=SHORT)
    await registry.join(RECORD)
    await asyncio.sleep(0.6)
    assert await registry.nodes() == []
    assert await redis.run("HLEN", redis.key("nodes")) == 0


async def test_one_node_has_a_claim(redis: RedisClient, redis_server: RedisServer) -> None:
    one, two = (registry_of(redis, redis_server, name) for name in ("one", "two"))
    claim = await one.claim(SESSION)
    assert isinstance(claim, Claim)
    assert claim.whole
    assert await two.claim(SESSION) == claim.owner
    assert await two.owner(SESSION) == claim.owner
    assert await two.owners([SESSION, "none"]) == {SESSION: claim.owner}
    await one.release(claim)
    assert await two.owner(SESSION) is None
    later = await two.claim(SESSION)
    assert isinstance(later, Claim)
    assert later.owner.node == "two"
    assert later.owner.fence > claim.owner.fence


async def test_a_claim_runs_out_without_heartbeats_and_is_lost_when_another_has_it(
    redis: RedisClient, redis_server: RedisServer
) -> None:
    one, two = (registry_of(redis, redis_server, name, lease_seconds=SHORT) for name in ("one", "two"))
    claim = await one.claim(SESSION)
    assert isinstance(claim, Claim)
    for _ in range(3):
        await asyncio.sleep(SHORT / 2)
        assert [found.held for found in await one.renew([claim])] == [True]
    await asyncio.sleep(0.5)
    assert await two.owner(SESSION) is None
    assert [found.held for found in await one.renew([claim])] == [True]  # nobody has taken it
    await asyncio.sleep(0.5)
    assert isinstance(await two.claim(SESSION), Claim)
    assert [found.held for found in await one.renew([claim])] == [False]


async def lapsed(redis: RedisClient, owner: Registry) -> None:
    """A session whose owner has died after a heartbeat."""
    claim = await owner.claim(SESSION)
    assert isinstance(claim, Claim)
    await owner.renew([claim])
    await redis.run("DEL", redis.of(SESSION, "owner"))


async def test_a_log_is_whole_where_redis_was_there_all_the_time(
    redis: RedisClient, redis_server: RedisServer
) -> None:
    one, two = (registry_of(redis, redis_server, name) for name in ("one", "two"))
    for registry in (one, two):
        assert not await registry.look_at_redis()
    await lapsed(redis, one)
    claim = await two.claim(SESSION)
    assert isinstance(claim, Claim)
    assert claim.whole


async def test_a_log_may_miss_events_where_this_node_has_lost_redis_since(
    redis: RedisClient, redis_server: RedisServer
) -> None:
    one, two = (registry_of(redis, redis_server, name) for name in ("one", "two"))
    for registry in (one, two):
        await registry.look_at_redis()
    await lapsed(redis, one)
    two.back = await two.now()
    claim = await two.claim(SESSION)
    assert isinstance(claim, Claim)
    assert not claim.whole


async def test_a_log_may_miss_events_where_its_owner_was_behind(
    redis: RedisClient, redis_server: RedisServer
) -> None:
    one = registry_of(redis, redis_server, "one")
    await one.look_at_redis()
    await lapsed(redis, one)
    await redis.run("HSET", redis.of(SESSION, "meta"), "behind", "1")
    claim = await one.claim(SESSION)
    assert isinstance(claim, Claim)
    assert not claim.whole


async def test_a_log_may_miss_events_where_redis_was_restarted(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, keeps=True)
    server.start()
    redis = RedisClient(settings_of(server))
    try:
        one, two = (registry_of(redis, server, name) for name in ("one", "two"))
        await one.look_at_redis()
        await lapsed(redis, one)
        server.kill()
        server.start()
        with contextlib.suppress(ClusterUnavailable):  # on a connection of before
            await two.now()
        assert not await two.look_at_redis()  # it began after that
        assert await one.look_at_redis()
        claim = await two.claim(SESSION)
        assert isinstance(claim, Claim)
        assert not claim.whole
    finally:
        await redis.close()
        server.kill()


def test_an_owner_is_told_as_node_and_token() -> None:
    assert str(Owner("one", 7)) == "one:7"


async def test_a_session_is_kept_for_a_minute_at_least(redis: RedisClient, redis_server: RedisServer) -> None:
    registry = Registry(redis, settings_of(redis_server, lease_seconds=1.0), "one", 0.0)
    assert registry.keep_ms == 61_000
