"""An expired token keeps no socket and no stream, and signed addresses end with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from starlette.types import Message
from websockets.exceptions import ConnectionClosed

from streamsvc.core.config import Server
from streamsvc.core.errors import Unauthorized
from streamsvc.core.types import Grants, Keyframe, VideoFrame
from streamsvc.service import token_lifetime
from streamsvc.service.auth import Auth
from tests.builders.service import error_of, open_session, serving, socket_of, until
from tests.builders.spoken import KEY

OWNER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Credentials that expire are over once something is put here."""
    said: list[bool] = []
    monkeypatch.setattr(token_lifetime, "RECHECK", 0.05)
    expired = Unauthorized("The token has expired", code="token_expired")
    monkeypatch.setattr(Auth, "over", lambda self, grants: expired if said else None)
    return said


async def _token(client: httpx.AsyncClient, session: str, *may: str, seconds: int = 600) -> str:
    body = {"session": session, "may": may, "expires_in": seconds}
    return str((await client.post("/v1/tokens", json=body, headers=OWNER)).json()["token"])


async def test_a_socket_is_closed_when_its_token_expires_and_an_owners_is_not(
    tmp_path: Path, over: list[bool]
) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (service, place, client):
        client.headers.update(OWNER)
        session = await open_session(client, no_store=True)
        token = await _token(client, session, "subscribe", "ask")
        protocols = ["streamsvc.v1", f"streamsvc.token.{token}"]
        async with (
            socket_of(place, session, additional_headers=OWNER) as owner,
            socket_of(place, session, subprotocols=protocols) as events,
        ):
            await until(events, "session.created")
            await events.send('{"type":"ping"}')
            await until(events, "pong")
            await asyncio.sleep(0.2)
            assert len(service.sessions.find(session).log._subscribers) == 2, "checked again, still valid"
            over.append(True)
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(10):
                    while True:
                        said = json.loads(await events.recv())
            assert said["error"]["code"] == "token_expired"
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "token_expired")
            await owner.send('{"type":"ping"}')
            await until(owner, "pong")
            assert len(service.sessions.find(session).log._subscribers) == 1


@pytest.mark.parametrize("path", ["/v1/sessions/{}/audio", "/v1/listen?encoding=linear16&sample_rate=16000"])
async def test_other_sockets_are_closed_too(path: str, tmp_path: Path, over: list[bool]) -> None:
    from websockets.asyncio.client import connect

    async with serving(tmp_path, server={"api_key": KEY}) as (_, place, client):
        client.headers.update(OWNER)
        session = await open_session(client, no_store=True)
        token = await _token(client, "*" if "listen" in path else session, "publish", "subscribe")
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(f"ws://{place}{path.format(session)}", additional_headers=headers) as audio:
            over.append(True)
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(10):
                    while True:
                        await audio.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize("signed", [False, True])
async def test_server_sent_events_end_with_the_token_or_the_signature(
    signed: bool, tmp_path: Path, over: list[bool]
) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (service, place, client):
        client.headers.update(OWNER)
        session = await open_session(client, no_store=True)
        path = f"/v1/sessions/{session}/events"
        token = await _token(client, session, "subscribe")
        headers = {} if signed else {"Authorization": f"Bearer {token}"}
        address = service.auth.sign(path, 600) + "&after=0" if signed else f"{path}?after=0"
        async with (
            httpx.AsyncClient(base_url=f"http://{place}") as reader,
            reader.stream("GET", address, headers=headers) as answer,
        ):
            assert answer.status_code == 200
            over.append(True)
            text = "".join([piece async for piece in answer.aiter_text()])
        assert "event: session.created" in text
        assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "token_expired"
        async with asyncio.timeout(5):
            while service.sessions.find(session).log._subscribers:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.02)


async def test_signed_addresses_in_what_a_token_is_sent_end_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (service, place, client):
        client.headers.update(OWNER)
        session = await open_session(client, no_store=True)
        foreign = f"/v1/sessions/other/frames/1.jpg?exp=9999999999&sig={'x' * 43}"
        body = {"of": "1", "reason": "change", "url": service.sessions.find(session).frame_url(1.0)}
        service.sessions.find(session).log.emit("keyframe.sampled", body | {"quoted": foreign})
        token = await _token(client, session, "subscribe", seconds=60)
        claims = service.auth._decode(token)
        for headers, shorter in ((OWNER, False), ({"Authorization": f"Bearer {token}"}, True)):
            async with socket_of(place, session, additional_headers=headers) as events:
                while (event := json.loads(await events.recv()))["type"] != "keyframe.sampled":
                    pass
            assert event["quoted"] == foreign, "what we have not signed is not signed"
            path, _, query = event["url"].partition("?")
            scope = {"type": "http", "method": "GET", "path": path, "headers": ()}
            signed = service.auth.of(scope | {"query_string": query.encode()})
            assert (signed.expires <= claims.expires) is shorter  # type: ignore[operator]
            assert signed.holder == (claims.holder if shorter else "owner")


