"""The path of server.public_url is served whether a proxy strips it or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.builders.service import error_of, open_session, serving, until

PUBLIC = "https://www.example.org/live"


@pytest.mark.parametrize("path", ["", "/live"])
async def test_every_door_is_found_with_the_prefix_and_without(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, server={"public_url": PUBLIC}) as (_, place, client):
        session = await open_session(client)
        for door in ("/", "/docs", "/openapi.json", "/web/client.js", f"/overlay/{session}", "/healthz"):
            assert (await client.get(f"{path}{door}")).status_code == 200, door
        made = await client.post(f"{path}/v1/sessions", json={})
        assert made.headers["Location"] == f"{PUBLIC}/v1/sessions/{made.json()['id']}"
        assert made.json()["events_url"] == f"{PUBLIC}/v1/sessions/{made.json()['id']}/events"
        assert error_of(await client.post(f"{path}/whip", content="x")) == (415, "unsupported_media_type")
        async with connect(f"ws://{place}{path}/v1/sessions/{session}/events") as events:
            await events.send(json.dumps({"type": "ping"}))
            await until(events, "pong")


async def test_the_prefix_alone_leads_to_the_page_and_others_nowhere(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"public_url": PUBLIC}) as (_, _, client):
        bare = await client.get("/live")
        assert (bare.status_code, bare.headers["Location"]) == (308, "/live/")
        for path in ("/liver/healthz", "/live/live/healthz", "/other/healthz"):
            assert error_of(await client.get(path)) == (404, "not_found")


async def test_without_a_public_url_addresses_are_paths(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        made = await client.post("/v1/sessions", json={})
        assert made.headers["Location"] == f"/v1/sessions/{made.json()['id']}"
        assert made.json()["overlay_url"] == f"/overlay/{made.json()['id']}"
        assert error_of(await client.get("/live/healthz")) == (404, "not_found")


async def test_an_open_server_takes_its_public_host_and_origin_for_its_own(tmp_path: Path) -> None:
    own = {"Host": "www.example.org", "Origin": "https://www.example.org"}
    async with serving(tmp_path, server={"public_url": PUBLIC}) as (_, _, client):
        assert (await client.post("/v1/sessions", json={}, headers=own)).status_code == 201
        foreign = await client.post("/v1/sessions", json={}, headers=own | {"Host": "evil.example"})
        assert error_of(foreign) == (403, "bad_host")
    async with serving(tmp_path) as (_, _, client):
        assert error_of(await client.post("/v1/sessions", json={}, headers=own)) == (403, "bad_host")
