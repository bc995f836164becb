"""Where a session of a cluster lives, as each node finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc.core.errors import NotFound
from streamsvc.service.cluster_sessions import stalled
from streamsvc.service.media_input import State
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
