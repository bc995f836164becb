"""One table says who may use which door: every door, message and credential is tried against it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection

from streamsvc.core.types import Grants
from streamsvc.service import app as application
from streamsvc.service import rights
from streamsvc.service.auth import PERMISSIONS, Auth
from streamsvc.service.refusal_log import flat
from tests.builders import fake_service, fuzz
from tests.builders.fuzz import Conversation, Request
from tests.builders.spoken import KEY

ROOT = Path(__file__).parents[2]
PLENTY = {"requests_per_minute": 10**6, "failures_per_minute": 10**6, "subscribers": 10**6}
KEYS = {"api_key": KEY, "metrics_key": "a-key-of-the-metrics-alone"}
PLACES = {"session_id": "talk", "session": "talk", "form": "vtt", "at": "1", "jti": "a" * 12, "number": "1"}
# credentials: which session a token is for, and what it may; the others are made in `credentials`
TOKENS = {
    **{f"{one} of this": ("talk", (one,)) for one in PERMISSIONS},
    "all of this": ("talk", PERMISSIONS),
    "all of another": ("other", PERMISSIONS),
    "all of all": ("*", PERMISSIONS),
    "publish and subscribe of all": ("*", ("publish", "subscribe")),
}


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[FastAPI, Auth]]:
    async with fake_service.serving(folder, limits=PLENTY, server=KEYS) as service:
        await service.sessions.create(name="talk")
        yield application.build(service), service.auth


def credentials(auth: Auth) -> dict[str, str]:
    """Tokens by what they are; "": none."""
    owner = Grants("owner", "*", frozenset(PERMISSIONS), None, "owner")
    past = Grants("owner", "*", frozenset(PERMISSIONS), 1.0, "owner")
    made = {
        name: auth.token(owner, session=session, may=may, seconds=600).token
        for name, (session, may) in TOKENS.items()
    }
    revoked = auth.token(owner, session="*", may=PERMISSIONS, seconds=600)
    auth.revoke(owner, revoked.id)
    expired = auth.token(past, session="*", may=PERMISSIONS, seconds=600)
    return made | {
        "none": "",
        "wrong": "not-the-key-at-all",
        "expired": expired.token,
        "revoked": revoked.token,
        "owner": KEY,
        "metrics": KEYS["metrics_key"],
        "signed": "",
    }


def expected(door: str, rule: rights.Rule, name: str) -> int:
    """What the table says: 401, 403, or 200 for whatever a route answers to whom it has let in."""
    if rule.rights is None or name == "owner":
        return 200
    if name == "signed":
        return 200 if rule.signed and door.startswith("GET ") else 401
    if name == "metrics":
        return 200 if door in ("GET /metrics", "GET /v1/capacity") else 403
    if name not in TOKENS:
        return 401
    session, may = TOKENS[name]
    right_session = session == "*" or rule.session == "" or (rule.session == "path" and session == "talk")
    if door == "POST /v1/sessions":  # its body names this session
        right_session = session in ("*", "talk")
    if door == "DELETE /v1/tokens/{jti}":  # neither its own nor made with it
        right_session = False
    return 200 if set(rule.rights) <= set(may) and right_session else 403


async def ask(app: FastAPI, auth: Auth, door: str, name: str, token: str) -> int:
    """401, 403, or 200 for any other answer of a door."""
    method, _, template = door.partition(" ")
    path = template
    for place in (
        "session_id",
        "session",
        "form",
        "at",
        "jti",
        "resource",
        "question_id",
        "watch_id",
        "push_id",
        "epoch",
        "number",
    ):
        path = path.replace(f"{{{place}}}", PLACES.get(place, "x"))
    query = auth.sign(path, 600).partition("?")[2] if name == "signed" else ""
    headers = (("authorization", f"Bearer {token}".encode()),) if token else ()
    if method == "WebSocket":
        got = await fuzz.converse(app, Conversation(path, query, headers, (), ()))
        codes = [message["status"] for message in got if message["type"] == "websocket.http.response.start"]
        codes += [message["code"] - 4000 for message in got if message["type"] == "websocket.close"]
        return next((code for code in codes if code in (401, 403)), 200)
    body = {"name": "talk"} if door == "POST /v1/sessions" else {"when": "when a cat appears"}
    reply = await fuzz.request(
        app,
        Request(
            method, path, query, (("content-type", b"application/json"), *headers), json.dumps(body).encode()
        ),
    )
    return reply.status if reply.status in (401, 403) else 200


@pytest.mark.parametrize("door", [door for door, rule in rights.DOORS.items() if rule is not rights._REFUSED])
async def test_each_door_answers_each_credential_as_the_table_says(door: str, tmp_path: Path) -> None:
    async with served(tmp_path) as (app, auth):
        answers = {}
        for name, token in credentials(auth).items():
            answers[name] = await ask(app, auth, door, name, token)
        rule = rights.DOORS[door]
        assert answers == {name: expected(door, rule, name) for name in answers}


async def test_each_message_wants_what_the_table_says(tmp_path: Path) -> None:
    async with served(tmp_path) as (app, auth):
        for kind, permission in rights.MESSAGES.items():
            for more in ("", "ask", "publish", "operate"):
                token = auth.token(
                    Grants("owner", "*", frozenset(PERMISSIONS), None, "owner"),
                    session="talk",
                    may=tuple(filter(None, ("subscribe", more))),
                    seconds=600,
                ).token
                headers = (("authorization", f"Bearer {token}".encode()),)
                said = (json.dumps({"type": kind}),)
                got = await fuzz.converse(
                    app, Conversation("/v1/sessions/talk/events", "", headers, (), said)
                )
                codes = [json.loads(one["text"]).get("error", {}).get("code") for one in got if "text" in one]
                assert ("forbidden" in codes) is (permission not in ("", more)), (kind, more, codes)


async def test_a_message_that_the_table_does_not_name_is_unknown(tmp_path: Path) -> None:
    async with served(tmp_path) as (app, _):
        headers = (("authorization", f"Bearer {KEY}".encode()),)
        kinds: tuple[object, ...] = ("session.end", "", None, 7, ["ping"], {})
        for kind in kinds:
            said = (json.dumps({"type": kind}),)
            got = await fuzz.converse(app, Conversation("/v1/sessions/talk/events", "", headers, (), said))
            assert "unknown_type" in str(got), kind


async def test_an_application_with_a_door_that_the_table_does_not_name_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for door in ("GET /healthz", "WebSocket /v1/listen", "PATCH /whip/{session}/{resource}"):
        with monkeypatch.context() as patched:
            others = {name: rule for name, rule in rights.DOORS.items() if name != door}
            patched.setattr(rights, "DOORS", others)
            async with fake_service.serving(tmp_path) as service:
                with pytest.raises(RuntimeError) as refused:
                    application.build(service)
        assert door in str(refused.value)


async def test_what_no_table_names_are_the_static_files(tmp_path: Path) -> None:
    async with fake_service.serving(tmp_path) as service:
        routes = flat(application.build(service).routes)
    others = [route for route in routes if not isinstance(route, APIRoute | APIWebSocketRoute)]
    assert sorted(str(getattr(route, "path", route)) for route in others) == ["/openapi.json", "/web"]


def test_the_documentation_has_the_table() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    shown = text.partition("<!-- rights -->\n")[2].partition("\n<!-- end of rights -->")[0]
    assert shown == rights.table(), (
        "put between the markers in deploy/README.md what this prints: "
        "python -c 'from streamsvc.service import rights; print(rights.table())'"
    )


def test_rates_count_tokens_that_were_made_with_one_as_that_one() -> None:
    asked = HTTPConnection({"type": "http", "client": ("10.0.0.1", 5000), "headers": []})

    def counted(holder: str) -> str:
        return rights.counted_as(Grants("t", "*", frozenset(), None, holder), asked)

    assert counted("mother") == counted("mother.child") == "token:mother" != counted("other")
    assert counted("owner") == "host:10.0.0.1"
