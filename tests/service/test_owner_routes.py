"""Questions, watches and changes at any node reach the owner, and private answers the asker alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from streamsvc.service import owner_routes, rights
from streamsvc.service.forwarding import Forwarder
from streamsvc.service.media_input import State
from streamsvc.service.node_signature import Forwarded
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.nodes import node, pair, published, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of, socket_of
from tests.builders.spoken import KEY

KEYED = {"server": {"api_key": KEY}}
OWNER = {"Authorization": f"Bearer {KEY}"}
BASE = "/v1/sessions/talk"


def test_each_forwarded_door_is_one_that_there_is() -> None:
    assert set(rights.DOORS) >= owner_routes.OWNERS


async def test_what_changes_a_session_is_done_by_its_owner(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with node(redis_server, tmp_path, "one") as one, silent_node(redis_server, tmp_path, "two") as two:
        session = await published(one)
        changed = await two.client.patch(BASE, json={"vocabulary": ["Ada"]})
        assert (changed.status_code, changed.json()["vocabulary"]) == (200, ["Ada"])
        assert session.speech.options.vocabulary == ("Ada",)
        added = await two.client.post(f"{BASE}/watches", json={"when": "a cat appears"})
        assert added.status_code == 201, added.text
        assert [watch["id"] for watch in session.watches.all()] == [added.json()["id"]]
        assert (await two.client.get(f"{BASE}/watches")).json() == session.watches.all()
        removed = await two.client.delete(f"{BASE}/watches/{added.json()['id']}")
        assert (removed.status_code, session.watches.all()) == (200, [])
        wrong = await two.client.patch(BASE, json={"language": "klingon"})
        assert error_of(wrong) == (400, "unknown_language")
        stats = (await two.client.get(f"{BASE}/stats")).json()
        assert "audio" in stats["ingest"], "what the publisher sends, the owner alone knows"
        assert (await two.client.delete(BASE)).status_code == 200
        await session.over.wait()
        assert session.state is State.ENDED


async def test_an_answer_comes_back_to_its_asker_alone(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with (
        node(redis_server, tmp_path, "one", **KEYED) as one,
        silent_node(redis_server, tmp_path, "two", **KEYED) as two,
    ):
        session = await published(one)
        tokens = []
        for _ in range(2):
            body = {"session": "talk", "may": ["ask", "subscribe"], "expires_in": 60}
            made = await two.client.post("/v1/tokens", json=body, headers=OWNER)
            tokens.append({"Authorization": f"Bearer {made.json()['token']}"})
        mine, other = tokens
        asked = await two.client.post(f"{BASE}/questions", json={"text": "Anything?"}, headers=mine)
        assert asked.status_code == 202, asked.text
        number = asked.json()["question_id"]
        holder = one.service.auth.grants({name.lower(): value for name, value in mine.items()}).holder
        await until(lambda: session.questions.kept.read(number, holder) is not None)
        answer = await two.client.get(f"{BASE}/questions/{number}", headers=mine)
        assert answer.json()["question_id"] == number
        refused = await two.client.get(f"{BASE}/questions/{number}", headers=other)
        assert error_of(refused) == (404, "no_question")
        streamed = mine | {"Accept": "text/event-stream"}
        async with two.client.stream(
            "POST", f"{BASE}/questions", json={"text": "And now?"}, headers=streamed
        ) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            lines = [line async for line in events.aiter_lines() if line.startswith("event: ")]
        assert lines[-1] == "event: answer.done"
        unasked = await two.client.post(f"{BASE}/questions", json={"text": "Who?"})
        assert error_of(unasked) == (401, "unauthorized")


async def test_messages_of_an_event_socket_reach_the_owner_and_its_answers_the_socket(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with node(redis_server, tmp_path, "one") as one, node(redis_server, tmp_path, "two") as two:
        session = await published(one)
        place = two.address.removeprefix("http://")
        query = "?types=answer.done,watch.added,error,pong"
        async with socket_of(place, "talk", query) as asker, socket_of(place, "talk", query) as other:

            async def told(kind: str) -> dict[str, object]:
                async with asyncio.timeout(10):
                    while (event := json.loads(await asker.recv()))["type"] != kind:
                        pass
                return dict(event)

            await asker.send(json.dumps({"type": "question.ask", "id": "q1", "text": "Anything?"}))
            assert (await told("answer.done"))["question_id"] == "q1"
            await asker.send(json.dumps({"type": "watch.add", "when": "a cat appears"}))
            added = await told("watch.added")
            assert [watch["id"] for watch in session.watches.all()] == [added["watch_id"]]
            await asker.send(json.dumps({"type": "question.ask", "id": "q2", "text": ""}))
            error = await told("error")
            assert (error["question_id"], error["error"]["code"]) == ("q2", "empty_question")  # type: ignore[index]
            await asker.send(json.dumps({"type": "nonsense"}))
            assert (await told("error"))["error"]["code"] == "unknown_type"  # type: ignore[index]
            await other.send(json.dumps({"type": "ping"}))
            assert json.loads(await asyncio.wait_for(other.recv(), 10))["type"] == "pong", "nothing before it"


async def test_an_owner_that_does_not_answer_is_said_at_once_and_may_come_back(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):  # at the owner's address nothing listens
        await published(one)
        refused = await two.client.post(f"{BASE}/questions", json={"text": "Anything?"})
        assert error_of(refused) == (503, "owner_unreachable")
        assert refused.json()["error"]["retryable"] is True
        assert (await two.client.get(f"{BASE}/stats")).status_code == 200, "the log tells something"


async def test_messages_are_taken_from_nodes_alone(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with node(redis_server, tmp_path, "one") as one:
        await published(one)
        message = {"type": "question.ask", "text": "Anything?"}
        assert (await one.client.post(f"{BASE}/messages", json=message)).status_code == 404


async def test_a_request_is_forwarded_once(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with (
        pair(redis_server, tmp_path) as (one, _),
        node(redis_server, tmp_path, "three") as three,
    ):
        await published(one)
        forwarder = Forwarder(three.part.signature)
        try:
            asked = Forwarded("PATCH", BASE, b"{}", three.service.auth.grants({"host": "127.0.0.1"}))
            answer = await forwarder.forward(three.address, asked, {"content-type": "application/json"})
            body = b"".join([piece async for piece in answer.body_iterator])  # type: ignore[misc]
        finally:
            await forwarder.close()
        assert (answer.status_code, json.loads(body)["error"]["code"]) == (503, "moved")
