"""In front of all routes: the token before the body, limits of bodies, wrong keys slowed down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from streamsvc.core.config import Limits, Server
from streamsvc.service.auth import Auth
from streamsvc.service.request_guard import RequestGuard
from tests.builders.fake_service import at_the_door
from tests.builders.service import error_of
from tests.builders.spoken import KEY

RIGHT = {"Authorization": f"Bearer {KEY}"}
WRONG = {"Authorization": "Bearer not-the-key-at-all"}


class Application:
    """Reads a body whole, and counts what it read."""

    def __init__(self) -> None:
        self.read = 0
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        while (message := await receive())["type"] == "http.request":
            self.read += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        code = 401 if scope["path"] == "/refused" else 200
        await JSONResponse({"read": self.read}, code)(scope, receive, send)


def client_of(application: Application, address: str = "10.0.0.1", **limits: float) -> httpx.AsyncClient:
    guard = RequestGuard(
        application, Auth(Server(api_key=KEY)), Limits.model_validate(limits), connections=None
    )
    transport = httpx.ASGITransport(guard, client=(address, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def pieces(count: int, size: int, taken: list[int]) -> AsyncIterator[bytes]:
    for number in range(count):
        taken.append(number)
        yield b"x" * size


async def test_a_body_within_the_limit_arrives_whole() -> None:
    application = Application()
    async with client_of(application, body_bytes=1000) as client:
        answer = await client.post("/v1/sessions", content=pieces(10, 100, []), headers=RIGHT)
    assert answer.json() == {"read": 1000}


async def test_a_text_with_half_of_a_character_is_refused_before_a_route_sees_it() -> None:
    application = Application()
    async with client_of(application) as client:
        answer = await client.post("/v1/sessions", content=rb'{"name": "a\ud800"}', headers=RIGHT)
        whole = await client.post("/v1/sessions", content=rb'{"name": "\ud83d\ude00"}', headers=RIGHT)
    assert (*error_of(answer), application.calls, whole.status_code) == (400, "bad_json", 1, 200)


async def test_a_larger_body_is_refused_before_it_is_whole() -> None:
    application = Application()
    taken: list[int] = []
    async with client_of(application, body_bytes=1000) as client:
        answer = await client.post("/v1/sessions", content=pieces(100, 100, taken), headers=RIGHT)
        assert answer.status_code == 413
        assert len(taken) < 15
        answer = await client.post("/v1/sessions", content=b"x" * 1001, headers=RIGHT)
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["error"]["message"]
        taken.clear()
        told = RIGHT | {"content-length": "1001"}
        answer = await client.post("/v1/sessions", content=pieces(20, 100, taken), headers=told)
        assert (answer.status_code, taken) == (413, []), "by what its header says, before any of it came"
    assert application.calls == 0


async def test_a_question_may_hold_an_image() -> None:
    async with client_of(Application(), body_bytes=1000, image_bytes=2000) as client:
        answer = await client.post("/v1/sessions/a/questions", content=b"x" * 3000, headers=RIGHT)
        assert answer.status_code == 200
        answer = await client.post("/v1/sessions/a/questions", content=b"x" * 4001, headers=RIGHT)
        assert answer.status_code == 413


async def test_without_a_token_nothing_of_a_body_is_read() -> None:
    application = Application()
    taken: list[int] = []
    async with client_of(application) as client:
        answer = await client.post("/v1/sessions", content=pieces(5, 10, taken))
        assert answer.status_code == 401
        assert taken == []
        assert (await client.delete("/v1/sessions/a", headers=WRONG)).status_code == 401
        assert application.calls == 0
        assert (await client.get("/page")).status_code == 200  # reading is the routes' own business


async def test_a_body_that_does_not_come_is_given_up() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(10)

    async with client_of(Application(), body_seconds=0.05) as client:
        answer = await client.post("/v1/sessions", content=slow(), headers=RIGHT)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "body_timeout"


async def test_wrong_keys_are_slowed_down_and_a_right_one_is_not() -> None:
    application = Application()
    async with client_of(application, failures_per_minute=5) as client:
        codes = [(await client.post("/v1/sessions", headers=WRONG)).status_code for _ in range(8)]
        assert codes == [401] * 5 + [429] * 3
        assert (await client.post("/v1/sessions", headers=RIGHT)).status_code == 200
        refused = await client.get("/refused")  # a route's own 401 counts too
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limited"


@pytest.mark.parametrize("path", ["/v1/listen", "/whip", "/whip/a"])
async def test_doors_that_read_by_themselves_are_left_alone(path: str) -> None:
    async with client_of(Application(), body_bytes=10) as client:
        assert (await client.post(path, content=b"x" * 100)).json() == {"read": 100}


async def test_one_token_has_so_many_connections_and_the_key_all(tmp_path: Path) -> None:
    limits = {"connections_per_token": 1}
    async with at_the_door(tmp_path, server={"api_key": KEY}, limits=limits) as (service, place, _):
        owner = service.auth.grants({"authorization": f"Bearer {KEY}"})
        token = service.auth.token(owner, session="*", may=("subscribe",), seconds=60).token
        got = []
        async with contextlib.AsyncExitStack() as stack:
            for shown in (token, token, KEY, KEY):
                headers = {"Authorization": f"Bearer {shown}"}
                one = httpx.AsyncClient(base_url=f"http://{place}", headers=headers)
                answer = await (await stack.enter_async_context(one)).get("/v1/sessions")
                got.append(error_of(answer) if answer.is_error else answer.status_code)
            socket = connect(
                f"ws://{place}/v1/realtime", additional_headers={"Authorization": f"Bearer {token}"}
            )
            with pytest.raises(InvalidStatus) as refused:
                await stack.enter_async_context(socket)
            assert refused.value.response.status_code == 503
            assert b"too_many_of_token" in (refused.value.response.body or b"")
    assert got == [200, (503, "too_many_of_token"), 200, 200]
