"""The nodes of the cluster: addresses, load, sessions; and one that is alone."""

from __future__ import annotations

from pathlib import Path

import httpx

from streamsvc.service import app
from tests.builders import fake_service
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.nodes import pair, published
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.spoken import KEY

OWNER = {"Authorization": f"Bearer {KEY}"}


async def test_any_node_tells_of_all(redis_server: RedisServer, tmp_path: Path, peers: list[Peer]) -> None:
    async with pair(redis_server, tmp_path, server={"api_key": KEY}) as (one, two):
        await published(one)
        await until(lambda: "one" in two.part.node.nodes and two.part.node.nodes["one"].sessions == 1)
        body = (await two.client.get("/v1/nodes", headers=OWNER)).json()
        assert body["failover"] is True
        told = {node["name"]: (node["address"], node["sessions"], node["asked"]) for node in body["nodes"]}
        assert told == {"one": (one.address, 1, False), "two": (two.address, 0, True)}
        token = {"may": ["subscribe"], "expires_in": 60}
        made = (await two.client.post("/v1/tokens", json=token, headers=OWNER)).json()["token"]
        refused = await two.client.get("/v1/nodes", headers={"Authorization": f"Bearer {made}"})
        assert error_of(refused) == (403, "forbidden")
        redis_server.kill()
        await until(lambda: not two.part.node.up)
        body = (await two.client.get("/v1/nodes", headers=OWNER)).json()
        assert body["failover"] is False


async def test_a_service_alone_tells_of_itself(tmp_path: Path) -> None:
    async with fake_service.serving(tmp_path) as service:
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            body = (await client.get("/v1/nodes")).json()
            assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert [(node["name"], node["asked"]) for node in body["nodes"]] == [("", True)]
    assert body["failover"] is False
