"""Publishers are sent where their sessions live or find room: 307 with a ticket that is used once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from playwright.async_api import expect
from starlette.responses import HTMLResponse

from streamsvc.ingest.peer import Peer as WebRtcPeer
from streamsvc.service.media_input import State
from streamsvc.service.publish_places import LivesElsewhere
from tests.builders.browser import CHROMIUM
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.http_server import listening
from tests.builders.nodes import Node, eventually, node, pair, published, silent_node
from tests.builders.publishing_page import publishing_page
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.session import Sender, sends
from tests.builders.spoken import KEY

SDP = {"Content-Type": "application/sdp"}
OWNER = {"Authorization": f"Bearer {KEY}"}
LIVE = re.compile("^Live")  # "; captions are late: this machine is busy" may follow
in_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
)


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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(one.part.publishing, "_free", lambda kind: "http://three.example")
            async with httpx.AsyncClient() as publisher:
                refused = await publisher.post(sent.headers["location"], content="good", headers=SDP)
        assert error_of(refused) == (503, "capacity")
        await until(lambda: two.part.node.nodes["one"].free["audio"] == 0)
        nowhere = await two.client.post("/whip/second", content="good", headers=SDP)
        assert error_of(nowhere) == (503, "capacity")


async def test_a_session_that_waits_at_a_full_node_is_sought_nowhere_else(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    full = {"limits": {"sessions": 1}, "budget": {"admission": False}}
    async with pair(redis_server, tmp_path, **full) as (one, two):
        made = await two.client.post("/v1/sessions", json={"name": "talk"})
        await published(two, "first")
        await until(lambda: one.part.node.name in two.part.node.nodes)
        for address in ("talk", made.json()["id"]):
            refused = await two.client.post(f"/whip/{address}", content="good", headers=SDP)
            assert error_of(refused) == (503, "capacity")


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


# --- browsers -----------------------------------------------------------------------------------------------


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_ticket_lets_the_page_that_was_sent_publish_and_no_other(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], key: str | None
) -> None:
    own = {"server": {"api_key": key}}
    async with (
        node(redis_server, tmp_path, "one", **own) as one,
        node(redis_server, tmp_path, "two", **own) as two,
    ):
        await published(one)
        await eventually(two, "talk")
        mine = SDP | OWNER | {"Origin": two.address}
        location = (await two.client.post("/whip/talk", content="good", headers=mine)).headers["location"]

        async def answered(method: str, origin: str, address: str = location) -> tuple[int, str | None]:
            headers = {"Origin": origin} | (PREFLIGHT if method == "OPTIONS" else SDP)
            content = "good" if method == "POST" else ""
            answer = await one.client.request(method, address, content=content, headers=headers)
            return answer.status_code, answer.headers.get("access-control-allow-origin")

        refused = 204 if key else 403  # without a key a foreign origin reaches no door
        forged, bare = location[:-3] + "aaa", location.partition("?")[0]
        for address in (forged, bare, location.replace("/whip/talk?", "/whip/other?")):
            assert await answered("OPTIONS", two.address, address) == (refused, None)
        assert await answered("OPTIONS", "https://evil.example") == (refused, None)
        for origin in (two.address, "null", two.address):
            assert await answered("OPTIONS", origin) == (204, origin), "a preflight uses no ticket up"
        (await one.session("talk")).media.publisher_state(peers[0], "closed", "unpublished")
        assert await answered("POST", two.address) == (201, two.address)
        assert await answered("POST", two.address) == (401, two.address), "and may read why"


async def test_a_page_that_may_not_read_an_answer_has_no_ticket(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    """Its token is right, so it is sent on; its browser stops there, and the other node does not know it."""
    own = {"server": {"api_key": KEY}}
    async with pair(redis_server, tmp_path, **own) as (one, two):
        await published(one)
        await eventually(two, "talk")
        foreign = "https://evil.example"
        sent = await two.client.post("/whip/talk", content="good", headers=SDP | OWNER | {"Origin": foreign})
        assert (sent.status_code, sent.headers.get("access-control-allow-origin")) == (307, None)
        path = sent.headers["location"].removeprefix(one.address)
        for origin in (foreign, "null"):
            preflight = await one.client.options(path, headers={"Origin": origin} | PREFLIGHT)
            assert "access-control-allow-origin" not in preflight.headers


async def test_pages_may_connect_to_the_other_nodes(redis_server: RedisServer, tmp_path: Path) -> None:
    below = {"cluster": {"advertise": "https://captions.example/node/2"}}
    odd = {"cluster": {"advertise": "http://[::1]:8080"}}  # no source of a policy
    async with (
        silent_node(redis_server, tmp_path, "one") as one,
        silent_node(redis_server, tmp_path, "two", **below) as two,
        silent_node(redis_server, tmp_path, "three", **odd) as three,
    ):
        nodes = [one, two, three]
        await until(lambda: all(len(at.part.node.nodes) == 3 for at in nodes))
        assert one.part.publishing.origins() == ["https://captions.example"]
        assert two.part.publishing.origins() == [one.address]
        page = await one.client.get("/")
        policy = page.headers["content-security-policy"]
        assert "; connect-src 'self' ws: wss: https://captions.example; " in policy


async def fill(at: Node) -> None:
    """Have one live session at a node, as the peer of a publisher would."""
    async with at.service.publications.session_for("other") as session:
        session.media.attach(Sender())
    sends(session)


@pytest.mark.browser
@in_chromium
async def test_the_page_of_a_full_node_publishes_at_another_origin_without_its_token(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    full = {"server": {"api_key": KEY}, "limits": {"sessions": 1}, "budget": {"admission": False}}
    async with (
        node(redis_server, tmp_path, "one", **full) as one,
        node(redis_server, tmp_path, "two", **full) as two,
        # The list of sessions before there is a token; the list's picture of a session without any.
        publishing_page(tmp_path, ("status of 401", "status of 404")) as (page, asked),
    ):
        await fill(one)
        await until(lambda: "two" in one.part.node.nodes)
        await page.goto(one.address)
        await page.get_by_text("Access token", exact=True).click()
        await page.fill("#token", KEY)
        await page.click("#start")
        await expect(page.locator("#status-text")).to_have_text(LIVE, timeout=30_000)
        await expect(page.locator("#transcript li").first).to_be_visible(timeout=30_000)  # by way of Redis
        (session,) = two.service.sessions.live
        assert page.url == f"{one.address}/#session={session.id}"
        assert isinstance(session.media.publisher, WebRtcPeer)
        assert set(session.media.tracks) == {"audio", "video"}
        await page.click("#stop")
        await expect(page.locator("#status-text")).to_have_text("Ended", timeout=30_000)
        await until(lambda: session.state is State.ENDED)
    sent = [(each.method, each.origin, each.status, each.has_token, each.page) for each in asked]
    assert sent[:2] == [
        ("POST", one.address, 307, True, one.address),
        ("POST", two.address, 201, False, one.address),
    ]
    # What follows goes to the node that the page is of, which passes it on: no other origin has the token.
    assert sent[-1] == ("DELETE", one.address, 200, True, one.address)
    assert [each for each in asked if each.has_token and each.origin != one.address] == []


ELSEWHERE = """
async ([service, token]) => {
  const { Publication } = await import(`${service}/web/whip.js`);
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  const states = [];
  const onState = ({ state }) => states.push(state);
  const publication = new Publication(stream, { session: "talk", token, onState });
  Object.assign(window, { publication, states });
  await publication.start();
}
"""


@pytest.mark.browser
@in_chromium
async def test_a_page_of_a_third_origin_publishes_where_its_session_lives(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """After the redirect its browser tells the origin "null"; the ticket holds the true one."""
    html = HTMLResponse("<!doctype html><link rel=icon href=data:,><title>elsewhere</title>")
    pages = uvicorn.Config(html, lifespan="off", log_config=None, access_log=False)
    async with contextlib.AsyncExitStack() as stack:
        elsewhere = f"http://localhost:{await stack.enter_async_context(listening(pages))}"
        listed = {"server": {"api_key": KEY, "origins": [elsewhere]}}
        one = await stack.enter_async_context(node(redis_server, tmp_path, "one", **listed))
        two = await stack.enter_async_context(node(redis_server, tmp_path, "two", **listed))
        page, asked = await stack.enter_async_context(publishing_page(tmp_path))
        await one.client.post("/v1/sessions", json={"name": "talk"}, headers=OWNER)
        session = await one.session("talk")
        await session.log.flush()
        await until(lambda: "one" in two.part.node.nodes)
        await page.goto(elsewhere)
        await page.evaluate(ELSEWHERE, [two.address, KEY])
        await page.wait_for_function("states.includes('live')", timeout=30_000)
        await until(lambda: session.state is State.LIVE)
        await page.evaluate("publication._trickle(publication._pc, [], true)")
        await page.evaluate("publication.stop()")
        await until(lambda: session.media.publisher is None)
    sent = [(each.method, each.origin, each.status, each.has_token, each.page) for each in asked]
    assert sent[:2] == [
        ("POST", two.address, 307, True, elsewhere),
        ("POST", one.address, 201, False, "null"),
    ]
    assert set(sent[2:]) == {
        ("PATCH", two.address, 204, True, elsewhere),
        ("DELETE", two.address, 200, True, elsewhere),
    }
