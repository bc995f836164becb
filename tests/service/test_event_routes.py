"""Subscribers of the event socket that disconnect during the handshake."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamsvc.service import app
from tests.builders.service import open_session, serving, socket_of, until


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
        while not kinds or kinds[-1]["type"] != "error":
            kinds.append(json.loads(await events.recv()))
        assert kinds[-1]["error"]["code"] == "rate_limited"
        assert len(kinds) <= 60, "a burst of twice as many as in a second"
        assert not service.sessions.find(session).log._subscribers
