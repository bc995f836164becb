"""Nodes keep equal: a token revoked at one is refused at all, and what is erased at one is at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamsvc.service import cluster_upkeep, takeover
from streamsvc.service.cluster_sessions import ERASED
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from streamsvc.service.stored_sessions import StoredSessions
from tests.builders.cluster import until
from tests.builders.fake_service import Peer, kept
from tests.builders.nodes import Node, eventually, node, pair, published, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.session import sends
from tests.builders.spoken import KEY
from tests.builders.units import cue

KEYED = {"server": {"api_key": KEY}}
OWNER = {"Authorization": f"Bearer {KEY}"}


async def test_a_token_that_is_revoked_at_one_node_is_refused_at_all(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pair(redis_server, tmp_path, **KEYED) as (one, two):
        body = {"may": ["subscribe"], "expires_in": 60}
        made = (await one.client.post("/v1/tokens", json=body, headers=OWNER)).json()
        mine = {"Authorization": f"Bearer {made['token']}"}
        assert (await two.client.get("/v1/sessions", headers=mine)).status_code == 200
        assert (await one.client.delete(f"/v1/tokens/{made['jti']}", headers=OWNER)).status_code == 204
        await until(lambda: two.service.auth.revoked.covers(made["jti"]))
        refused = await two.client.get("/v1/sessions", headers=mine)
        assert error_of(refused) == (401, "token_revoked")
        kept = tmp_path / "two" / "~revoked.json"  # after a restart too; refused before it is on the disk
        await until(lambda: kept.exists() and made["jti"] in kept.read_text())
        # A node that joins later, and one that revokes while Redis is away, are told too.
        async with silent_node(redis_server, tmp_path, "three", **KEYED) as three:
            await until(lambda: three.service.auth.revoked.covers(made["jti"]))


async def test_what_was_revoked_while_redis_was_away_is_told_on_its_return(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        redis_server.kill()
        await until(lambda: not one.part.node.up)
        one.service.auth.revoked.add("abcdefghijkl", 60.0, by_owner=True)
        redis_server.start()
        await until(lambda: two.service.auth.revoked.covers("abcdefghijkl.mnopqrstuvwx"))


async def test_a_session_that_is_erased_at_one_node_is_erased_at_the_one_that_has_its_files(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        session.end("deleted")
        await session.over.wait()
        assert session.id in kept(tmp_path / "one")
        redis = one.part.node.redis
        one.cut_off()
        await until(lambda: "one" not in two.part.node.nodes)
        assert (await two.client.delete(f"/v1/sessions/{session.id}?purge=1")).status_code == 200
        for name in ("run", "scripts", "pipeline"):
            delattr(redis, name)  # it reaches Redis again
        await until(lambda: session.id not in one.service.sessions.by_id)
        assert session.id not in kept(tmp_path / "one")


async def test_a_node_that_starts_again_leaves_a_session_that_was_cut_off_to_the_cluster(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "two") as two:
        async with silent_node(redis_server, tmp_path, "one") as one:
            session = await published(one)
            session.dispatch(cue("before", 0.0))
            await session.log.flush()
            one.cut_off()
            await asyncio.to_thread(_copied, tmp_path / "one" / session.id, tmp_path / "again" / session.id)
        await two.part.upkeep.erase()
        async with silent_node(redis_server, tmp_path, "again") as again:
            assert session.id not in again.service.sessions.stored.by_id
            assert session.id not in kept(tmp_path / "again")
            listed = (await again.client.get("/v1/sessions")).json()["sessions"]
            assert [entry["id"] for entry in listed] == [session.id]
            assert (await eventually(again, "talk")).id == session.id
        sends(session)


def _copied(folder: Path, to: Path) -> None:
    """A session's folder, as a process that was killed has left it."""
    to.mkdir(parents=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())