async def test_a_revoked_token_is_refused_at_once_and_what_it_had_opened_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_lifetime, "RECHECK", 0.05)
    async with serving(tmp_path, server={"api_key": KEY}) as (service, place, client):
        client.headers.update(OWNER)
        session = await open_session(client, no_store=True)
        live = service.sessions.find(session)
        await live.store_frame(1.0, b"a jpeg")
        live.dispatch(
            Keyframe("s", "main", 1.0, 0.0, VideoFrame("s", "main", 1.0, 0.0, None, 0, 0), "change")
        )
        made = await client.post("/v1/tokens", json={"session": session, "may": ["subscribe", "ask"]})
        theirs = {"Authorization": f"Bearer {made.json()['token']}"}
        child = (await client.post("/v1/tokens", json={"session": session}, headers=theirs)).json()
        childs = {"Authorization": f"Bearer {child['token']}"}
        pictures = []
        path = f"/v1/sessions/{session}/events?after=0"
        async with (
            socket_of(place, session, additional_headers=theirs) as events,
            socket_of(place, session, additional_headers=childs) as childs_events,
            socket_of(place, session, additional_headers=OWNER) as owners,
            httpx.AsyncClient(base_url=f"http://{place}") as reader,
            reader.stream("GET", path, headers=theirs) as stream,
        ):
            for one in (events, childs_events, owners):
                pictures.append((await until(one, "keyframe.sampled"))[-1]["url"])
            listed = (await reader.get("/v1/sessions", headers=theirs)).json()["sessions"]
            pictures.insert(0, listed[0]["thumbnail_url"])
            for url in pictures:
                assert (await reader.get(url)).status_code == 200, url
            assert (await client.delete(f"/v1/tokens/{made.json()['jti']}")).status_code == 204
            for headers in (theirs, childs):
                refused = await reader.get(f"/v1/sessions/{session}", headers=headers)
                assert error_of(refused) == (401, "token_revoked")
            assert [(await reader.get(url)).status_code for url in pictures] == [401, 401, 401, 200]
            for ended in (events, childs_events):
                with pytest.raises(ConnectionClosed) as closed:
                    async with asyncio.timeout(10):
                        while True:
                            await ended.recv()
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "token_revoked")
            async with asyncio.timeout(10):
                text = "".join([piece async for piece in stream.aiter_text()])
            assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "token_revoked"
            await owners.send('{"type":"ping"}')
            await until(owners, "pong")


async def test_a_token_revokes_itself_and_what_it_made_and_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, _, client):
        made = [
            (await client.post("/v1/tokens", json={"may": ["ask"]}, headers=OWNER)).json() for _ in range(2)
        ]
        mine, others = ({"Authorization": f"Bearer {one['token']}"} for one in made)
        child = (await client.post("/v1/tokens", json={"may": ["ask"]}, headers=mine)).json()
        childs = {"Authorization": f"Bearer {child['token']}"}
        refused = await client.delete(f"/v1/tokens/{made[0]['jti']}", headers=others)
        assert error_of(refused) == (403, "forbidden")
        assert error_of(await client.delete(f"/v1/tokens/{made[0]['jti']}", headers=childs)) == (
            403,
            "forbidden",
        )
        for malformed in ("x", "owner", made[0]["jti"] + "x", made[0]["jti"] + ".", "\u00e9" * 12):
            assert error_of(await client.delete(f"/v1/tokens/{malformed}", headers=OWNER)) == (
                404,
                "no_token",
            )
        assert (await client.delete(f"/v1/tokens/{child['jti']}", headers=mine)).status_code == 204
        assert (await client.delete(f"/v1/tokens/{made[0]['jti']}", headers=mine)).status_code == 204
        again = await client.delete(f"/v1/tokens/{made[0]['jti']}", headers=mine)
        assert error_of(again) == (401, "token_revoked")
    async with serving(tmp_path, server={"api_key": KEY}) as (_, _, client):
        for headers, code in ((mine, "token_revoked"), (childs, "token_revoked")):
            refused = await client.post("/v1/tokens", json={"may": ["ask"]}, headers=headers)
            assert error_of(refused) == (401, code), "also after a restart"
        made_with = await client.post("/v1/tokens", json={"may": ["ask"]}, headers=others)
        assert made_with.status_code == 201


async def test_a_new_token_tells_how_long_it_is_valid_which_is_no_longer_than_its_maker(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, _, client):
        made = (await client.post("/v1/tokens", json={"expires_in": 60}, headers=OWNER)).json()
        assert made["expires_in"] == 60
        mine = {"Authorization": f"Bearer {made['token']}"}
        child = (await client.post("/v1/tokens", json={"expires_in": 3600}, headers=mine)).json()
        assert 0 < child["expires_in"] <= 60


async def test_who_has_minted_all_it_may_can_still_revoke_and_a_child_uses_up_its_own_alone(
    tmp_path: Path,
) -> None:
    limits = {"requests_per_minute": 2}
    async with serving(tmp_path, server={"api_key": KEY}, limits=limits) as (_, _, client):
        made = (await client.post("/v1/tokens", json={}, headers=OWNER)).json()
        mine = {"Authorization": f"Bearer {made['token']}"}
        child, other = [(await client.post("/v1/tokens", json={}, headers=mine)).json() for _ in range(2)]
        assert (await client.post("/v1/tokens", json={}, headers=mine)).status_code == 429
        childs = {"Authorization": f"Bearer {child['token']}"}
        path = f"/v1/tokens/{child['jti']}"
        invented = [await client.delete(f"{path}.{number:012}", headers=childs) for number in range(3)]
        assert [answer.status_code for answer in invented] == [204, 204, 429]
        assert (await client.delete(path, headers=mine)).status_code == 204
        assert (await client.delete(f"/v1/tokens/{other['jti']}", headers=mine)).status_code == 204


async def test_what_has_ended_by_itself_is_not_ended_again() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    grants = Grants("t", "*", frozenset(), 1.0, "aaaaaaaaaaaa")
    whole: list[list[Message]] = [
        [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1000}],
        [{"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body"}],
    ]
    for last in whole:
        sent.clear()
        answer = token_lifetime._Sent(send, Auth(Server(api_key=KEY)), grants)
        for message in last:
            await answer(message)
        kind = str(last[0]["type"]).partition(".")[0]
        await answer.end({"type": kind, "path": "/v1/x"}, receive, Unauthorized("over"))
        assert sent == last
