"""Messages on the event socket: questions, language updates, and the errors of invalid ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx

from streamsvc.service import app
from tests.builders import fake_service, fuzz
from tests.builders.service import open_session, serving, socket_of, until
from tests.builders.spoken import KEY


async def test_a_question_before_any_content_is_declined_with_its_reason(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = await open_session(client, no_store=True)
        async with socket_of(place, session) as events:
            await events.send(json.dumps({"type": "question.ask", "text": "What is shown?"}))
            done = (await until(events, "answer.done"))[-1]
            assert (done["outcome"], done["reason"]) == ("declined", "nothing_yet")
            assert (done["supported"], done["evidence"]) == (False, [])
        assert not (tmp_path / "data" / session).exists(), "no_store writes nothing"


async def test_an_invalid_message_is_answered_with_an_error_and_the_socket_stays_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = await open_session(client, no_store=True)
        async with socket_of(place, session) as events:
            for message, code in (
                ("no json", "bad_json"),
                ("[]", "bad_json"),
                ("[" * 60_000, "bad_json"),
                ('{"type":"fly"}', "unknown_type"),
                ('{"type":"question.ask"}', "empty_question"),
                ('{"type":"question.ask","id":"\\ud800","text":"Who?"}', "bad_json"),
                ('{"type":"question.cancel","id":"q"}', "no_question"),
            ):
                await events.send(message)
                assert (await until(events, "error"))[-1]["error"]["code"] == code
            about: dict[str, Any]
            for about, question in (
                ({"type": "question.ask", "id": "mine"}, "mine"),
                ({"type": "question.ask", "id": 7, "text": " "}, "7"),
                ({"type": "question.cancel", "id": "x" * 99}, "x" * 64),
                ({"type": "question.ask", "id": ["no id"]}, None),
                ({"type": "watch.add", "id": "not a question"}, None),
                ({"type": "question.ask", "id": "long", "text": "x" * 70_000}, "long"),
                ({"type": "question.ask", "id": "late", "text": "Who?", "deadline_ms": 0}, "late"),
                ({"type": "question.ask", "id": "odd", "text": "Who?", "audience": "all"}, "odd"),
                ({"type": "question.ask", "id": "form", "text": "Who?", "response_format": "xml"}, "form"),
                ({"type": "question.cancel"}, None),
                ({"type": "question.cancel", "id": 1.5}, "1.5"),
            ):
                await events.send(json.dumps(about))
                assert (await until(events, "error"))[-1].get("question_id") == question
            await events.send('{"type":"ping","id":"p"}')
            assert (await until(events, "pong"))[-1]["id"] == "p"


async def test_the_language_of_a_live_session_can_be_set_with_the_permission_to_publish(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, server={"api_key": KEY}, hear={"model": "whisper-base"}) as (
        service,
        place,
        client,
    ):
        client.headers["Authorization"] = f"Bearer {KEY}"
        session = await open_session(client)
        reader = service.auth.token(
            service.auth.grants(client.headers), session=session, may=("subscribe",), seconds=60
        )
        async with socket_of(place, session, additional_headers={"Authorization": f"Bearer {KEY}"}) as events:
            await until(events, "session.created")
            for body, code in (
                ({"language": "klingon"}, "unknown_language"),
                ({}, "bad_update"),
                ({"language": 7}, "bad_update"),
                ({"speed": 2}, "bad_update"),
                ({"translate": True, "language": "klingon"}, "unknown_language"),
            ):
                await events.send(json.dumps({"type": "session.update", **body}))
                assert (await until(events, "error"))[-1]["error"]["code"] == code
            await events.send(json.dumps({"type": "session.update", "language": "de"}))
            assert (await until(events, "session.updated"))[-1]["reason"] == "language"
            await events.send(json.dumps({"type": "session.update", "vocabulary": ["Ada"], "replace": {}}))
            assert (await until(events, "session.updated"))[-1]["reason"] == "replace, vocabulary"
        async with socket_of(
            place, session, additional_headers={"Authorization": f"Bearer {reader.token}"}
        ) as events:
            await events.send(json.dumps({"type": "session.update", "language": None}))
            assert (await until(events, "error"))[-1]["error"]["type"] == "permission_error"


async def test_an_image_may_be_larger_than_a_message_and_other_fields_may_not(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"image_bytes": 200_000}) as (_, place, client):
        session = await open_session(client, no_store=True)
        async with socket_of(place, session) as events:
            image = base64.b64encode(b"\xff\xd8\xff" + bytes(150_000)).decode()
            ask = {"type": "question.ask", "id": "shown", "text": "What is this?", "image": image}
            await events.send(json.dumps(ask))
            assert (await until(events, "answer.done"))[-1]["question_id"] == "shown"
            await events.send(json.dumps(ask | {"image": image * 2}))
            error = (await until(events, "error"))[-1]
            assert (error["error"]["code"], error["question_id"]) == ("image_too_large", "shown")
            await events.send(json.dumps({"type": "ping", "image": image}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "too_large"


async def test_changes_of_a_session_have_a_rate_of_their_own(tmp_path: Path) -> None:
    limits = {"updates_per_minute": 3}
    async with fake_service.serving(tmp_path, limits=limits, server={"api_key": KEY}) as service:
        session = await service.sessions.create(name="talk")
        application = app.build(service)
        owner = service.auth.grants(httpx.Headers({"Authorization": f"Bearer {KEY}"}))
        one = service.auth.token(owner, session="talk", may=("publish", "subscribe"), seconds=60)
        mine = service.auth.grants(httpx.Headers({"Authorization": f"Bearer {one.token}"}))
        child = service.auth.token(mine, session="talk", may=("publish", "subscribe"), seconds=60)
        said = (json.dumps({"type": "session.update", "vocabulary": ["Ada"]}),)
        for token, changed in ((one.token, 3), (child.token, 0), (KEY, 3)):
            headers = (("authorization", f"Bearer {token}".encode()),)
            got = await fuzz.converse(
                application, fuzz.Conversation("/v1/sessions/talk/events", "", headers, (), said * 8)
            )
            codes = [json.loads(one["text"]).get("error", {}).get("code") for one in got if "text" in one]
            assert codes.count("rate_limited") == 8 - changed
            assert not [one for one in got if one["type"] == "websocket.close"], "the socket goes on"
            body = b'{"vocabulary": ["Ada"]}'
            json_type = ("content-type", b"application/json")
            reply = await fuzz.request(
                application,
                fuzz.Request("PATCH", f"/v1/sessions/{session.id}", "", (*headers, json_type), body),
            )
            assert reply.status == 429, "by either door"
        kept, _ = await session.log.since(0, None, session.log.seq)
        assert [entry.type for entry in kept].count("session.updated") == 6
