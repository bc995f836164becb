"""Publishers are sent where their sessions live or find room: 307 with a ticket that is used once."""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from streamsvc.service.media_input import State
from streamsvc.service.publish_places import LivesElsewhere
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.nodes import node, pair, published, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.spoken import KEY

SDP = {"Content-Type": "application/sdp"}
OWNER = {"Authorization": f"Bearer {KEY}"}


async def test_a_publisher_follows_to_the_node_that_its_session_lives_on_without_its_token(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    keyed = {"server": {"api_key": KEY}}
    async with (
        node(redis_server, tmp_path, "one", **keyed) as one,
        silent_node(redis_server, tmp_path, "two", **keyed) as two,
    ):
        made = await one.client.post("/v1/sessions", json={"name": "talk"}, headers=OWNER)
        session = await one.session("talk")
        await session.log.flush()
        await until(lambda: not session.log.followed)
        body = {"session": "talk", "may": ["publish"], "expires_in": 60}
        token = (await one.client.post("/v1/tokens", json=body, headers=OWNER)).json()["token"]
        mine = SDP | {"Authorization": f"Bearer {token}"}
        sent = await two.client.post("/whip/talk", content="good", headers=mine)
        assert (sent.status_code, sent.json()["error"]["code"]) == (307, "another_node")
        location = sent.headers["location"]
        assert location.startswith(f"{one.address}/whip/talk?ticket=")
        assert token not in location
        async with httpx.AsyncClient() as publisher:  # which has dropped the token
            forged = await publisher.post(location[:-3] + "aaa", content="good", headers=SDP)
            assert error_of(forged) == (401, "bad_ticket")
            elsewhere = location.replace("/whip/talk?", "/whip/other?")
            assert error_of(await publisher.post(elsewhere, content="good", headers=SDP)) == (
                401,
                "bad_ticket",
            )
            answer = await publisher.post(location, content="good", headers=SDP)
            assert answer.status_code == 201, answer.text
            again = await publisher.post(location, content="good", headers=SDP)
            assert error_of(again) == (401, "ticket_used")
            search = await publisher.get(f"{one.address}/v1/sessions/talk?{urlsplit(location).query}")
            assert search.status_code == 401, "it opens nothing but the door that it is for"
        assert session.media.publisher is peers[0]
        assert session.id == made.json()["id"]
        resource = f"/whip/{answer.headers['location']}"
        ended = await two.client.delete(resource, headers=mine)
        assert ended.status_code == 200, "by way of the other node"
        assert session.media.publisher is None


async def test_curl_follows_and_its_token_does_not(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    if (curl := shutil.which("curl")) is None:
        pytest.skip("curl is not installed (Debian: curl)")
    keyed = {"server": {"api_key": KEY}}
    async with (
        node(redis_server, tmp_path, "one", **keyed) as one,
        node(redis_server, tmp_path, "two", **keyed) as two,
    ):
        await one.client.post("/v1/sessions", json={"name": "talk"}, headers=OWNER)
        session = await one.session("talk")
        await session.log.flush()
        options = ["-sS", "-L", "-i", "-v", "-H", "Content-Type: application/sdp", "--data-binary", "good"]
        running = await asyncio.create_subprocess_exec(
            *(curl, *options, "-H", f"Authorization: Bearer {KEY}", f"{two.address}/whip/talk"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        answer, said = await asyncio.wait_for(running.communicate(), 20)
        assert b"307" in answer and b"HTTP/1.1 201" in answer, answer
        assert said.count(f"Bearer {KEY}".encode()) == 1, "the first request alone had it"
        assert session.media.publisher is peers[0]


async def test_a_full_node_sends_publishers_to_a_free_one_and_nobody_is_sent_twice(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    full = {"limits": {"sessions": 1}, "budget": {"admission": False}}
    async with (
        node(redis_server, tmp_path, "one", **full) as one,
        silent_node(redis_server, tmp_path, "two", **full) as two,
    ):
        await published(two, "first")
        await until(lambda: one.part.node.name in two.part.node.nodes)
        sent = await two.client.post("/whip/second", content="good", headers=SDP)
        assert sent.status_code == 307
        await published(one, "third")  # meanwhile it is full too
        async with httpx.AsyncClient() as publisher:
            refused = await publisher.post(sent.headers["location"], content="good", headers=SDP)
        assert error_of(refused) == (503, "capacity")
        await until(lambda: two.part.node.nodes["one"].free["audio"] == 0)
        nowhere = await two.client.post("/whip/second", content="good", headers=SDP)
        assert error_of(nowhere) == (503, "capacity")


async def test_a_session_without_a_name_finds_room_too(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    full = {"limits": {"sessions": 1}, "budget": {"admission": False}}
    async with (
        node(redis_server, tmp_path, "one", **full) as one,
        silent_node(redis_server, tmp_path, "two", **full) as two,
    ):
        await published(two, "first")
        await until(lambda: "one" in two.part.node.nodes)
        sent = await two.client.post("/whip", content="good", headers=SDP)
        async with httpx.AsyncClient() as publisher:
            answer = await publisher.post(sent.headers["location"], content="good", headers=SDP)
        assert answer.status_code == 201, answer.text
        assert [session.state for session in one.service.sessions.live] == [State.LIVE]


async def test_two_nodes_do_not_begin_a_broadcast_of_one_name(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        answers = [await at.client.post("/whip/talk", content="good", headers=SDP) for at in (one, two)]
        assert answers[0].status_code == 201
        assert answers[1].status_code in (307, 409)
        assert two.service.sessions.by_id == {}


async def test_a_publisher_waits_while_another_node_begins_the_broadcast(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        await two.part.sessions.begin("talk")
        refused = await one.client.post("/whip/talk", content="good", headers=SDP)
        assert error_of(refused) == (409, "already_publishing")
        assert one.service.sessions.by_id == {}


async def test_a_live_name_is_taken_at_all_nodes(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        taken = await two.client.post("/v1/sessions", json={"name": "talk"})
        assert error_of(taken) == (409, "name_taken")
        session.end("deleted")
        await session.over.wait()
        await two.part.node.redis.run("DEL", two.part.node.redis.key("door", "talk"))
        assert (await two.client.post("/v1/sessions", json={"name": "talk"})).status_code == 201
        begun = await one.client.post("/v1/sessions", json={"name": "talk"})
        assert error_of(begun)[0] == 409, "another node begins it, or has begun it"


async def test_samples_by_websocket_are_told_where_their_session_lives(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        place = functools.partial(two.service.sessions.place, None, "local", "audio")
        with pytest.raises(LivesElsewhere) as elsewhere:
            await two.part.publishing.prepare("talk", place)
        assert elsewhere.value.node == one.address and one.address in str(elsewhere.value)
        await one.part.publishing.prepare("talk", place)
        assert session.state is State.LIVE


async def test_while_redis_is_away_a_publisher_is_taken_where_it_asks(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as one:
        redis_server.kill()
        answer = await one.client.post("/whip/talk", content="good", headers=SDP)
        assert answer.status_code == 201, answer.text
