"""What a token has started ends with the token: publications, caption pushes and the webhooks of watches."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from streamsvc.service import app, started_by
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from tests.builders.fake_service import Peer, at, serving
from tests.builders.service import error_of
from tests.builders.session import sends
from tests.builders.spoken import KEY
from tests.fakes.http_receiver import listening

SERVER = {"api_key": KEY, "private_urls": True}
SDP = {"Content-Type": "application/sdp"}
WATCH = {"when": "when somebody starts talking", "cooldown_s": 0}


def browser(service: Service) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app.build(service))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def tokens(service: Service) -> tuple[Any, Any]:
    """Two tokens with all rights for all sessions, of the owner."""
    owner = service.auth.grants({"authorization": f"Bearer {KEY}"})
    may = ("publish", "subscribe", "ask")
    one, other = (service.auth.token(owner, session="*", may=may, seconds=600) for _ in range(2))
    return one, other


def bearer(token: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.token}"}


def revoke(service: Service, token: Any) -> None:
    service.auth.revoke(service.auth.grants({"authorization": f"Bearer {KEY}"}), token.id)
    service.started.sweep()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)


async def test_a_publication_ends_with_its_token_and_another_s_goes_on(
    tmp_path: Path, peers: list[Peer]
) -> None:
    async with serving(tmp_path, server=SERVER) as service, browser(service) as client:
        mine, others = tokens(service)
        for name, token in (("mine", mine), ("others", others)):
            made = await client.post(f"/whip/{name}", content="good", headers=SDP | bearer(token))
            assert made.status_code == 201
            sends(service.sessions.find(name))
        service.started.sweep()
        assert [peer.closed for peer in peers] == [0, 0]
        revoke(service, mine)
        await until(lambda: peers[0].closed > 0)
        session = service.sessions.find("mine")
        assert at(session, State.STALLED)
        told = [json.loads(entry.text + "}") for entry in session.log._tail]
        assert [event["reason"] for event in told if event["type"] == "session.stalled"] == ["token_revoked"]
        assert at(service.sessions.find("others"), State.LIVE)
        assert peers[1].closed == 0
        assert len(service.publications.by_resource) == 1


async def test_a_caption_push_ends_with_its_token_and_says_why(tmp_path: Path) -> None:
    async with (
        listening() as receiver,
        serving(tmp_path, server=SERVER) as service,
        browser(service) as client,
    ):
        mine, others = tokens(service)
        session = await service.sessions.create()
        path = f"/v1/sessions/{session.id}/pushes"
        for name, token in (("a", mine), ("b", others)):
            body = {"to": "zoom", "url": f"{receiver.url}/{name}?k=1"}
            assert (await client.post(path, json=body, headers=bearer(token))).status_code == 201
        revoke(service, mine)
        first, second = session.pushes.values()
        await until(lambda: first.over)
        shown = first.describe()
        assert (shown["state"], shown["last_error"]["code"]) == ("failed", "token_revoked")
        assert not second.over


async def test_a_webhook_ends_with_its_token_and_its_watch_stays(tmp_path: Path) -> None:
    async with (
        listening() as receiver,
        serving(tmp_path, server=SERVER) as service,
        browser(service) as client,
    ):
        mine, others = tokens(service)
        session = await service.sessions.create()
        events = session.log.subscribe(["error"])
        path = f"/v1/sessions/{session.id}/watches"
        made = [
            (await client.post(path, json=WATCH | {"webhook": receiver.url}, headers=bearer(token))).json()
            for token in (mine, others)
        ]
        revoke(service, mine)
        batch = await events.next()
        assert batch is not None
        told = json.loads(batch[0][1])["error"]
        assert told["code"] == "webhook_stopped"
        assert made[0]["id"] in told["message"]
        assert "token_revoked" in told["message"]
        shown = {watch["id"]: watch for watch in session.watches.all()}
        assert "webhook" not in shown[made[0]["id"]]
        assert "webhook" in shown[made[1]["id"]]
        await until(lambda: len(session.watches._sending) == 1)
        session.log.unsubscribe(events)


async def test_the_addresses_in_a_webhook_s_body_end_with_the_token_too(tmp_path: Path) -> None:
    async with (
        listening() as receiver,
        serving(tmp_path, server=SERVER) as service,
        browser(service) as client,
    ):
        mine, _ = tokens(service)
        session = await service.sessions.create()
        await session.store_frame(1.0, b"a jpeg")
        path = f"/v1/sessions/{session.id}/watches"
        made = await client.post(path, json=WATCH | {"webhook": receiver.url}, headers=bearer(mine))
        hook = session.watches._registered[made.json()["id"]].webhook
        assert hook is not None
        hook.put({"evidence": [{"url": session.frame_url(1.0)}]})
        await receiver.until(1)
        url = json.loads(receiver.got[0][2])["evidence"][0]["url"]
        assert (await client.get(url)).status_code == 200
        revoke(service, mine)
        assert error_of(await client.get(url)) == (401, "unauthorized")


def test_a_service_looks_from_time_to_time_and_forgets_what_has_ended(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, server=SERVER) as service:
            mine, others = tokens(service)
            told: list[str] = []
            goes_on = {"mine": True, "ended": False, "others": True}
            for name, token in (("mine", mine), ("ended", mine), ("others", others)):
                grants = service.auth.grants({"authorization": f"Bearer {token.token}"})
                going = functools.partial(goes_on.__getitem__, name)
                service.started.add(grants, going, lambda why: told.append(why.code))
            service.auth.revoked.add(mine.id, 60, by_owner=True)
            await asyncio.sleep(2 * started_by.SECONDS)
            assert told == ["token_revoked"]
            assert len(service.started._started) == 1
            goes_on["others"] = False
            await asyncio.sleep(2 * started_by.SECONDS)
            assert service.started._started == []

    stage.run(main())
