"""Subscribers of the event socket that disconnect during the handshake."""

from __future__ import annotations

import contextlib
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamsvc.events.subscription import Subscription
from streamsvc.service import app, event_routes
from streamsvc.service.audience import audience_of
from streamsvc.service.event_routes import EventQuery
from tests.builders.cluster import until as connected
from tests.builders.fake_service import at_the_door
from tests.builders.service import VALIDATOR, error_of, open_session, serving, socket_of, until


async def test_a_subscriber_that_disconnects_at_the_handshake_takes_no_place(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"subscribers": 2}) as (service, place, client):
        session = await open_session(client, no_store=True)
        application = app.build(service)
        path = f"/v1/sessions/{session}/events"
        scope = {
            "type": "websocket",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", place.encode())],
        }
        tried: list[str] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            tried.append(message["type"])
            raise OSError("the client is gone")

        for _ in range(3):
            await application(dict(scope), receive, send)
        assert tried == ["websocket.accept"] * 3
        async with socket_of(place, session) as events:
            await until(events, "session.created")


async def test_a_wrong_query_is_told_before_the_socket_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = await open_session(client)
        with pytest.raises(ConnectionClosed) as closed:
            async with socket_of(place, session, "?after=soon") as events:
                error = json.loads(await events.recv())
                await events.recv()
        assert error["error"]["message"] == "after must be a whole number"
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400
        refused = await client.get(f"/v1/sessions/{session}/events", params={"after": "soon"})
        assert refused.json()["error"]["message"] == "after must be a whole number"


async def test_a_path_without_a_socket_is_not_found_and_not_forbidden(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, _):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://{place}/v1/session/0.a/events"):
                pass
    assert refused.value.response.status_code == 404
    assert b"/v1/sessions/ID/events" in (refused.value.response.body or b"")


async def test_a_viewer_that_sends_without_pause_is_told_and_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"messages_per_second": 10}) as (service, place, client):
        session = await open_session(client, no_store=True)
        async with socket_of(place, session, "?types=none") as events:
            kinds: list[dict[str, Any]] = []
            with pytest.raises(ConnectionClosed) as closed:
                for _ in range(1000):
                    await events.send('{"type":"ping"}')
                while len(kinds) < 1100:  # without the limit all come, and reports
                    kinds.append(json.loads(await events.recv()))
                    assert len(kinds) <= 60
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4429, "rate_limited")
        with contextlib.suppress(ConnectionClosed):  # what came before the end
            while len(kinds) < 1100:
                kinds.append(json.loads(await events.recv()))
        assert [told["error"]["code"] for told in kinds if told["type"] == "error"] == ["rate_limited"]
        assert len(kinds) <= 60, "a burst of twice as many as in a second"
        assert not service.sessions.find(session).log._subscribers


async def _read(place: str, path: str, count: int) -> list[dict[str, Any]]:
    """The first events of a stream of Server-Sent Events."""
    got: list[dict[str, Any]] = []
    async with httpx.AsyncClient() as client, client.stream("GET", f"http://{place}{path}") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                got.append(json.loads(line.removeprefix("data: ")))
                if len(got) == count:
                    break
    return got


@pytest.mark.parametrize("door", ["socket", "stream"])
async def test_who_resumes_past_what_is_stored_is_told_the_gap_before_the_rest(
    tmp_path: Path, door: str
) -> None:
    async with at_the_door(tmp_path, store={"events": 10}) as (service, place, client):
        session = await open_session(client, no_store=True)
        log = service.sessions.find(session).log
        for _ in range(700):  # more than the log has in memory
            log.emit("speech.started", {})
        await log.flush()

        async def missed(query: str, count: int) -> list[dict[str, Any]]:
            if door == "stream":
                return await _read(place, f"/v1/sessions/{session}/events{query}", count)
            async with socket_of(place, session, query) as events:
                return [json.loads(await events.recv()) for _ in range(count)]

        gap, first, *_ = await missed("?after=5", 3)
        VALIDATOR.validate(gap)
        assert (gap["type"], gap["reason"], gap["first"]) == ("log.gap", "trimmed", 6)
        assert first["seq"] == gap["last"] + 1 > 100
        told, *_ = await missed("?after=700&epoch=0", 2)
        assert (told["type"], told["reason"]) == ("log.gap", "new_epoch")
        assert (await missed(f"?after={log.seq - 1}", 1))[0]["seq"] == log.seq, "no gap, and nothing is told"


async def test_who_has_seen_more_than_this_node_has_heard_of_gets_nothing_twice(tmp_path: Path) -> None:
    async with at_the_door(tmp_path) as (service, place, client):
        session = await open_session(client, no_store=True)
        log = service.sessions.find(session).log
        ahead = log.seq + 2
        async with (
            socket_of(place, session, f"?epoch={log.epoch}&after={ahead}") as events,
            socket_of(place, session, f"?after={ahead}") as bold,  # without an epoch it may mean another
        ):
            await connected(lambda: len(log._subscribers) == 2)
            for _ in range(3):
                log.emit("speech.started", {})
            assert json.loads(await events.recv())["seq"] == ahead + 1
            assert json.loads(await bold.recv())["seq"] == ahead - 1


