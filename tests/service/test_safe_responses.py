"""Every HTTP answer is safe, faults are told without texts, and a refused request leaves no garbage."""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from streamsvc.core import clock
from streamsvc.core.config import Server
from streamsvc.core.errors import NotFound, Unauthorized
from streamsvc.service import app, http_server
from streamsvc.service.auth import Auth
from streamsvc.service.cors import note_sent_here
from streamsvc.service.safe_responses import SafeResponses
from streamsvc.service.service import Service
from tests.builders.service import serving

CANARY = "a text that nobody may see"


async def sent(
    parts: list[Message],
    fault: Exception | None = None,
    headers: dict[str, str] | None = None,
    nodes: tuple[str, ...] = (),
    sent_from: str = "",
) -> list[Message]:
    """What a client is sent where the application sends `parts`, and then raises `fault`."""
    messages: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for part in parts:
            await send(part)
        if fault is not None:
            raise fault

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        messages.append(message)

    asked = {"host": "127.0.0.1"} | (headers or {})
    raw = [(name.encode(), value.encode()) for name, value in asked.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": raw}
    note_sent_here(scope, sent_from)
    await SafeResponses(application, Auth(Server()), lambda: nodes)(scope, receive, send)
    return messages


def start(status: int = 200, **headers: str) -> Message:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


def body(content: bytes = b"ok") -> Message:
    return {"type": "http.response.body", "body": content}


def headers_of(message: Message) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in message["headers"]}


async def test_an_answer_has_the_security_headers_and_keeps_its_own() -> None:
    first, second = await sent([start(content_security_policy="default-src 'none'"), body()])
    assert headers_of(first) == {
        "content-security-policy": "default-src 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    assert second == body()


async def test_a_foreign_origin_reaches_no_handler() -> None:
    first, second = await sent([start(), body()], headers={"origin": "http://evil.example"})
    assert first["status"] == 403
    assert b"error" in second["body"]


async def test_a_page_sent_here_by_another_node_reaches_its_handler_and_no_other_page_does() -> None:
    page = "http://127.0.0.1:8081"
    for origin, status in ((page, 200), ("null", 200), ("http://evil.example", 403)):
        first, _ = await sent([start(), body()], headers={"origin": origin}, sent_from=page)
        assert first["status"] == status, origin
    first, _ = await sent([start(), body()], headers={"origin": "null"})
    assert first["status"] == 403


async def test_our_pages_may_connect_to_other_nodes_and_other_answers_name_none() -> None:
    nodes = ("http://10.0.0.5:8080", "https://two.example")
    for kind, more in (("text/html; charset=utf-8", f" {' '.join(nodes)}"), ("application/json", "")):
        first, _ = await sent([start(content_type=kind), body()], nodes=nodes)
        policy = headers_of(first)["content-security-policy"]
        assert f"; connect-src 'self' ws: wss:{more}; " in policy, kind


async def test_a_plain_text_about_an_error_becomes_the_error_body() -> None:
    plain = start(
        416, content_type="text/plain; charset=utf-8", content_range="bytes */9", content_length="3"
    )
    first, second = await sent([plain, body(b"no\n"), body(b"more")])
    assert first["status"] == 416
    assert headers_of(first)["content-type"] == "application/json"
    assert headers_of(first)["content-range"] == "bytes */9"
    assert int(headers_of(first)["content-length"]) == len(second["body"])
    assert b"bad_range" in second["body"]
    assert (await sent([start(200, content_type="text/plain"), body()]))[1] == body()


@pytest.mark.parametrize(
    ("fault", "status"), [(NotFound("there is no such thing"), 404), (RuntimeError(CANARY), 500)]
)
async def test_an_error_of_the_application_is_told_once(fault: Exception, status: int) -> None:
    with capture_logs() as lines:
        first, second = await sent([], fault)
    assert first["status"] == status
    assert CANARY not in str(second)
    assert [line["error"] for line in lines] == (["RuntimeError"] if status == 500 else [])
    assert CANARY not in str(lines)


async def test_after_an_answer_has_begun_the_connection_is_left_to_the_server() -> None:
    with capture_logs() as lines, pytest.raises(RuntimeError):
        await sent([start()], RuntimeError(CANARY))
    assert CANARY not in str(lines)


# --- garbage ---

KEY = "the key of this test"
WRONG: dict[str, bytes] = {
    "no key": b"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n\r\n[",
    "no key, no body": b"GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a wrong key": b"GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer a!\r\n\r\n",
    "a wrong JWT": b"GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer a.b.c\r\n\r\n",
    "nowhere": b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}
KINDS = ("LimitedProtocol", "RequestResponseCycle", "_SelectorSocketTransport", "Unauthorized", "traceback")


def alive() -> Counter[str]:
    """Objects that the garbage collector knows, those of `KINDS` by the names of their types."""
    return Counter(kind for known in gc.get_objects() if (kind := type(known).__name__) in KINDS)


def left_since(before: Counter[str], seconds: float = 3.0) -> Counter[str]:
    """What is alive that was not before, once it is nothing or after so long."""
    until = clock.now() + seconds
    while (left := alive() - before) and clock.now() < until:
        time.sleep(0.05)
    return left


def ask(place: Any, request: bytes, *, reset: bool) -> bytes:
    """Send a request, read the begin of its answer, and close the connection, or reset it."""
    with socket.create_connection(place) as client:
        client.sendall(request)
        answer = client.recv(12)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return answer


@pytest.mark.parametrize("reset", [False, True])
async def test_a_refused_request_is_gone_without_a_garbage_collection(
    tmp_path: Path, reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_LINGER_SECONDS", 0.2)
    monkeypatch.setattr(app, "Service", functools.partial(Service, at_once=()))  # workers have transports too
    async with serving(tmp_path, server={"api_key": KEY}) as (_, place, _):
        host, _, port = place.partition(":")
        gc.collect()
        gc.disable()
        try:
            for name, request in WRONG.items():
                await asyncio.to_thread(ask, (host, int(port)), request, reset=reset)  # imports, caches
                await asyncio.sleep(0.5)
                before = alive()
                for _ in range(5):
                    answer = await asyncio.to_thread(ask, (host, int(port)), request, reset=reset)
                    assert answer.startswith(b"HTTP/1.1 40"), name
                assert not await asyncio.to_thread(left_since, before), name
        finally:
            gc.enable()


def test_the_reason_of_a_refusal_is_kept_without_the_frames_it_came_through() -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }
    auth = Auth(Server(api_key=KEY))
    for _ in range(2):
        with pytest.raises(Unauthorized):
            auth.of(scope)
    [kept] = [value for value in scope.values() if isinstance(value, Unauthorized)]
    assert (kept.__traceback__, kept.__context__) == (None, None)
