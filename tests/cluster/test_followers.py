"""Sessions of other nodes, followed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsvc.cluster import followers
from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import Row
from streamsvc.cluster.redis_client import number
from streamsvc.cluster.session_copy import SessionCopy
from streamsvc.core import metrics
from tests.builders.cluster import FACTS, SESSION, Own, node_of, until
from tests.builders.redis_server import RedisServer


def copy_of(node: ClusterNode, own: Own, session: str = SESSION) -> SessionCopy:
    copy = node.copy_of(session, FACTS)
    copy.begin(own)
    return copy


@contextlib.asynccontextmanager
async def following(
    node: ClusterNode, got: list[Row], after: int = 0, session: str = SESSION
) -> AsyncIterator[None]:
    """Collect what a follower gets."""

    async def collect() -> None:
        async with contextlib.aclosing(node.followers.follow(session, after)) as pages:
            async for page in pages:
                got.extend(page)

    task = asyncio.create_task(collect())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_and_what_comes_is_followed_in_order(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node, node_of(redis_server, "two") as two:
        own, got = Own(), list[Row]()
        copy = copy_of(node, own)
        await copy.write(own.add(followers.PAGE + 10))
        async with following(two, got, after=5):
            for _ in range(20):
                await copy.write(own.add())
            await until(lambda: len(got) == followers.PAGE + 25)
            await copy.write(own.add())
            await until(lambda: len(got) == followers.PAGE + 26)
        assert got == own.stored[5:]


async def test_many_followers_share_one_reading(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node, node_of(redis_server, "two") as two:
        owns = [Own(), Own()]
        copies = [copy_of(node, own, session) for own, session in zip(owns, ("0.a", "0.b"), strict=True)]
        got: list[list[Row]] = [[], [], []]
        async with (
            following(two, got[0], session="0.a"),
            following(two, got[1], session="0.a"),
            following(two, got[2], session="0.b"),
        ):
            for _ in range(5):
                for copy, own in zip(copies, owns, strict=True):
                    await copy.write(own.add())
                await asyncio.sleep(0.02)
            await until(lambda: [len(rows) for rows in got] == [5, 5, 5])
            assert sum("Followers._run" in str(task.get_coro()) for task in asyncio.all_tasks()) == 1
        await until(lambda: not any("Followers._run" in str(task.get_coro()) for task in asyncio.all_tasks()))


async def test_an_outage_costs_time_and_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "AWAY_SECONDS", 0.05)
    server = RedisServer(tmp_path, keeps=True)
    server.start()
    try:
        async with node_of(server) as node, node_of(server, "two") as two:
            own, got = Own(), list[Row]()
            copy = copy_of(node, own)
            await copy.write(own.add(3))
            async with following(two, got):
                await until(lambda: len(got) == 3)
                server.kill()
                await copy.write(own.add(4))
                server.start()
                await until(lambda: len(got) == 7)
            assert got == own.stored
    finally:
        server.kill()


async def test_a_follower_may_come_while_redis_is_away(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "AWAY_SECONDS", 0.05)
    async with node_of(redis_server) as node:
        own, got = Own(), list[Row]()
        copy = copy_of(node, own)
        redis_server.kill()
        await copy.write(own.add(2))
        async with following(node, got):
            await asyncio.sleep(0.1)
            redis_server.start()
            await until(lambda: got == own.stored)


async def test_a_slow_follower_reads_again_and_loses_ephemeral_events_alone(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped() -> float:
        labels = {"type": "caption.partial"}
        return metrics.REGISTRY.get_sample_value("streamsvc_events_dropped_total", labels) or 0.0

    monkeypatch.setattr(followers, "WAITING", 10)
    async with node_of(redis_server) as node, node_of(redis_server, "two") as two:
        own, before = Own(), dropped()
        copy = copy_of(node, own)
        await copy.write(own.add())
        async with contextlib.aclosing(two.followers.follow(SESSION, 0)) as pages:
            assert await anext(pages) == own.stored
            page = asyncio.ensure_future(anext(pages))
            await asyncio.sleep(0.2)  # all that was before is read
            await copy.write(own.add())
            assert await page == own.stored[1:]
            keys = [two.redis.of(SESSION, "live")]
            await node.redis.run("XADD", *keys, "*", "type", "caption.partial", "json", "{")
            await asyncio.sleep(0.2)
            for _ in range(5):
                await copy.write(own.add(5))
            await asyncio.sleep(0.3)
            got: list[Row] = []
            while len(got) < 25:
                got += [row for row in await anext(pages) if row[0]]
            assert got == own.stored[2:]
        assert dropped() == before + 1


async def test_nobody_is_told_as_following_for_long(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "FOLLOWED_SECONDS", 1.0)
    async with node_of(redis_server) as node:
        got: list[Row] = []
        key = node.redis.of(SESSION, "followed")

        async def left() -> int:
            await asyncio.sleep(0.02)
            return number(await node.redis.run("PTTL", key))

        async with asyncio.timeout(10):
            async with following(node, got):
                before = await left()
                while (now := await left()) <= before or now <= 0:  # it is told again
                    before = now
            while await left() > 0:
                pass


async def test_an_event_that_comes_while_those_before_are_read_comes_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_of(redis_server) as node, node_of(redis_server, "two") as two:
        own, got = Own(), list[Row]()
        copy, read = copy_of(node, own), two.log.read
        await copy.write(own.add())

        async def reading(session: str, after: int, limit: int) -> list[Row]:
            if len(own.stored) == 1:
                await copy.write(own.add())
            return await read(session, after, limit)

        monkeypatch.setattr(two.log, "read", reading)
        async with following(two, got):
            await until(lambda: len(got) >= 2)
            await asyncio.sleep(3 * followers.BLOCK_SECONDS)  # the common reading has it too
            await copy.write(own.add())
            await until(lambda: own.stored[-1] in got)
        assert got == own.stored
