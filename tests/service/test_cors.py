"""Origins of server.origins may read every answer of every door; others none."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamsvc.service.cors import Cors, note_sent_here
from tests.builders.service import open_session, serving

PAGE = "https://app.example"
KEY = "a-key-of-sixteen-or-more"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
DOORS = [
    ("GET", "/v1/sessions/{id}"),
    ("GET", "/v1/sessions/{id}/captions.vtt"),
    ("GET", "/v1/sessions/none/captions.vtt"),  # an error, too, is for the page to read
    ("GET", "/v1/capacity"),
    ("GET", "/v1/schema"),
    ("POST", "/v1/tokens"),
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions/{id}/questions"),
    ("GET", "/web/client.js"),
    ("GET", "/web/whip.js"),
    ("GET", "/nowhere"),
    ("PUT", "/v1/sessions"),
    ("POST", "/whip"),
    ("DELETE", "/whip/a/b"),
    ("POST", "/v1/listen"),
]


def allowed(response: httpx.Response) -> str | None:
    """The origin that may read a response."""
    origin: str | None = response.headers.get("access-control-allow-origin")
    return origin


@pytest.mark.parametrize("key", [None, KEY])
async def test_listed_origins_read_every_door_and_others_none(tmp_path: Path, key: str | None) -> None:
    bearer = {"Authorization": f"Bearer {KEY}"} if key else {}
    async with serving(tmp_path, server={"origins": [PAGE], "api_key": key}) as (_, _, client):
        client.headers.update(bearer)
        session = await open_session(client)
        for method, template in DOORS:
            path = template.format(id=session)
            for origin, readable in ((PAGE, True), ("https://evil.example", False), ("null", False)):
                asked = await client.request(method, path, headers={"Origin": origin})
                assert allowed(asked) == (origin if readable else None), (method, path, origin)
                assert "Origin" in asked.headers["vary"], "no cache mixes the two up"
                assert {"Location", "ETag", "Link", "Retry-After"} <= set(
                    asked.headers.get("access-control-expose-headers", "").split(", ")
                ) or not readable
                preflight = await client.options(path, headers={"Origin": origin, **PREFLIGHT})
                assert allowed(preflight) == (origin if readable else None), (path, origin)
                if readable:
                    assert preflight.status_code == 204
                    assert method in preflight.headers["access-control-allow-methods"] or method == "PUT"
                    assert "Authorization" in preflight.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in asked.headers


async def test_server_sent_events_can_be_read_by_a_listed_origin(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"origins": [PAGE]}) as (_, _, client):
        path = f"/v1/sessions/{await open_session(client)}/events"
        async with client.stream("GET", path, headers={"Origin": PAGE}) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            assert allowed(events) == PAGE


async def test_without_origins_no_door_has_the_headers(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, _, client):
        for method, path in (("GET", "/web/client.js"), ("POST", "/whip"), ("OPTIONS", "/whip")):
            asked = await client.request(method, path, headers={"Origin": PAGE, **PREFLIGHT})
            assert not [name for name in asked.headers if name.startswith("access-control")], path


async def test_whip_says_what_it_accepts_also_in_a_preflight(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"origins": ["*"]}) as (_, _, client):
        preflight = await client.options("/whip/a", headers={"Origin": "https://any.example", **PREFLIGHT})
        assert (preflight.status_code, allowed(preflight)) == (204, "*")
        assert preflight.headers["accept-post"] == "application/sdp"
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        assert "If-Match" in preflight.headers["access-control-allow-headers"]


async def test_a_failure_of_ours_can_be_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, server={"origins": [PAGE]}) as (service, _, client):
        monkeypatch.setattr(service, "load_controller", None)
        failed = await client.get("/v1/capacity", headers={"Origin": PAGE})
        assert (failed.status_code, allowed(failed)) == (500, PAGE)
        assert "content-security-policy" in failed.headers


@pytest.mark.parametrize("origins", [(), ("https://other.example",)])
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_a_page_that_another_node_has_sent_here_reads_the_answer(
    origins: tuple[str, ...], method: str
) -> None:
    """Its browser tells the origin "null" where the page is of neither node."""

    async def answer(origin: str, sent_from: str) -> httpx.Response:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await Response(status_code=204)(scope, receive, send)

        async def with_ticket(scope: Scope, receive: Receive, send: Send) -> None:
            note_sent_here(scope, sent_from)
            await Cors(application, origins)(scope, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(with_ticket), base_url="http://a"
        ) as client:
            return await client.request(method, "/whip/talk", headers={"Origin": origin, **PREFLIGHT})

    for origin in (PAGE, "null"):
        read = await answer(origin, PAGE)
        assert (allowed(read), read.headers["vary"]) == (origin, "Origin")
        assert "Location" in read.headers["access-control-expose-headers"]
        assert ("access-control-allow-methods" in read.headers) is (method == "OPTIONS")
        assert allowed(await answer(origin, "")) is None, "it was no page that was sent here"
    assert allowed(await answer("https://evil.example", PAGE)) is None
