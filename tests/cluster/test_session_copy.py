"""The way of one session's events to Redis, through outages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsvc.cluster import session_copy
from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import Row
from streamsvc.cluster.registry import Renewed
from streamsvc.cluster.session_copy import SessionCopy
from streamsvc.core import clock, metrics
from tests.builders.cluster import FACTS, SESSION, Own, node_of, until
from tests.builders.redis_server import RedisServer


def copy_of(node: ClusterNode, own: Own, **facts: str) -> SessionCopy:
    copy = node.copy_of(SESSION, FACTS | facts)
    copy.begin(own)
    return copy


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test kills and starts again; it keeps what it has."""
    server = RedisServer(tmp_path, keeps=True)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def seqs(node: ClusterNode) -> list[int]:
    return [row[0] for row in await node.log.read(SESSION, 0, 10_000)]


async def steal(node: ClusterNode, copy: SessionCopy) -> None:
    """Have another node own the session."""
    assert copy.claim is not None
    fence = copy.claim.owner.fence + 1
    keys = [node.redis.of(SESSION, part) for part in ("owner", "fence")]
    await node.redis.pipeline([("SET", keys[0], f"two:{fence}"), ("SET", keys[1], fence)], atomic=True)


async def test_redis_has_an_event_before_it_is_shown(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        rows = own.add(2)
        await copy.write(rows)  # the claim comes with it
        assert await node.log.read(SESSION, 0, 10) == rows
        await copy.write(own.add())
        assert await seqs(node) == [1, 2, 3]
        assert copy.waiting == 0
        found = (await node.log.look([SESSION]))[SESSION]
        assert found.owner == (copy.claim.owner if copy.claim else None)
        assert found.meta["node"] == "one"
        assert await node.log.broadcasts("lecture") == [SESSION]


async def test_a_session_is_claimed_before_its_first_event(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        copy = copy_of(node, Own())
        await until(lambda: not copy.behind)
        assert (await node.log.look([SESSION]))[SESSION].meta["epoch"] == "abcd"


async def test_what_belongs_to_an_event_is_there_before_it(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        copy.put_frame(1.5, b"\xff\xd8")
        copy.put_question(("q", "", "asker", None, "what?"))
        await copy.write(own.add())
        assert await node.log.frame_at(SESSION, 2.0) == b"\xff\xd8"
        assert await node.log.questions(SESSION) == [("q", "", "asker", None, "what?")]


async def test_while_redis_is_away_nothing_waits_and_all_is_copied_in_order_on_its_return(
    mortal: RedisServer,
) -> None:
    async with node_of(mortal) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add(2))
        mortal.kill()
        began = clock.now()
        for _ in range(50):
            await copy.write(own.add(10))
        assert clock.now() - began < 50 * node.settings.write_seconds / 2
        assert not node.up
        assert copy.waiting == 500
        mortal.start()
        await until(lambda: not copy.behind)
        assert await seqs(node) == list(range(1, 503))
        await copy.write(own.add())
        await until(lambda: not copy.behind)  # on a busy machine Redis may have taken too long
        assert (await seqs(node))[-1] == 503
        assert copy.waiting == 0
        assert (await node.log.meta(SESSION))["behind"] == ""


async def test_a_redis_that_has_lost_its_data_gets_all_of_it_again(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        copy.put_question(("q", "", "asker", None, "what?"))
        await copy.write(own.add(300))
        redis_server.kill()
        redis_server.start()
        await until(lambda: not copy.behind and copy.waiting == 0 and node.up)
        await asyncio.sleep(0.2)  # no event comes: the heartbeat finds out
        await until(lambda: not copy.behind)
        assert await seqs(node) == list(range(1, 301))
        assert (await node.log.meta(SESSION))["name"] == "lecture"
        assert len(await node.log.questions(SESSION)) == 1
        assert await node.log.broadcasts("lecture") == [SESSION]


async def test_a_redis_that_hangs_holds_an_event_a_bounded_time_and_the_next_not(
    redis_server: RedisServer,
) -> None:
    async with node_of(redis_server, write_seconds=0.1) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        redis_server.hang()
        began = clock.now()
        await copy.write(own.add())
        assert 0.05 < clock.now() - began < 1.5
        began = clock.now()
        for _ in range(20):
            await copy.write(own.add())
        assert clock.now() - began < 1.5  # not once 0.1 s each
        redis_server.go_on()
        await until(lambda: not copy.behind)
        assert await seqs(node) == list(range(1, 23))


async def test_a_node_that_shows_events_without_redis_tells_it_when_it_can(
    redis_server: RedisServer,
) -> None:
    async with node_of(redis_server, write_seconds=0.1) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        own.readable = False  # its disk is slow: the copying takes long
        redis_server.hang()
        await copy.write(own.add())
        redis_server.go_on()
        async with asyncio.timeout(10):
            while (await node.log.meta(SESSION)).get("behind") != "1":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        own.readable = True
        await until(lambda: not copy.behind)
        assert (await node.log.meta(SESSION))["behind"] == ""


async def test_who_has_lost_a_session_stops_to_write(redis_server: RedisServer) -> None:
    lost: list[str] = []
    async with node_of(redis_server, fenced=lost.append, heartbeat_seconds=5.0, lease_seconds=10.0) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        await steal(node, copy)
        before = metrics.REGISTRY.get_sample_value("streamsvc_cluster_fenced_total") or 0.0
        await copy.write(own.add())
        await copy.write(own.add())
        assert copy.fenced
        assert lost == [SESSION]
        assert await seqs(node) == [1]
        assert metrics.REGISTRY.get_sample_value("streamsvc_cluster_fenced_total") == before + 1


async def test_a_heartbeat_finds_that_a_session_is_lost(redis_server: RedisServer) -> None:
    lost: list[str] = []
    async with node_of(redis_server, fenced=lost.append) as node:
        copy = copy_of(node, Own())
        await until(lambda: not copy.behind)
        await steal(node, copy)
        await until(lambda: copy.fenced)
        assert lost == [SESSION]


async def test_a_session_that_another_node_owns_is_not_claimed(redis_server: RedisServer) -> None:
    lost: list[str] = []
    async with node_of(redis_server, "two") as two, node_of(redis_server, fenced=lost.append) as node:
        assert await two.registry.claim(SESSION)
        copy = copy_of(node, Own())
        await until(lambda: copy.fenced)
        assert lost == [SESSION]


async def test_an_end_gives_the_claim_back_and_late_answers_are_still_copied(
    redis_server: RedisServer,
) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        copy.put_facts(ended_utc="2026-12-01T10:01:00.000Z")
        await copy.end()
        found = (await node.log.look([SESSION]))[SESSION]
        assert found.owner is None
        assert found.ended
        await copy.write(own.add())
        assert await seqs(node) == [1, 2]


async def test_what_was_not_copied_at_the_end_is_copied_later(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        redis_server.kill()
        await copy.write(own.add(3))
        copy.put_facts(ended_utc="2026-12-01T10:01:00.000Z")
        await copy.end()
        assert copy.waiting
        redis_server.start()
        await until(lambda: not copy.behind)
        assert await seqs(node) == [1, 2, 3, 4]
        assert (await node.log.look([SESSION]))[SESSION].ended


async def test_after_the_end_what_cannot_be_read_is_given_up_and_counted(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        redis_server.kill()
        await copy.write(own.add(3))
        own.readable = False
        await copy.end()
        before = metrics.REGISTRY.get_sample_value("streamsvc_events_unwritten_total") or 0.0
        redis_server.start()
        await until(lambda: not copy.behind)
        assert metrics.REGISTRY.get_sample_value("streamsvc_events_unwritten_total") == before + 3


async def test_of_a_session_that_is_not_stored_nothing_is_copied(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own, stored="0")
        copy.put_frame(1.0, b"\xff")
        copy.put_question(("q", "", "", None, "what?"))
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        assert await seqs(node) == []
        assert await node.log.questions(SESSION) == []
        assert (await node.log.look([SESSION]))[SESSION].owner is not None  # it is known where it lives


async def test_ephemeral_events_are_passed_on_where_somebody_follows(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node, node_of(redis_server, "two") as two:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        copy.show((0, "caption.partial", None, '{"text":"unseen"'))
        async with contextlib.aclosing(two.followers.follow(SESSION, 0)) as pages:
            assert [row[0] for row in await anext(pages)] == [1]
            page = asyncio.ensure_future(anext(pages))
            while not page.done():
                copy.show((0, "caption.partial", "somebody", '{"text":"seen"'))
                await asyncio.sleep(0.05)
            assert set(await page) == {(0, "caption.partial", "somebody", '{"text":"seen"')}
        await copy.end()


async def test_how_much_waits_is_a_gauge(redis_server: RedisServer) -> None:
    def gauge() -> float:
        return metrics.REGISTRY.get_sample_value("streamsvc_cluster_events_waiting") or 0.0

    before = gauge()
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        redis_server.kill()
        await copy.write(own.add(7))
        assert gauge() == before + 7
        assert metrics.REGISTRY.get_sample_value("streamsvc_cluster_redis_up") == 0
    assert gauge() == before


@pytest.mark.parametrize("rows", [0, 1])
async def test_what_redis_has_already_is_no_hole(redis_server: RedisServer, rows: int) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        first = own.add(3)
        await copy.write(first)
        await copy.write(first + own.add(rows))
        assert await seqs(node) == list(range(1, 4 + rows))
        assert copy.waiting == 0


async def test_a_session_is_listed_with_its_facts_and_stays_so_without_events(
    redis_server: RedisServer,
) -> None:
    async with node_of(redis_server) as node:
        listed: list[bool] = []
        enter = node.log.enter

        async def entered(session: str, started_ms: int, name: str | None) -> None:
            listed.append(bool(await node.log.meta(session)))
            await enter(session, started_ms, name)

        node.log.enter = entered  # type: ignore[method-assign]
        copy = copy_of(node, Own())
        await until(lambda: not copy.behind)
        assert listed == [True], "what is listed without facts is taken for gone"
        await node.redis.run("DEL", node.redis.key("name", "lecture"))
        copy._holding.forgotten()
        await until(lambda: len(listed) == 2 and not copy.behind)
        assert await node.log.broadcasts("lecture") == [SESSION]


async def test_what_belongs_to_an_event_comes_with_it_after_an_outage(mortal: RedisServer) -> None:
    async with node_of(mortal) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        mortal.kill()
        copy.put_frame(1.5, b"\xff\xd8")
        copy.put_question(("q", "", "asker", None, "what?"))
        await copy.write(own.add())
        mortal.start()
        await until(lambda: not copy.behind and node.up)
        assert await seqs(node) == [1, 2]
        assert await node.log.frame_at(SESSION, 2.0) == b"\xff\xd8"
        assert len(await node.log.questions(SESSION)) == 1


async def test_what_is_copied_while_a_renewal_is_under_way_is_not_taken_for_lost(
    redis_server: RedisServer,
) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add(2))
        await until(lambda: not copy.behind)
        before = copy.copied
        await copy.write(own.add())
        copy.renewed(Renewed(True, 2, False), before)  # told before the third
        assert not copy.behind
        copy.renewed(Renewed(True, 1, False), before)
        assert copy.behind


class Slow:
    """Another session whose copying takes for ever."""

    async def catch_up(self) -> None:
        await asyncio.Event().wait()

    async def abandon(self) -> None: ...


async def test_redis_is_told_at_once_that_it_lacks_what_was_shown(redis_server: RedisServer) -> None:
    async with node_of(redis_server, write_seconds=0.1) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        node.contact.fell_behind("other", Slow())
        await asyncio.sleep(0.05)
        redis_server.hang()
        await copy.write(own.add())
        redis_server.go_on()
        async with asyncio.timeout(10):
            while (await node.log.meta(SESSION)).get("behind") != "1":  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_what_comes_after_a_hole_is_copied_after_what_is_missing(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        own.add()  # Redis lacks it, and the copy has not heard of it
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        assert await seqs(node) == [1, 2, 3]


async def test_redis_is_told_that_it_lacks_events_while_they_are_copied(mortal: RedisServer) -> None:
    async with node_of(mortal) as node:
        own = Own()
        copy = copy_of(node, own)
        await copy.write(own.add())
        await until(lambda: not copy.behind)
        mortal.kill()
        own.readable = False  # its disk is slow: the copying takes long
        await copy.write(own.add())
        mortal.start()
        async with asyncio.timeout(10):
            while not node.up or (await node.log.meta(SESSION)).get("behind") != "1":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        own.readable = True
        await until(lambda: not copy.behind)


async def test_an_end_waits_a_bounded_time(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Own):
        async def rows(self, after: int, limit: int) -> list[Row]:
            await asyncio.Event().wait()
            return []

    monkeypatch.setattr(session_copy, "END_SECONDS", 0.1)
    async with node_of(redis_server, heartbeat_seconds=5.0) as node:
        own = Hanging()
        copy = copy_of(node, own)
        await until(lambda: not copy.behind)
        node.contact.lost()
        await copy.write(own.add())
        node.contact.found()
        await asyncio.wait_for(copy.end(), 20)
        assert copy.waiting == 1
