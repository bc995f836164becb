"""Nodes keep equal: a token revoked at one is refused at all, and what is erased at one is at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamsvc.service.stored_sessions import StoredSessions
from tests.builders.cluster import until
from tests.builders.fake_service import Peer, kept
from tests.builders.nodes import eventually, pair, published, silent_node
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
        assert made["jti"] in (tmp_path / "two" / "~revoked.json").read_text(), "after a restart too"
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


async def test_nothing_is_looked_for_where_nothing_is_stored(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as one:
        await one.part.upkeep.forget_stale()
        await one.part.upkeep.close_lost()
        assert isinstance(one.service.sessions.stored, StoredSessions)
        assert one.service.sessions.stored.by_id == {}
