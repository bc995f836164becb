"""Start, end and refusal of sessions are logged, without names, texts or tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamsvc.core import clock
from streamsvc.service import refusal_log
from streamsvc.service.refusal_log import RefusalLog
from tests.builders.service import open_session, serving

KEY = "a-key-of-sixteen-or-more"
SECRET = "sk_live_a_stream_key"


def of(lines: list[Any], event: str) -> list[dict[str, Any]]:
    return [dict(line) for line in lines if line["event"] == event]


async def test_every_refusal_says_its_door_and_its_code_and_nothing_that_was_sent(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}, limits={"unpublished": 1}) as (_, place, client):
        bearer = {"Authorization": f"Bearer {KEY}"}
        with capture_logs() as lines:
            await client.post(f"/whip/{SECRET}", content="v=0", headers={"Authorization": f"Bearer {SECRET}"})
            await client.post("/v1/sessions", json={"source": f"rtsp://u:{SECRET}@h"})
            await client.post("/v1/sessions", json={"source": f"ftp://u:{SECRET}@h"}, headers=bearer)
            await client.post("/v1/sessions", json={}, headers=bearer)
            await client.post("/v1/sessions", json={}, headers=bearer)
            await client.get(f"/{SECRET}")
            await client.request(SECRET.replace("_", ""), "/v1/sessions")
            with pytest.raises(ConnectionClosed):
                async with connect(f"ws://{place}/v1/sessions/{SECRET}/events") as events:
                    while True:
                        await events.recv()
            with pytest.raises(InvalidStatus):
                async with connect(f"ws://{place}/v1/sessions/{SECRET}/audio"):
                    pass
            with pytest.raises(InvalidStatus):
                async with connect(f"ws://{place}/{SECRET}"):
                    pass
        refused = [(line["door"], line["status"], line["code"]) for line in of(lines, "request refused")]
        assert refused == [
            ("POST /whip/{session}", 401, "bad_token"),
            ("POST /v1/sessions", 401, "unauthorized"),
            ("POST /v1/sessions", 422, "bad_scheme"),
            ("POST /v1/sessions", 503, "too_many_unpublished"),
            ("GET elsewhere", 404, "not_found"),
            ("other /v1/sessions", 405, "method_not_allowed"),
            ("WebSocket /v1/sessions/{session_id}/events", 4401, "unauthorized"),
            ("WebSocket /v1/sessions/{session_id}/audio", 401, "unauthorized"),
            ("WebSocket elsewhere", 404, "not_found"),
        ]
        assert SECRET not in str(lines)
        assert KEY not in str(lines)
        assert [line["log_level"] for line in of(lines, "request refused") if line["status"] == 503] == [
            "warning"
        ]


async def test_a_session_is_logged_at_its_start_and_at_its_end_with_the_reason(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with serving(tmp_path) as (service, _, client):
            session = await open_session(client, no_store=True)
            await client.delete(f"/v1/sessions/{session}")
            await service.sessions.find(session).over.wait()
    assert of(lines, "session started") == [
        {"event": "session started", "log_level": "info", "session": session, "stored": False}
    ]
    (end,) = of(lines, "session ended")
    assert (end["session"], end["reason"], end["seconds"]) == (session, "deleted", 0.0)


async def test_a_flood_is_one_line_and_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as (_, _, client):
        with capture_logs() as lines:
            for _ in range(20):
                await client.get("/v1/sessions/none")
            later = clock.now() + refusal_log._SECONDS
            monkeypatch.setattr(clock, "now", lambda: later)
            await client.get("/v1/sessions/none")
    assert [line.get("more") for line in of(lines, "request refused")] == [None, 19]


async def test_of_a_long_error_only_the_beginning_is_looked_at() -> None:
    said = json.dumps({"error": {"code": "late", "message": "x" * 5000}}).encode()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": said[:50], "more_body": True})
        await send({"type": "http.response.body", "body": said[50:]})

    transport = httpx.ASGITransport(RefusalLog(fails))
    with capture_logs() as lines:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/")).content == said
    assert [line["code"] for line in of(lines, "request refused")] == [""]
