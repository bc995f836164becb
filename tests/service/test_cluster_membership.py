"""A service as a node of a cluster: what it shares, what it tells, what it loses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from streamsvc.cluster.node import ClusterNode
from streamsvc.core import config
from streamsvc.core.errors import ClusterUnavailable, ConfigError
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.service.cluster_membership import facts_of
from streamsvc.service.load_policy import FAILOVER
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.cluster import SECRET, until
from tests.builders.nodes import Node, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.session import Sender, sends


def cluster(node: Node) -> ClusterNode:
    assert node.service.cluster is not None
    return node.service.cluster


async def shared_types(node: Node, session: Session) -> list[str]:
    return [row[1] for row in await cluster(node).log.read(session.id, 0, 1000)]


async def test_a_session_is_in_redis_from_its_first_event_to_its_end(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as node:
        options = SessionOptions(SpeechOptions(vocabulary=("Kant",)))
        session = await node.service.sessions.create(options=options, name="lecture")
        subscription = session.log.subscribe()
        batch = await subscription.next()
        assert batch is not None
        seen = [seq for seq, _ in batch if seq]
        rows = await cluster(node).log.read(session.id, 0, 1000)
        assert [row[0] for row in rows] == seen  # stored there before it was shown here
        assert all(text.startswith(row[3]) for row, (_, text) in zip(rows, batch, strict=True))
        await session.store_frame(1.5, b"\xff\xd8")
        assert await cluster(node).log.broadcasts("lecture") == [session.id]
        facts = (await cluster(node).log.look([session.id]))[session.id]
        assert facts.owner is not None
        assert facts.owner.node == "one"
        assert SessionOptions.from_json(facts.meta["options"]).speech.vocabulary == ("Kant",)
        assert facts.meta["epoch"] == session.log.epoch
        session.end("deleted")
        await session.over.wait()
        assert (await shared_types(node, session))[-1] == "session.closed"
        ended = (await cluster(node).log.look([session.id]))[session.id]
        assert ended.ended
        assert ended.owner is None
        assert json.loads(ended.meta["stats"])["state"] == "ended"
        assert await cluster(node).log.frame_at(session.id, 2.0) == b"\xff\xd8"
        session.log.unsubscribe(subscription)


async def test_a_change_of_a_session_is_shared(tmp_path: Path, redis_server: RedisServer) -> None:
    async with silent_node(redis_server, tmp_path, "one") as node:
        session = await node.service.sessions.create(name="lecture")
        node.service.sessions.update(session.id, SpeechOptions(vocabulary=("Hegel",)), {"vocabulary"})
        async with asyncio.timeout(10):
            while "Hegel" not in (await cluster(node).log.meta(session.id)).get("options", ""):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_of_a_session_that_is_not_stored_no_word_is_shared(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as node:
        session = await node.service.sessions.create(options=SessionOptions(stored=False))
        assert facts_of(session)["stored"] == "0"
        async with asyncio.timeout(10):
            while not await cluster(node).log.meta(session.id):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        session.end("deleted")
        await session.over.wait()
        assert await shared_types(node, session) == []


async def test_while_redis_is_away_sessions_go_on_and_are_told_that_failover_is_off(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as node:
        session = await node.service.sessions.create(name="lecture")
        session.media.attach(Sender())
        sends(session)
        assert session.state is State.LIVE
        redis_server.kill()
        reasons: list[str] = []
        subscription = session.log.subscribe(["session.degraded"])

        async def listen() -> None:
            while (batch := await subscription.next()) is not None:
                reasons.extend(json.loads(text)["reason"] for _, text in batch)

        listening = asyncio.create_task(listen())
        await until(lambda: FAILOVER in reasons)
        redis_server.start()
        await until(lambda: reasons[-1] == "recovered")
        async with asyncio.timeout(10):
            while await cluster(node).log.newest(session.id) < session.log.seq:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        kinds = await shared_types(node, session)
        assert "session.created" in kinds
        assert kinds.count("session.degraded") == len(reasons)
        session.end("deleted")
        await listening
        session.log.unsubscribe(subscription)


async def test_a_session_that_another_node_owns_is_left_to_it(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with silent_node(redis_server, tmp_path, "one") as node:
        session = await node.service.sessions.create(name="lecture")
        subscription = session.log.subscribe(["session.closed"])
        await until(lambda: session.log._shown >= 1)
        redis = cluster(node).redis
        owner = await cluster(node).registry.owner(session.id)
        assert owner is not None
        keys = [redis.of(session.id, part) for part in ("owner", "fence")]
        await redis.pipeline(
            [("SET", keys[0], f"two:{owner.fence + 1}"), ("SET", keys[1], owner.fence + 1)], atomic=True
        )
        with pytest.raises(ClusterUnavailable, match="another node"):
            await subscription.next()  # and no session.closed: it goes on
        session.log.unsubscribe(subscription)
        await session.over.wait()
        await until(lambda: session.id not in node.service.sessions.by_id)
        assert session.store.folder is not None
        assert not session.store.folder.exists()
        assert "session.closed" not in await shared_types(node, session)
        assert session.stats()["state"] == "ended"


async def test_a_service_that_drains_leaves_its_claims(tmp_path: Path, redis_server: RedisServer) -> None:
    async with silent_node(redis_server, tmp_path, "one") as node:
        session = await node.service.sessions.create(name="lecture")
        await until(lambda: session.log._shown >= 1)
    async with silent_node(redis_server, tmp_path, "two") as other:
        found = (await cluster(other).log.look([session.id]))[session.id]
        assert found.owner is None
        assert found.ended
        assert set(cluster(other).nodes) == {"two"}


async def test_a_redis_that_is_down_at_start_ends_the_service_with_a_plain_error(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.kill()
    settings = config.load(
        None,
        server={"data_dir": tmp_path / "data"},
        cluster={"url": redis_server.url, "advertise": "http://a.example", "secret": SECRET},
    )
    with pytest.raises(ConfigError, match=r"cluster.url: .*does not answer"):
        async with Service(settings, at_once=()):
            pass


async def test_a_node_tells_its_load(tmp_path: Path, redis_server: RedisServer) -> None:
    async with silent_node(redis_server, tmp_path, "one", limits={"sessions": 3}) as node:
        session = await node.service.sessions.create(name="lecture")
        session.media.attach(Sender())
        sends(session)
        record = cluster(node).record()
        assert (record.sessions, record.limit, record.draining) == (1, 3, False)
        assert record.free["audio"] <= 2
        node.service.sessions.draining = True
        assert cluster(node).record().draining
        assert cluster(node).record().free == {"audio": 0, "audio_video": 0}


def test_without_a_cluster_redis_is_not_loaded(tmp_path: Path) -> None:
    code = "import sys, streamsvc.service.app; sys.exit(any(n.split('.')[0] == 'redis' for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


async def test_a_node_with_another_key_of_its_api_does_not_join(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with silent_node(redis_server, tmp_path, "one", server={"api_key": "a" * 32}):
        with pytest.raises(ConfigError, match="signs with other keys"):
            async with silent_node(redis_server, tmp_path, "two", server={"api_key": "b" * 32}):
                pass
