"""Candidates within a range of ports, and those of a router in front of this machine."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.errors import CapacityError
from streamsvc.ingest.peer import FrameSink, Peer, answer
from tests.builders.free_ports import free_udp_ports

OFFER = (Path(__file__).parents[1] / "fixtures" / "obs.sdp").read_text()
Place = tuple[str, int]


@contextlib.asynccontextmanager
async def answered(**settings: object) -> AsyncIterator[tuple[Peer, list[Place]]]:
    """A peer that has answered an offer, and the candidates of its answer in their order."""
    sink = FrameSink("s", clock.now(), lambda frame: None, lambda *state: None)
    peer = await answer(OFFER, Ingest.model_validate(settings), Limits(), sink)
    try:
        found = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", peer.sdp.split("m=")[1])
        yield peer, [(address, int(port)) for address, port in found]
    finally:
        await peer.close()


async def test_media_use_one_port_of_the_range_at_every_address_and_free_it() -> None:
    ports = free_udp_ports(2)
    told = f"{ports[0]}-{ports[-1]}"
    async with answered(udp_ports=told) as (_, first), answered(udp_ports=told) as (_, second):
        assert len({port for _, port in first}) == len({port for _, port in second}) == 1
        assert {port for _, port in first + second} == set(ports)
        assert "127.0.0.1" in dict(first)
        with pytest.raises(CapacityError, match=f"udp_ports .{told}. is free") as caught:
            async with answered(udp_ports=told):
                pass
        assert (caught.value.code, caught.value.retryable) == ("no_udp_port", True)
    async with answered(udp_ports=told) as (_, again):
        assert {port for _, port in again} <= set(ports)


async def test_a_port_that_is_taken_at_one_address_is_used_at_none() -> None:
    ports = free_udp_ports(2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", ports[0]))  # the last one that is bound
        for _ in range(4):
            async with answered(udp_ports=f"{ports[0]}-{ports[-1]}") as (_, found):
                assert {port for _, port in found} == {ports[1]}


async def test_a_router_s_address_is_offered_first_with_the_ports_of_ours() -> None:
    async with answered(advertise=["203.0.113.7", "2001:db8::7"]) as (_, found):
        own = [(address, port) for address, port in found if not address.startswith(("203.", "2001:db8"))]
        ports = {port for address, port in own if "." in address and address != "127.0.0.1"}
        assert found[0][0] in ("203.0.113.7", "2001:db8::7")
        assert {port for address, port in found if address == "203.0.113.7"} == ports
        assert len(own) > 0


async def test_nothing_is_offered_for_a_router_that_only_reaches_loopback() -> None:
    async with answered(advertise=["203.0.113.7"], udp_ports="", loopback=True) as (peer, found):
        loopback = dict(found)["127.0.0.1"]
        assert ("203.0.113.7", loopback) not in found
        assert peer.sdp
