"""Sessions of a cluster by id, by name and in the list, as any node finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc.service.shared_directory import state_after
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.nodes import pair, published
from tests.builders.redis_server import RedisServer
from tests.builders.units import cue, screen


@pytest.mark.parametrize(
    ("state", "kind", "tracks", "after"),
    [
        ("created", "session.created", [], "created"),
        ("created", "session.updated", ["audio"], "live"),
        ("live", "session.updated", ["audio", "video"], "live"),
        ("stalled", "session.updated", ["audio"], "stalled"),
        ("live", "session.updated", [], "created"),
        ("live", "session.stalled", None, "stalled"),
        ("stalled", "session.resumed", None, "live"),
        ("live", "session.degraded", None, "live"),
        ("live", "session.closed", None, "ended"),
    ],
)
def test_events_tell_the_state_of_a_session(
    state: str, kind: str, tracks: list[str] | None, after: str
) -> None:
    assert state_after(state, kind, tracks) == after


async def test_a_name_leads_to_its_live_broadcast_wherever_it_is(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        first = await published(one)
        first.end("deleted")
        await first.over.wait()
        await two.part.node.redis.run("DEL", two.part.node.redis.key("door", "talk"))
        second = await published(two)
        assert second.id != first.id
        found = await one.part.remote.directory.find("talk")
        assert found is not None and found.id == second.id
        assert (await one.client.get("/v1/sessions/talk")).json()["id"] == second.id
        assert (await two.client.get(f"/v1/sessions/{first.id}")).json()["state"] == "ended"
        assert await one.part.remote.directory.find("nothing") is None


async def test_the_list_has_the_sessions_of_all_nodes_once_in_order_and_in_pages(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        names = []
        for number, at in enumerate((one, two, one, two, one)):
            session = await published(at, f"s{number}")
            session.dispatch(cue(f"said in {number}", 0.0))
            session.dispatch(screen(0.5, f"Title {number}"))
            await session.log.flush()
            names.append(session.id)
        for at in (one, two):
            listed: list[str] = []
            after: str | None = ""
            while after is not None:
                query = {"limit": "2"} | ({"after": after} if after else {})
                page = (await at.client.get("/v1/sessions", params=query)).json()
                assert len(page["sessions"]) <= 2
                listed += [entry["id"] for entry in page["sessions"]]
                after = page["next"]
            assert listed == names[::-1]
        entries = {entry["id"]: entry for entry in (await two.client.get("/v1/sessions")).json()["sessions"]}
        other = entries[names[0]]
        assert (other["state"], other["last_caption"], other["title"]) == ("live", "said in 0", "Title 0")
        ended = await two.client.get("/v1/sessions", params={"state": "ended"})
        assert ended.json()["sessions"] == []


async def test_while_redis_is_away_a_node_lists_its_own(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        mine = await published(one, "mine")
        await published(two, "other")
        redis_server.kill()
        await until(lambda: not one.part.node.up)
        listed = (await one.client.get("/v1/sessions")).json()["sessions"]
        assert [entry["id"] for entry in listed] == [mine.id]
        assert (await one.client.get("/v1/sessions/mine")).status_code == 200
        gone = await one.client.get("/v1/sessions/other")
        assert (gone.status_code, gone.json()["error"]["code"]) == (503, "cluster_unavailable")
