"""WHIP at the real service: offers that it refuses, ICE servers that are dead, and GStreamer, captioned."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import httpx
import pytest

from streamsvc.core import metrics
from streamsvc.service import app
from tests.builders import fake_service
from tests.builders.fake_service import at_the_door
from tests.builders.gstreamer import publisher
from tests.builders.service import error_of, serving, socket_of, until
from tests.builders.spoken import KEY

FIXTURES = Path(__file__).parents[1] / "fixtures"
OFFER = (FIXTURES / "obs.sdp").read_text()
SDP = {"Content-Type": "application/sdp"}
WORDS = ("stone", "mountain", "gravestones", "houses", "understood", "purposes", "workman", "customers")


async def test_an_offer_of_the_wrong_type_or_syntax_is_refused_and_opens_no_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, client):
        plain = await client.post("/whip", content="x", headers={"Content-Type": "text/plain"})
        assert error_of(plain) == (415, "unsupported_media_type")
        malformed = await client.post("/whip", content="v=0 x", headers={"Content-Type": "application/sdp"})
        assert error_of(malformed) == (400, "malformed_sdp")
        assert service.sessions.by_id == {}


async def test_an_address_makes_so_many_offers_a_minute(tmp_path: Path) -> None:
    async with at_the_door(tmp_path, limits={"requests_per_minute": 2}) as (_, _, client):
        answers = [error_of(await client.post("/whip", content="v=0 x", headers=SDP)) for _ in range(3)]
    assert answers == [(400, "malformed_sdp"), (400, "malformed_sdp"), (429, "rate_limited")]


async def test_a_dead_ice_server_costs_no_offer(tmp_path: Path) -> None:
    def failures() -> float:
        return float(metrics.ice_server_failures.labels("silent")._value.get())

    before = failures()
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"stun:127.0.0.1:{silent.getsockname()[1]}"
        async with serving(tmp_path, ingest={"ice_servers": [url], "ice_seconds": 0.2}) as (_, _, client):
            answer = await client.post("/whip/one", content=OFFER, headers=SDP)
            assert answer.status_code == 201
            assert " typ host" in answer.text
            assert (await client.post("/whip/two", content=OFFER, headers=SDP)).status_code == 201
    assert failures() - before == 1, "the second offer did not wait for it"


async def test_offers_are_counted_by_token_and_not_for_all(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 2}
    async with fake_service.serving(tmp_path, limits=limits, server={"api_key": KEY}) as service:
        auth = service.auth
        owner = auth.grants({"authorization": f"Bearer {KEY}"})
        one, other = (auth.token(owner, session="*", may=("publish",), seconds=60) for _ in range(2))
        mine = auth.grants({"authorization": f"Bearer {one.token}"})
        child = auth.token(mine, session="*", may=("publish",), seconds=60)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app.build(service)), base_url="http://127.0.0.1"
        ) as client:
            got = []
            for token in (one.token, one.token, one.token, child.token, other.token):
                headers = SDP | {"Authorization": f"Bearer {token}"}
                got.append((await client.post("/whip", content="v=0 x", headers=headers)).status_code)
    assert got == [400, 400, 429, 429, 400]


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("gstreamer")
async def test_a_gstreamer_publisher_is_captioned(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, place, client):
        await service.ready()
        speech = FIXTURES / "canary.ogg"
        async with publisher(speech, f"http://{place}/whip/studio", "h264") as program:
            async with asyncio.timeout(90):
                assert await program.wait() == 0
        assert (await client.get("/v1/sessions/studio/captions.json")).status_code == 200
        async with socket_of(place, "studio") as events:
            assert (await client.delete("/v1/sessions/studio")).status_code == 200
            log = await until(events, "session.closed")
    said = " ".join(event["text"] for event in log if event["type"] == "caption.final").lower()
    assert sum(word in said for word in WORDS) >= 6, said
    assert [event for event in log if event["type"] == "keyframe.sampled"], "its pictures are decoded"


async def test_with_the_key_offers_are_counted_by_address(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 1}
    async with fake_service.serving(tmp_path, limits=limits, server={"api_key": KEY}) as service:
        application = app.build(service)
        got = []
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            transport = httpx.ASGITransport(application, client=(host, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                headers = SDP | {"Authorization": f"Bearer {KEY}"}
                got.append((await client.post("/whip", content="v=0 x", headers=headers)).status_code)
    assert got == [400, 429, 400]
