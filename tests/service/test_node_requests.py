"""Requests of other nodes have the grants that these have signed; others have none by their signature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from starlette.types import Message, Receive, Scope, Send

from streamsvc.core.types import Grants
from streamsvc.service.node_requests import NodeRequests
from streamsvc.service.node_signature import HEADER, Forwarded, NodeSignature
from tests.builders.cluster import SECRET
from tests.builders.fake_service import Peer
from tests.builders.nodes import published, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.spoken import KEY

KEYED = {"server": {"api_key": KEY}}
PATH = "/v1/sessions/talk"
READER = Grants("t", "talk", frozenset({"subscribe"}), None, "abcdefghijkl")
BODY = b'{"vocabulary": ["Ada"]}'
JSON = {"Content-Type": "application/json"}


def signed(method: str, grants: Grants, body: bytes = b"", secret: str = SECRET) -> dict[str, str]:
    """The header of a request that a node has signed."""
    return {HEADER: NodeSignature(secret).forwarded(Forwarded(method, PATH, body, grants, "192.0.2.7"))}


async def test_a_signature_grants_what_the_client_of_the_other_node_has(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "one", **KEYED) as one:
        session = await published(one)
        assert (await one.client.get(PATH, headers=signed("GET", READER))).status_code == 200
        may_not = await one.client.patch(PATH, content=BODY, headers=JSON | signed("PATCH", READER, BODY))
        assert error_of(may_not) == (403, "forbidden")
        publisher = Grants("t", "talk", frozenset({"publish"}), None, "abcdefghijkl")
        other = await one.client.patch(PATH, content=b"{}", headers=JSON | signed("PATCH", publisher, BODY))
        assert error_of(other) == (401, "bad_request"), "another body was signed"
        assert list(session.speech.options.vocabulary) == []
        done = await one.client.patch(PATH, content=BODY, headers=JSON | signed("PATCH", publisher, BODY))
        assert done.status_code == 200, done.text
        assert list(session.speech.options.vocabulary) == ["Ada"]


async def test_a_token_that_has_ended_since_opens_nothing_by_what_another_node_has_signed(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "one", **KEYED) as one:
        session = await published(one)
        publisher = replace(READER, may=frozenset({"publish"}))
        expired = replace(publisher, holder="mnopqrstuvwx", expires=1.0)
        one.service.auth.revoked.add(publisher.holder, 60.0, by_owner=True)
        for grants, why in ((publisher, "token_revoked"), (expired, "token_expired")):
            headers = JSON | signed("PATCH", grants, BODY)
            refused = await one.client.patch(PATH, content=BODY, headers=headers)
            assert error_of(refused) == (401, why)
            ticket = one.part.signature.ticket("/whip/other", grants)
            door = f"/whip/other?ticket={ticket}"
            sdp = {"Content-Type": "application/sdp"}
            assert error_of(await one.client.post(door, content="good", headers=sdp)) == (401, why)
        assert list(session.speech.options.vocabulary) == []
        assert len(peers) == 1


async def test_who_asks_by_way_of_another_node_counts_by_its_own_address_and_sends_a_bounded_body(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    seen: list[tuple[object, object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        granted = scope["streamsvc.grants"]
        seen.append((scope["client"], getattr(granted, "code", granted)))

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async with silent_node(redis_server, tmp_path, "one", **KEYED) as one:
        requests = NodeRequests(app, one.service.auth, one.part, 10, None)
        for body in (b"0123456789", b"0123456789a"):
            pieces = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def receive(pieces: Iterator[Message] = pieces) -> Message:
                return next(pieces)

            headers = [(HEADER.encode(), signed("PATCH", READER, body)[HEADER].encode())]
            scope = {"type": "http", "method": "PATCH", "path": PATH, "query_string": b"", "headers": headers}
            await requests(scope | {"client": ("10.0.0.1", 5)}, receive, send)
    assert seen == [(("192.0.2.7", 0), READER), (("10.0.0.1", 5), "too_large")]


async def test_what_no_node_has_signed_opens_nothing(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with silent_node(redis_server, tmp_path, "one", **KEYED) as one:
        await published(one)
        for headers in (
            signed("GET", READER, secret="another secret of others"),
            signed("DELETE", READER),
            {HEADER: "x"},
            {HEADER: ""},
            {HEADER: "x", "Authorization": f"Bearer {KEY}"},
        ):
            assert error_of(await one.client.get(PATH, headers=headers)) == (401, "bad_request")
        assert (await one.client.get("/healthz", headers={HEADER: "x"})).json()["node"] == "one"