async def test_what_is_told_before_a_socket_is_closed_is_an_event_of_the_schema(tmp_path: Path) -> None:
    async with at_the_door(tmp_path, limits={"messages_per_second": 1, "subscribers": 1}) as (
        service,
        place,
        client,
    ):
        session = await open_session(client, no_store=True)
        told = []
        for name, query in (("0.none", ""), (session, "?after=soon")):
            async with socket_of(place, name, query) as events:
                told.append(json.loads(await events.recv()))
        async with socket_of(place, session, "?types=none") as events:
            async with socket_of(place, session) as second:
                told.append(json.loads(await second.recv()))
            for _ in range(5):
                await events.send('{"type":"ping"}')
            with pytest.raises(ConnectionClosed):
                while True:
                    told.append(json.loads(await events.recv()))
        for event in told:
            VALIDATOR.validate(event)
        refused = [event for event in told if event["type"] == "error"]
        assert [event["session"] for event in refused] == ["0.none", *[session] * 3]
        codes = ["no_session", "bad_request", "too_many_subscribers", "rate_limited"]
        assert [event["error"]["code"] for event in refused] == codes
        assert not service.sessions.find(session).log._subscribers


async def test_a_subscriber_names_so_many_types_and_so_long_a_client_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[EventQuery] = []

    async def serve(service: Any, socket: WebSocket, session: str, query: EventQuery) -> None:
        queries.append(query)
        await socket.accept()
        await socket.close()

    monkeypatch.setattr(event_routes, "serve_socket", serve)
    async with at_the_door(tmp_path) as (service, place, client):
        session = await open_session(client, no_store=True)
        query = f"types={','.join(['a'] * 100)}&client={'c' * 100}"
        with pytest.raises(ConnectionClosed):
            async with socket_of(place, session, f"?{query}") as events:
                await events.recv()
        assert (len(queries[0].types), len(queries[0].client)) == (32, 64)
        made: list[Subscription] = []
        log = service.sessions.find(session).log
        subscribe = log.subscribe

        def noted(*given: Any, **named: Any) -> Subscription:
            made.append(subscribe(*given, **named))
            return made[-1]

        monkeypatch.setattr(log, "subscribe", noted)
        for name in ("c" * 100, "c" * 64):
            await _read(place, f"/v1/sessions/{session}/events?after=0&{query}&types=*&client={name}", 1)
        assert len(made[0]._types) == 1
        assert made[0].client == made[1].client != ""


async def test_one_token_with_those_made_with_it_leaves_places_for_others(tmp_path: Path) -> None:
    key = "a-key-of-enough-length"
    limits = {"subscribers": 4}
    async with at_the_door(tmp_path, server={"api_key": key}, limits=limits) as (service, place, client):
        owner = service.auth.grants({"authorization": f"Bearer {key}"})
        session = (await service.sessions.create()).id
        may = ("subscribe", "ask")
        one = service.auth.token(owner, session=session, may=may, seconds=60).token
        mine = service.auth.grants({"authorization": f"Bearer {one}"})
        child = service.auth.token(mine, session=session, may=may, seconds=60).token
        headers = [{"Authorization": f"Bearer {token}"} for token in (one, child, key)]
        path = f"/v1/sessions/{session}"
        async with (
            socket_of(place, session, additional_headers=headers[0]) as first,
            socket_of(place, session, additional_headers=headers[1]) as second,
        ):
            for events in (first, second):
                await until(events, "session.created")
            streamed = {"Accept": "text/event-stream"}
            asked = {"text": "Who?"}
            for refused in (
                await client.get(f"{path}/events", headers=headers[1]),
                await client.get(f"{path}/captions.vtt?follow=1", headers=headers[1]),
                await client.post(f"{path}/questions", json=asked, headers=headers[0] | streamed),
            ):
                assert error_of(refused) == (503, "too_many_of_token")
            async with socket_of(place, session, additional_headers=headers[0]) as third:
                assert (await until(third, "error"))[-1]["error"]["code"] == "too_many_of_token"
            async with socket_of(place, session, additional_headers=headers[2]) as owners:
                await until(owners, "session.created")


async def test_a_private_event_goes_to_its_holder_alone_by_server_sent_events(tmp_path: Path) -> None:
    """Another holder who gives the same name of a client is another audience."""
    key = {"Authorization": "Bearer a key of sixteen characters"}
    server = {"api_key": "a key of sixteen characters"}
    async with at_the_door(tmp_path, server=server) as (service, _, client):
        client.headers.update(key)
        name = await open_session(client, no_store=True)
        log = service.sessions.find(name).log
        tokens = [(await client.post("/v1/tokens", json={"session": name})).json()["token"] for _ in range(2)]
        mine, others = ({"Authorization": f"Bearer {token}"} for token in tokens)
        body = {"text": "a", "stable": 0, "words": []}
        seen: list[list[str]] = []
        for headers in (mine, others):
            address, query = f"/v1/sessions/{name}/events", {"types": "caption.partial", "client": "me"}
            async with client.stream("GET", address, params=query, headers=headers) as events:
                private = audience_of(service.auth.grants({"authorization": mine["Authorization"]}), "me")
                log.emit("caption.partial", body, audience=private)
                log.emit("caption.partial", {**body, "text": "all"})
                texts: list[str] = []
                async for line in events.aiter_lines():
                    if line.startswith("data: "):
                        texts.append(json.loads(line.removeprefix("data: "))["text"])
                    if "all" in texts:
                        break
                seen.append(texts)
        assert seen == [["a", "all"], ["all"]]
