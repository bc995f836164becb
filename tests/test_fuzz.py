"""Generated requests and sockets get documented answers alone; what once failed is kept as a case."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streamsvc.service import app as application
from streamsvc.service.service import Service
from tests.builders import fuzz
from tests.builders.fake_service import serving
from tests.builders.fuzz import Conversation, Reply, Request

CASES = int(os.environ.get("STREAMSVC_FUZZ_CASES", "1000"))  # two thirds of them requests, the rest sockets
PLENTY = {
    "requests_per_minute": 10**6,
    "failures_per_minute": 10**6,
    "sessions": 8,
    "questions_waiting": 2,
    "subscribers": 10_000,
}
DOCUMENTED = {400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415, 416, 422, 428, 429, 502, 503, 504}
# of a socket: normal, ours, and those of errors that a documented class names
CLOSES = {1000, 1001, 1011, 1013}


@pytest.fixture(autouse=True)
def nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is resolved, so no source and no webhook reaches anything."""

    def unknown(*_: object, **__: object) -> list[Any]:
        raise OSError("no names here")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


@contextlib.asynccontextmanager
async def fuzzed(folder: Path, **server: Any) -> AsyncIterator[tuple[Service, FastAPI]]:
    """A service with one session, and its application."""
    async with serving(folder, limits=PLENTY, server={"data_dir": folder, **server}) as service:
        app = application.build(service)
        created = await fuzz.request(app, _json("POST", "/v1/sessions", {"name": fuzz.SESSION}))
        assert created.status == 201
        yield service, app


def _json(method: str, path: str, body: object, *headers: tuple[str, bytes]) -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(method, path, "", (("content-type", b"application/json"), *headers), content)


def check_reply(case: Request, reply: Reply) -> None:
    """Fail unless the answer is a success, or a documented error with its body."""
    assert reply.status, "no answer"
    if reply.status < 400:
        return
    assert reply.status in DOCUMENTED, (reply.status, reply.body)
    if case.method == "HEAD" or not reply.body:
        assert case.method == "HEAD" or reply.status in (400, 416), reply.status
        return
    if case.path == "/readyz":
        return  # its own body
    body = json.loads(reply.body)
    assert body.get("error") or body.get("err_code"), body


def check_socket(got: list[Any]) -> None:
    """Fail unless the socket was refused or closed by a documented code."""
    for message in got:
        if message["type"] == "websocket.http.response.start":
            assert message["status"] in DOCUMENTED, message
        if message["type"] == "websocket.close":
            assert message["code"] in CLOSES or 4000 <= message["code"] < 5000, message
            assert message.get("reason") != "internal", message


async def tidy(service: Service) -> None:
    """End what a case has left: sessions but the one."""
    for name in [name for name in service.sessions.by_id if name != fuzz.SESSION]:
        await service.sessions.delete(name, purge=True)


def _checked(
    strategy: st.SearchStrategy[Any],
    count: int,
    loop: asyncio.AbstractEventLoop,
    check: Callable[[Any], Coroutine[Any, Any, None]],
) -> Callable[[], None]:
    """A function that checks `count` generated cases, each on the loop."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(case: Any) -> None:
        asyncio.run_coroutine_threadsafe(check(case), loop).result()

    return run


@pytest.mark.timeout(1200)
async def test_generated_requests_get_documented_answers_alone(tmp_path: Path) -> None:
    async with fuzzed(tmp_path) as (service, app):

        async def check(case: Request) -> None:
            check_reply(case, await fuzz.request(app, case))
            await tidy(service)
            if fuzz.SESSION not in service.sessions.by_id:
                await fuzz.request(app, _json("POST", "/v1/sessions", {"name": fuzz.SESSION}))

        await asyncio.to_thread(
            _checked(fuzz.requests(app.openapi()), CASES * 2 // 3, asyncio.get_running_loop(), check)
        )


@pytest.mark.timeout(1200)
async def test_generated_sockets_get_documented_answers_alone(tmp_path: Path) -> None:
    async with fuzzed(tmp_path) as (service, app):

        async def check(case: Conversation) -> None:
            check_socket(await fuzz.converse(app, case))
            await tidy(service)

        await asyncio.to_thread(_checked(fuzz.conversations(), CASES // 3, asyncio.get_running_loop(), check))


# --- what once failed ---------------------------------------------------------------------------------------

EVENTS, PATH = f"/v1/sessions/{fuzz.SESSION}/events", f"/v1/sessions/{fuzz.SESSION}"
PING = '{"type":"ping"}'
HALF = b"a\\ud800"  # of a surrogate pair, as JSON writes it

REQUESTS = [
    (Request("GET", EVENTS, "", (("last-event-id", "a.²".encode()),)), 200),
    (Request("GET", EVENTS, "", (("last-event-id", b"a.\xb2"),)), 200),
    (Request("GET", EVENTS, "", (("last-event-id", b"a." + b"9" * 5000),)), 200),
    (Request("GET", EVENTS, "after=-" + "9" * 30), 200),
    (Request("GET", EVENTS, "after=" + "9" * 30), 200),
    (_json("POST", "/v1/sessions", {"source": "http://["}), 422),
    (_json("POST", f"{PATH}/questions", b'{"text":"' + HALF + b'"}'), 400),
    (_json("POST", f"{PATH}/pushes", b'{"to":"zoom","url":"http://a/' + HALF + b'"}'), 400),
    (_json("POST", "/v1/listen", {"url": "http://["}), 400),
    (Request("POST", "/whip", "", (("content-type", b"application/sdp"), ("content-length", b"\xb2"))), 400),
]
CONVERSATIONS = [
    (Conversation(EVENTS, messages=(b"\xff", '{"type":"ping"}')), ["error", "pong"]),
    (Conversation(EVENTS, "after=-" + "9" * 30), ["session.created"]),
    (
        Conversation(EVENTS, messages=('{"type":"watch.add","when":"cat","cooldown_s":NaN}', PING)),
        ["error", "pong"],
    ),
    (
        Conversation("/v1/realtime", "intent=transcription", messages=('{"type":"a","event_id":"\\ud800"}',)),
        ["session.created", "error"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "status"), REQUESTS)
async def test_a_request_that_was_answered_500_is_answered_as_documented(
    case: Request, status: int, tmp_path: Path
) -> None:
    async with fuzzed(tmp_path) as (_, app):
        reply = await fuzz.request(app, case)
        check_reply(case, reply)
        assert reply.status == status


@pytest.mark.parametrize(("case", "kinds"), CONVERSATIONS)
async def test_a_message_that_ended_its_socket_is_answered(
    case: Conversation, kinds: list[str], tmp_path: Path
) -> None:
    async with fuzzed(tmp_path) as (_, app):
        got = await fuzz.converse(app, case)
        check_socket(got)
        came = [json.loads(one["text"])["type"] for one in got if "text" in one]
        # The session's first event may be written while its subscriber comes.
        assert [kind for kind in came if kind in kinds][: len(kinds)] == kinds
        assert not any(one["type"] == "websocket.close" for one in got)
