"""Where a session of a cluster lives, as each node finds it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from streamsvc.cluster.records import Claim
from streamsvc.cluster.redis_client import number
from streamsvc.core.errors import Conflict, NotFound
from streamsvc.service.cluster_sessions import ERASED, stalled
from streamsvc.service.media_input import State
from tests.builders.cluster import FACTS, SESSION, until
from tests.builders.fake_service import Peer
from tests.builders.nodes import pair, published
from tests.builders.redis_server import RedisServer


async def test_a_session_lives_where_its_publisher_is(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        here, there = await one.part.sessions.locate("talk"), await two.part.sessions.locate("talk")
        assert (here.id, here.shared, here.node) == (session.id, None, "")
        assert (there.id, there.node, there.advertise) == (session.id, one.address, one.address)
        assert there.shared is not None
        assert await one.part.sessions.open("talk") is None
        for address in (session.id, "talk"):
            assert one.part.sessions.is_live_here(address) and not two.part.sessions.is_live_here(address)
        nowhere = await two.part.sessions.locate("nothing")
        assert (nowhere.id, nowhere.shared) == ("nothing", None)
        with pytest.raises(NotFound):
            await two.session("nothing")
        refusal = stalled(there)
        assert (refusal.status, refusal.retryable) == (503, True)


async def test_an_ended_session_is_read_everywhere_and_asked_where_its_files_are(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        session.end("deleted")
        await session.over.wait()
        assert (await one.part.sessions.locate("talk")).shared is None, "its own"
        place = await two.part.sessions.locate("talk")
        assert place.node == one.address
        followed = await two.session("talk")
        assert (followed.state, followed.id) == (State.ENDED, session.id)
        assert followed.log.seq == session.log.seq


async def test_an_ended_session_is_erased_from_any_node(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        session.end("deleted")
        await session.over.wait()
        assert (await one.client.delete("/v1/sessions/talk?purge=1")).status_code == 200
        assert await two.part.remote.directory.find(session.id) is None
        with pytest.raises(NotFound):
            await two.session("talk")


async def test_one_node_alone_begins_a_broadcast_and_another_may_after_a_while(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        await one.part.sessions.begin("talk")
        await one.part.sessions.begin("talk")
        with pytest.raises(Conflict) as begun:
            await two.part.sessions.begin("talk")
        assert begun.value.code == "already_publishing"
        redis = one.part.node.redis
        assert 0 < number(await redis.run("PTTL", redis.key("door", "talk"))) <= 3000


async def test_of_other_nodes_sessions_those_of_the_token_are_listed(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        talk, other = await published(one), await published(one, "other")
        listed = functools.partial(two.part.sessions.listed, states=(), count=9, before=None)
        assert {entry.id for entry in await listed((), "*")} == {talk.id, other.id}
        assert [entry.id for entry in await listed((), "talk")] == [talk.id]
        assert [entry.id for entry in await listed((), other.id)] == [other.id]


async def test_ids_of_erased_sessions_are_dropped_after_a_while(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pair(redis_server, tmp_path) as (one, _):
        redis = one.part.node.redis
        await redis.run("ZADD", redis.key(ERASED), 1, "long-ago")
        await one.part.sessions.forget("now")
        assert await redis.run("ZRANGE", redis.key(ERASED), 0, -1) == [b"now"]


async def test_for_a_live_session_of_this_node_redis_is_not_asked(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(address: str) -> None:
        asked.append(address)

    async with pair(redis_server, tmp_path) as (one, _):
        session, asked = await published(one), list[str]()
        monkeypatch.setattr(one.part.remote.directory, "find", find)
        assert (await one.part.sessions.locate("talk")).id == session.id
        assert asked == []


async def test_what_an_earlier_process_of_this_node_had_lives_nowhere(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        claim = await one.part.node.registry.claim(SESSION)
        assert isinstance(claim, Claim)
        facts = FACTS | {"node": "one"}
        await one.part.node.log.write([one.part.node.log.facts(claim, facts)])
        await until(lambda: "one" in two.part.node.nodes and "one" in one.part.node.nodes)
        assert (await two.part.sessions.locate(SESSION)).node == one.address
        assert (await one.part.sessions.locate(SESSION)).node == "", "it asks itself for nothing"
