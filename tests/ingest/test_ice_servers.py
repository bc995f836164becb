"""ICE servers add candidates; one that does not answer costs its candidates, and never the offer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aioice import stun
from structlog.testing import capture_logs

from streamsvc.core import clock, metrics
from streamsvc.core.config import Ingest, Limits
from streamsvc.ingest.ice_servers import IceServer, IceServers, parse
from streamsvc.ingest.peer import FrameSink, answer

OFFER = (Path(__file__).parents[1] / "fixtures" / "obs.sdp").read_text()
MAPPED = ("203.0.113.9", 40_000)


class StunServer(asyncio.DatagramProtocol):
    """Answers with `code`: 0 success, None nothing, else an error; counts requests."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        self.requests = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.requests += 1
        request = stun.parse_message(data)
        if self.code is None:
            return
        kind = stun.Class.ERROR if self.code else stun.Class.RESPONSE
        reply = stun.Message(request.message_method, kind, request.transaction_id)
        if self.code:
            reply.attributes["ERROR-CODE"] = (self.code, "no")
        else:
            reply.attributes["XOR-MAPPED-ADDRESS"] = MAPPED
        self.transport.sendto(bytes(reply), address)


@contextlib.asynccontextmanager
async def serving(code: int | None) -> AsyncIterator[tuple[StunServer, int]]:
    """A server of STUN messages on a loopback port."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: StunServer(code), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def candidates(servers: IceServers) -> list[str]:
    """Types of the candidates in the answer to an offer."""
    sink = FrameSink("s", clock.now(), lambda frame: None, lambda *state: None)
    peer = await answer(OFFER, Ingest(), Limits(), sink, servers)
    await peer.close()
    return re.findall(r"a=candidate:.* typ (\w+)", peer.sdp.split("m=")[1])


def failures(reason: str) -> float:
    return float(metrics.ice_server_failures.labels(reason)._value.get())


async def test_a_server_that_answers_adds_a_candidate_without_waiting_for_all_addresses() -> None:
    async with serving(0) as (server, port), asyncio.timeout(10):
        found = await candidates(IceServers([f"stun:127.0.0.1:{port}"], seconds=60))
    assert "host" in found
    assert "srflx" in found
    assert server.requests


@pytest.mark.parametrize(
    ("url", "code", "reason"),
    [
        ("stun:127.0.0.1:{port}", None, "silent"),
        ("turn:127.0.0.1:{port}", None, "silent"),
        ("turn:127.0.0.1:{port}", 401, "credentials"),
        ("turn:127.0.0.1:{port}", 508, "refused"),
        ("stun:127.0.0.1:{port}", 400, "refused"),
        ("turn:127.0.0.1:{closed}?transport=tcp", None, "refused"),
        ("turns:127.0.0.1:{closed}", None, "refused"),
        ("stun:nowhere.invalid", None, "name"),
        ("turn:nowhere.invalid", None, "name"),
    ],
)
async def test_a_server_that_fails_costs_its_candidates_alone(
    url: str, code: int | None, reason: str
) -> None:
    before = failures(reason)
    async with serving(code) as (server, port), serving(0) as (_, good):
        address = url.format(port=port, closed=closed_port())
        servers = IceServers([address, f"stun:127.0.0.1:{good}"], seconds=0.5)
        with capture_logs() as log:
            found = await candidates(servers)
        assert {"host", "srflx"} == set(found)
        told = [line for line in log if line["event"] == "ice_server.failed"]
        # A machine without any resolver may take longer to say that there is no such name.
        assert [line["reason"] for line in told] == [reason] or (
            reason == "name" and told[0]["reason"] == "silent"
        )
        assert failures(reason) == before + 1 or reason == "name"
        asked = server.requests
        assert {"host", "srflx"} == set(await candidates(servers)), "left out from now on"
        assert server.requests == asked


async def test_the_servers_of_the_settings_are_asked_within_half_of_the_time_for_an_answer() -> None:
    async with serving(None) as (server, port):
        settings = Ingest(ice_servers=(f"stun:127.0.0.1:{port}",), ice_seconds=30)
        sink = FrameSink("s", clock.now(), lambda frame: None, lambda *state: None)
        peer = await answer(OFFER, settings, Limits(sdp_seconds=1.0), sink)
        await peer.close()
    assert server.requests
    assert " typ host" in peer.sdp


async def test_all_servers_dead_still_answers_with_host_candidates() -> None:
    async with serving(None) as (_, one), serving(None) as (_, two):
        servers = IceServers([f"stun:127.0.0.1:{one}", f"turn:127.0.0.1:{two}"], seconds=0.3)
        begun = clock.now()
        assert set(await candidates(servers)) == {"host"}
        assert clock.now() - begun < 2.0


async def test_an_outside_server_is_not_asked_from_the_loopback_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its answer could never come: waiting for it cost every offer the whole limit."""
    asked: list[bool] = []

    def queries(connection: Any, server: Any, skip_loopback: bool) -> list[Any]:
        asked.append(skip_loopback)
        return []

    monkeypatch.setattr("streamsvc.ingest.candidates.reflexive_queries", queries)
    await candidates(IceServers(["stun:192.0.2.1", "stun:127.0.0.1"]))
    assert asked == [True, False]


def test_malformed_urls_are_left_out_and_told() -> None:
    with capture_logs() as log:
        IceServers(["http://example.org", "stun:"])
    assert [line["event"] for line in log] == ["ice_server.malformed"] * 2


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("stun:stun.example.org", IceServer("stun", "stun.example.org", 3478, "udp")),
        ("stun:[2001:db8::1]:19302", IceServer("stun", "2001:db8::1", 19302, "udp")),
        ("turn:192.0.2.1:80?transport=tcp", IceServer("turn", "192.0.2.1", 80, "tcp")),
        ("turns:turn.example.org", IceServer("turn", "turn.example.org", 5349, "tls")),
        ("turns:turn.example.org?transport=udp", None),
        ("stun:a?transport=udp", None),
        ("stuns:a", None),
        ("stun:user@a", None),
        ("stun:a b", None),
    ],
)
def test_urls_of_servers(url: str, server: IceServer | None) -> None:
    assert parse(url) == server