async def stalled_long_ago(one: Node, two: Node) -> Session:
    """A live session of the first node, which has not renewed its lease for long."""
    session = await published(one)
    one.cut_off()
    redis, now = two.part.node.redis, await two.part.node.registry.now()
    await redis.run("DEL", redis.of(session.id, "owner"))
    await redis.run("HSET", redis.of(session.id, "meta"), "renewed", now - 100_000)
    return session


async def test_after_an_outage_of_redis_the_sessions_of_others_have_time_to_be_told_of(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_upkeep, "LOST_SECONDS", 3600.0)  # this test looks itself
    async with pair(redis_server, tmp_path) as (one, two):
        session = await stalled_long_ago(one, two)
        upkeep, node = two.part.upkeep, two.part.node
        node.contact.lost()
        await upkeep.close_lost()
        assert (await eventually(two, session.id)).stalled, "this node does not know yet who lives"
        node.contact.found()
        node.registry.back = await node.registry.now()
        await upkeep.close_lost()
        assert (await eventually(two, session.id)).stalled, "its node could not renew the lease"
        node.registry.back = 0
        await upkeep.close_lost()
        assert (await eventually(two, session.id)).ended


async def test_a_session_of_a_node_that_has_lost_redis_alone_is_not_closed(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_upkeep, "LOST_SECONDS", 3600.0)
    monkeypatch.setattr(takeover, "_PROBE_SECONDS", 30.0)
    async with node(redis_server, tmp_path, "one") as one, silent_node(redis_server, tmp_path, "two") as two:
        session = await stalled_long_ago(one, two)
        await until(lambda: "one" not in two.part.node.nodes)
        await two.part.upkeep.close_lost()
        assert (await eventually(two, session.id)).stalled
        for name in ("run", "scripts", "pipeline"):
            delattr(one.part.node.redis, name)  # it reaches Redis again
        async with asyncio.timeout(10):
            while (await eventually(two, session.id)).owner is None:  # noqa: ASYNC110 - in Redis
                await asyncio.sleep(0.02)
        assert session.state is State.LIVE
        assert one.service.sessions.by_id[session.id] is session


async def test_nothing_is_looked_for_where_nothing_is_stored(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as one:
        await one.part.upkeep.forget_stale()
        await one.part.upkeep.close_lost()
        assert isinstance(one.service.sessions.stored, StoredSessions)
        assert one.service.sessions.stored.by_id == {}


async def test_revocations_that_are_over_leave_redis(redis_server: RedisServer, tmp_path: Path) -> None:
    async with silent_node(redis_server, tmp_path, "one") as one:
        redis = one.part.node.redis
        revoked = redis.key("revoked")
        await redis.run("ZADD", revoked, 1, "long-ago")
        one.service.auth.revoked.add("abcdefghijkl", 60.0, by_owner=True)
        await one.part.upkeep.share_revocations()
        assert await redis.run("ZRANGE", revoked, 0, -1) == [b"abcdefghijkl"]


async def test_a_live_session_is_not_erased_for_what_redis_says(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as one:
        session, node = await published(one), one.part.node
        now = await node.registry.now()
        await node.redis.run("ZADD", node.redis.key(ERASED), now, session.id)
        await one.part.upkeep.erase()
        assert one.service.sessions.by_id[session.id] is session
        assert session.id in kept(tmp_path / "one")


async def test_a_disk_that_holds_more_than_redis_is_kept(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as one:
        session = await published(one)
        one.cut_off()
        for number in range(3):
            session.dispatch(cue(f"said without Redis {number}", float(number)))
        await session.log.flush()
        await asyncio.to_thread(_copied, tmp_path / "one" / session.id, tmp_path / "again" / session.id)
        async with silent_node(redis_server, tmp_path, "again") as again:
            assert session.id in again.service.sessions.stored.by_id
        assert session.id in kept(tmp_path / "again")


async def test_the_publisher_of_a_dead_node_has_time_to_come_back(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session, redis = await published(one), two.part.node.redis
        one.cut_off()
        await redis.run("DEL", redis.of(session.id, "owner"))
        await two.part.upkeep.close_lost()
        assert (await eventually(two, session.id)).stalled
