"""A publisher follows a 307 without its token, and says what became of its offers."""

from __future__ import annotations

import io
import json
import random

import httpx
import pytest

from load_tests.cluster_publisher import Publishing, code_of, session_of

EVENTS = '<https://a/v1/sessions/0.abc/events>; rel="urn:ietf:params:whip:ext:streamsvc:events"'
NODES = ["http://a:1", "http://b:2"]
Seen = list[tuple[str, str | None]]


async def offered(answers: dict[str, httpx.Response]) -> tuple[httpx.Response, Seen, list[dict[str, object]]]:
    """Offer at the first node; returns the answer, what was asked with which token, and the raw log."""
    seen: Seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers.get("authorization")))
        return answers[request.url.host]

    out = io.StringIO()
    publishing = Publishing("street", NODES, "a key", out, random.Random(1))
    publishing._node = 0
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        found = await publishing._offer(client, "v=0")
    return found, seen, [json.loads(line) for line in out.getvalue().splitlines()]


async def test_a_redirect_is_followed_without_the_token() -> None:
    away = httpx.Response(307, headers={"Location": "http://b:2/whip/street?ticket=abc"})
    found, seen, log = await offered({"a": away, "b": httpx.Response(201)})
    assert found.status_code == 201
    assert seen == [
        ("http://a:1/whip/street", "Bearer a key"),
        ("http://b:2/whip/street?ticket=abc", None),
    ]
    (line,) = log
    assert (line["kind"], line["node"], line["ticket"]) == ("redirected", 1, True)
    assert "abc" not in json.dumps(log)  # a ticket is a credential


async def test_redirects_in_a_circle_end() -> None:
    away = httpx.Response(307, headers={"Location": "http://a:1/whip/street?ticket=abc"})
    found, seen, _ = await offered({"a": away})
    assert (found.status_code, len(seen)) == (307, 4)


def test_the_session_is_that_of_the_event_stream() -> None:
    links = [("link", '<turn:a>; rel="ice-server"'), ("link", EVENTS)]
    assert session_of(httpx.Response(201, headers=links)) == "0.abc"
    with pytest.raises(ValueError, match="no event stream"):
        session_of(httpx.Response(201, headers=links[:1]))


def test_the_code_of_a_refusal_is_told_where_it_has_one() -> None:
    assert code_of(httpx.Response(503, json={"error": {"code": "capacity"}})) == "capacity"
    assert code_of(httpx.Response(502, text="bad gateway")) == ""
