"""One node's part in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamsvc.cluster.node import NAME_FILE, ClusterNode, digest, node_name
from streamsvc.cluster.records import Claim, NodeRecord
from streamsvc.cluster.registry import Renewed
from streamsvc.core import metrics
from streamsvc.core.cluster_config import Cluster
from streamsvc.core.errors import ConfigError
from tests.builders.cluster import FACTS, SESSION, SHORT, Own, node_of, setup_of, until
from tests.builders.redis_server import RedisServer


async def test_nodes_see_each_other_with_their_load_until_they_leave(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as one:
        async with node_of(redis_server, "two", advertise="http://10.0.0.6:8080") as two:
            assert set(two.nodes) == {"one", "two"}
            await until(lambda: set(one.nodes) == {"one", "two"})
            assert one.nodes["two"].free == {"audio": 3, "audio_video": 2}
            assert one.advertise_of("two") == "http://10.0.0.6:8080"
            assert metrics.REGISTRY.get_sample_value("streamsvc_cluster_nodes") == 2
        await until(lambda: set(one.nodes) == {"one"})
        assert one.advertise_of("two") is None


async def test_a_redis_that_is_down_at_start_is_a_plain_error(redis_server: RedisServer) -> None:
    redis_server.kill()
    node = ClusterNode(setup_of(redis_server, "one"))
    with pytest.raises(ConfigError, match=r"cluster.url: Redis, .* does not answer") as failed:
        await node.start()
    assert str(redis_server.port) not in str(failed.value)
    assert failed.value.__suppress_context__


async def test_a_redis_of_somebody_else_is_a_plain_error(redis_server: RedisServer) -> None:
    node = ClusterNode(setup_of(redis_server, "one"))
    await node.redis.run("HSET", node.redis.key("nodes"), "other", "no record")
    with pytest.raises(ConfigError, match=r"cluster.prefix"):
        await node.start()


async def test_a_node_with_other_keys_is_refused(redis_server: RedisServer) -> None:
    async with node_of(redis_server):
        stranger = ClusterNode(setup_of(redis_server, "two", keys="other"))
        with pytest.raises(ConfigError, match="node 'one' of this cluster signs with other keys"):
            await stranger.start()


async def test_a_name_is_of_one_living_node(redis_server: RedisServer) -> None:
    async with node_of(redis_server, lease_seconds=SHORT):
        double = ClusterNode(setup_of(redis_server, "one", lease_seconds=SHORT))
        with pytest.raises(ConfigError, match="another node of this cluster is named 'one'"):
            await double.start()


async def test_a_node_that_died_joins_again_under_its_name(redis_server: RedisServer) -> None:
    dead = ClusterNode(setup_of(redis_server, "one", lease_seconds=SHORT))
    await dead.registry.join(dead.record())
    await dead.redis.close()
    async with node_of(redis_server, lease_seconds=SHORT) as node:  # waits for its own lease
        assert node.nodes["one"].instance != dead.record().instance


async def test_a_record_that_is_none_ends_no_heartbeat(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        key, seen = node.redis.key("nodes"), set[bytes]()
        await node.redis.run("HSET", key, "other", "no record")
        async with asyncio.timeout(10):
            while len(seen) < 4:
                found = await node.redis.run("HGET", key, "one")
                seen |= {found} if isinstance(found, bytes) else set()
                await asyncio.sleep(0.02)
        assert node.up


async def test_a_lease_outlives_heartbeats_and_not_the_node(redis_server: RedisServer) -> None:
    async with node_of(redis_server, "two") as two:
        async with node_of(redis_server, lease_seconds=1.5) as node:
            own = Own()
            copy = node.copy_of(SESSION, FACTS)
            copy.begin(own)
            await copy.write(own.add())
            await asyncio.sleep(2.0)
            assert await two.registry.owner(SESSION) == (copy.claim.owner if copy.claim else None)
        assert await two.registry.owner(SESSION) is None  # given back
        assert (await two.log.look([SESSION]))[SESSION].stalled  # nobody has told its end


async def test_a_node_that_is_listed_has_renewed_its_claims(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_of(redis_server, heartbeat_seconds=5.0) as node:
        copy = node.copy_of(SESSION, FACTS)
        copy.begin(Own())
        await until(lambda: not copy.behind)
        renewed: list[bool] = []
        join, renew = node.registry.join, node.registry.renew

        async def joining(record: NodeRecord) -> bool:
            renewed.append(False)
            return await join(record)

        async def renewing(claims: Sequence[Claim]) -> list[Renewed]:
            renewed.append(True)
            return await renew(claims)

        monkeypatch.setattr(node.registry, "join", joining)
        monkeypatch.setattr(node.registry, "renew", renewing)
        await node._beat_once()
        assert renewed[:2] == [True, False]


async def test_an_outage_is_seen_without_any_session_and_its_end_too(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        assert node.up
        redis_server.kill()
        await until(lambda: not node.up)
        redis_server.start()
        await until(lambda: node.up)
        assert node.registry.back > 0


async def test_a_slow_redis_is_noted_for_takeovers(redis_server: RedisServer) -> None:
    async with node_of(redis_server, write_seconds=0.05) as node:
        redis_server.hang()
        await asyncio.sleep(0.3)
        redis_server.go_on()
        await until(lambda: node.registry.back > 0)
        assert node.up


async def test_what_an_ended_process_has_not_copied_is_counted(redis_server: RedisServer) -> None:
    before = metrics.REGISTRY.get_sample_value("streamsvc_events_unwritten_total") or 0.0
    async with node_of(redis_server) as node:
        own = Own()
        copy = node.copy_of(SESSION, FACTS)
        copy.begin(own)
        await copy.write(own.add())
        redis_server.kill()
        await copy.write(own.add(2))
    assert metrics.REGISTRY.get_sample_value("streamsvc_events_unwritten_total") == before + 2


def test_a_name_is_made_once(tmp_path: Path) -> None:
    made = node_name(Cluster(), tmp_path)
    assert made
    assert node_name(Cluster(), tmp_path) == made
    assert (tmp_path / NAME_FILE).read_text() == made
    assert node_name(Cluster(node="chosen"), tmp_path) == "chosen"


def test_a_name_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set cluster.node"):
        node_name(Cluster(), tmp_path / "none")


def test_a_digest_tells_equal_keys_and_none_of_them() -> None:
    assert digest("secret", "key") == digest("secret", "key")
    assert len({digest("secret", "key"), digest("secret", "other"), digest("other", "key")}) == 3
    assert digest("secret", "a", "b") != digest("secret", "ab")
    assert "key" not in digest("secret", "key")
