"""Services that are nodes of one cluster, in a test's process, with stand-in models; and what ends one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from streamsvc.__main__ import _listen as listening
from streamsvc.cluster.records import SharedSession
from streamsvc.core import config
from streamsvc.core.errors import ClusterUnavailable
from streamsvc.service import app
from streamsvc.service.cluster_part import ClusterPart
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.cluster import PATIENCE, SECRET
from tests.builders.free_ports import free_tcp_port
from tests.builders.redis_server import RedisServer
from tests.builders.session import Models, sends


@dataclass(frozen=True)
class Node:
    """A node. `client`: asks it by HTTP; `address`: where it is reached."""

    service: Service
    client: httpx.AsyncClient
    address: str

    @property
    def part(self) -> ClusterPart:
        """What it does with sessions of other nodes."""
        assert self.service.part is not None
        return self.service.part

    async def session(self, name: str) -> Session:
        """A session as this node knows it."""
        return await self.service.sessions.open(name)

    def cut_off(self) -> None:
        """Let it reach Redis no more: to the others it is dead within a lease."""

        async def silent(*_arguments: object, **_options: object) -> None:
            raise ClusterUnavailable("Redis does not answer (test)")

        redis = self.part.node.redis
        for name in ("run", "scripts", "pipeline"):
            setattr(redis, name, silent)


def _groups(
    server: RedisServer, name: str, port: int, folder: Path, groups: dict[str, Any]
) -> dict[str, Any]:
    cluster = {
        "url": server.url,
        "node": name,
        "advertise": f"http://127.0.0.1:{port}",
        "secret": SECRET,
        "lease_seconds": 2.5,  # a loop may stand still for a second where others have the processor
        "heartbeat_seconds": 0.1,
        "write_seconds": 5.0,
    }
    own = {"cluster": cluster | groups.get("cluster", {})}
    return groups | own | {"server": {"data_dir": folder / name, **groups.get("server", {})}}


@contextlib.asynccontextmanager
async def node(server: RedisServer, folder: Path, name: str, /, **groups: Any) -> AsyncIterator[Node]:
    """A node with its HTTP server."""
    port = free_tcp_port()
    settings = config.load(None, **_groups(server, name, port, folder, groups))
    listener, address = listening("127.0.0.1", port), f"http://127.0.0.1:{port}"
    with (
        contextlib.closing(listener),
        mock.patch.object(app, "Service", functools.partial(Service, at_once=())),
    ):
        async with (
            app.listening(settings, listener) as (service, _),
            httpx.AsyncClient(base_url=address, timeout=30) as client,
        ):
            service.use_roles(Models().roles())
            yield Node(service, client, address)


@contextlib.asynccontextmanager
async def silent_node(server: RedisServer, folder: Path, name: str, /, **groups: Any) -> AsyncIterator[Node]:
    """A node that nobody reaches by HTTP but its own client: at its address nothing listens."""
    port = free_tcp_port()
    settings = config.load(None, **_groups(server, name, port, folder, groups))
    async with Service(settings, at_once=()) as service:
        service.use_roles(Models().roles())
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:
            yield Node(service, client, f"http://127.0.0.1:{port}")


@contextlib.asynccontextmanager
async def pair(server: RedisServer, folder: Path, /, **groups: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Two such nodes, "one" and "two"."""
    async with (
        silent_node(server, folder, "one", **groups) as one,
        silent_node(server, folder, "two", **groups) as two,
    ):
        yield one, two


async def eventually(at: Node, address: str) -> SharedSession:
    """What a node knows of a session of the cluster, once it knows it."""
    async with asyncio.timeout(PATIENCE):
        while (found := await at.part.remote.directory.find(address)) is None:  # noqa: ASYNC110 - in Redis
            await asyncio.sleep(0.02)
    return found


async def published(at: Node, name: str = "talk") -> Session:
    """A live session at a node; needs the fixture `peers`."""
    await at.service.publications.publish(name, "good")
    session = await at.session(name)
    sends(session)
    await session.log.flush()
    return session
