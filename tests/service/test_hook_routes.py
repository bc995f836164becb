"""Media servers ask by HTTP; streams are pulled from the operator's address alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import SourceError
from streamsvc.ingest.source import SourceSink
from streamsvc.ingest.source_policy import Place
from streamsvc.service import hook_routes
from streamsvc.service.media_input import State
from tests.builders.fake_service import at_the_door
from tests.builders.service import error_of
from tests.builders.session import Sender, sends

KEY = "a-key-of-this-test"
SECRET = "a-secret-of-ome"
HOOKS = {
    "mediamtx": "rtsp://127.0.0.1:8554/{name}",
    "nginx_rtmp": "rtmp://127.0.0.1:1935/{app}/{name}",
    "srs": "rtmp://127.0.0.1:1936/{app}/{name}",
    "ome": "http://127.0.0.1:3333/{app}/{name}/ts:playlist.m3u8",
    "ome_secret": SECRET,
}
SERVER = {"api_key": KEY}


class Pulled(Sender):
    """A source that lives until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.duration: float | None = None
        self.left = asyncio.Event()

    async def run(self, sink: SourceSink) -> None:
        await self.left.wait()

    async def close(self) -> None:
        await super().close()
        self.left.set()


class Puller:
    """Stands for the media servers. `failures`: tries that fail before a stream is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.urls: list[str] = []
        self.sources: list[Pulled] = []
        self.failures = 0
        monkeypatch.setattr(hook_routes, "open_source", self.open_source)
        monkeypatch.setattr(hook_routes, "open_published", self.open_published)
        monkeypatch.setattr(hook_routes, "RETRY_SECONDS", 0.0)

    async def open_source(self, url: str, settings: Any, *, session: str, private_urls: bool) -> Pulled:
        assert (private_urls, settings.reconnects) == (True, 0)
        self.urls.append(url)
        if self.failures:
            self.failures -= 1
            raise SourceError("not yet", code="not_found")
        self.sources.append(Pulled())
        return self.sources[-1]

    async def open_published(self, place: Place, settings: Any, *, session: str) -> Pulled:
        return await self.open_source(place.url, settings, session=session, private_urls=True)

    async def pulled(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.sources) < count:
                await clock.sleep(0.01)


@pytest.fixture
def puller(monkeypatch: pytest.MonkeyPatch) -> Puller:
    return Puller(monkeypatch)


def mediamtx(**changed: str) -> dict[str, str]:
    known = {"ip": "10.0.0.1", "action": "publish", "path": "studio", "query": f"token={KEY}", "id": "1"}
    return known | changed


async def test_a_stream_is_pulled_once_its_server_has_it_and_ends_with_its_publisher(
    tmp_path: Path, puller: Puller
) -> None:
    ingest = {"hooks": HOOKS, "takeover_seconds": 600.0}
    async with at_the_door(tmp_path, server=SERVER, ingest=ingest) as (running, _, client):
        puller.failures = 3
        address = "/v1/hooks/nginx-rtmp"
        form = f"app=live&addr=10.0.0.1&clientid=4&call=publish&name=studio&type=live&token={KEY}"
        answer = await client.post(address, content=form)
        assert answer.status_code == 200, answer.text
        await puller.pulled(1)
        assert len(puller.urls) == 4
        assert puller.urls[-1].startswith("rtmp://127.0.0.1:1935/live/studio?token=")
        assert KEY not in puller.urls[-1]
        session = running.sessions.find("studio")
        sends(session)
        again = await client.post(address, content=form)
        assert again.status_code == 200, "nginx asks twice of one publisher"
        refused = await client.post(address, content=form.replace("clientid=4", "clientid=5"))
        assert error_of(refused) == (409, "already_publishing")
        stranger = form.replace("call=publish", "call=publish_done").replace(KEY, "wrong")
        assert error_of(await client.post(address, content=stranger))[0] == 401
        assert not puller.sources[0].closed
        await client.post(address, content=form.replace("call=publish", "call=publish_done"))
        async with asyncio.timeout(30):
            while session.state is not State.STALLED:
                await clock.sleep(0.01)
        assert puller.sources[0].closed


async def test_one_that_comes_back_takes_over_and_the_end_of_its_old_connection_changes_nothing(
    tmp_path: Path, puller: Puller
) -> None:
    ingest = {"hooks": HOOKS, "takeover_seconds": 0.001}
    async with at_the_door(tmp_path, server=SERVER, ingest=ingest) as (running, _, client):
        address = "/v1/hooks/nginx-rtmp"
        form = f"app=live&addr=10.0.0.1&clientid=4&call=publish&name=studio&type=live&token={KEY}"
        await client.post(address, content=form)
        await puller.pulled(1)
        session = running.sessions.find("studio")
        while session.media.publisher is None:
            await clock.sleep(0.01)
        sends(session)
        await clock.sleep(0.01)
        again = await client.post(address, content=form.replace("clientid=4", "clientid=5"))
        assert again.status_code == 200
        await puller.pulled(2)
        while session.media.publisher is not puller.sources[1]:
            await clock.sleep(0.01)
        await client.post(address, content=form.replace("call=publish", "call=publish_done"))
        await clock.sleep(0.05)
        assert puller.sources[0].closed
        assert session.media.publisher is puller.sources[1]
        await client.post(address, content=form.replace("=4&call=publish", "=5&call=publish_done"))
        while session.media.publisher is not None:
            await clock.sleep(0.01)


async def test_the_token_of_the_stream_or_else_the_hooks_own_decides(tmp_path: Path, puller: Puller) -> None:
    async with at_the_door(tmp_path, server=SERVER, ingest={"hooks": HOOKS}) as (running, _, client):
        address = "/v1/hooks/mediamtx"
        assert error_of(await client.post(address, json=mediamtx(query="")))[0] == 401
        assert error_of(await client.post(address, json=mediamtx(query="token=wrong")))[0] == 401
        wrong = await client.post(f"{address}?token={KEY}", json=mediamtx(query="token=wrong"))
        assert wrong.status_code == 401, "what the stream shows counts before the hook's own"
        assert running.sessions.by_id == {}
        by_query = await client.post(f"{address}?token={KEY}", json=mediamtx(query="", path="one"))
        bearer = {"Authorization": f"Bearer {KEY}"}
        by_header = await client.post(address, json=mediamtx(query="", path="two"), headers=bearer)
        by_stream = await client.post(address, json=mediamtx(path="three"))
        assert [answer.status_code for answer in (by_query, by_header, by_stream)] == [200] * 3
        await puller.pulled(3)
        assert {url.partition("?")[0] for url in puller.urls} == {
            f"rtsp://127.0.0.1:8554/{name}" for name in ("one", "two", "three")
        }
        reads = mediamtx(action="read", query=puller.urls[0].partition("?")[2])
        assert (await client.post(address, json=reads)).status_code == 200, "our own player is let in"
        assert error_of(await client.post(address, json=mediamtx(action="read", query="token=x")))[0] == 401
        assert (await client.post(address, json=mediamtx(action="read"))).status_code == 200
        bad = await client.post(address, json=mediamtx(path="a b"))
        assert error_of(bad) == (400, "bad_session_id")


async def test_each_server_gets_the_answer_that_it_wants(tmp_path: Path, puller: Puller) -> None:
    async with at_the_door(tmp_path, server=SERVER, ingest={"hooks": HOOKS}) as (_, _, client):
        srs = {"action": "on_publish", "app": "live", "stream": "studio", "param": f"?token={KEY}", "ip": "a"}
        answer = await client.post("/v1/hooks/srs", json=srs)
        assert (answer.status_code, answer.text) == (200, "0")
        request = {"direction": "incoming", "status": "opening", "url": f"rtmp://a/live/ome?token={KEY}"}
        body = json.dumps({"client": {"address": "10.0.0.1"}, "request": request}).encode()
        digest = hmac.new(SECRET.encode(), body, hashlib.sha1).digest()
        signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        signed = await client.post("/v1/hooks/ome", content=body, headers={"X-OME-Signature": signature})
        assert (signed.status_code, signed.json()) == (200, {"allowed": True})
        unsigned = await client.post("/v1/hooks/ome", content=body)
        assert (unsigned.status_code, unsigned.json()["allowed"]) == (200, False)
        assert "Signature" in unsigned.json()["reason"]
        await puller.pulled(2)
        assert {url.partition("?")[0] for url in puller.urls} == {
            "rtmp://127.0.0.1:1936/live/studio",
            "http://127.0.0.1:3333/live/ome/ts:playlist.m3u8",
        }


async def test_a_server_without_an_address_and_bodies_without_end_are_refused(
    tmp_path: Path, puller: Puller
) -> None:
    async with at_the_door(tmp_path, server=SERVER, limits={"body_bytes": 1000}) as (_, _, client):
        assert error_of(await client.post("/v1/hooks/mediamtx", json=mediamtx())) == (404, "no_hook")
        assert error_of(await client.post("/v1/hooks/mediamtx", content=b" " * 1001))[0] == 413
        assert error_of(await client.post("/v1/hooks/other", json={}))[0] == 400
        assert puller.urls == []
