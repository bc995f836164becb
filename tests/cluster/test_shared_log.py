"""One stream per session, and what belongs to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from streamsvc.cluster.records import Claim, Owner, Row
from streamsvc.cluster.redis_client import RedisClient
from streamsvc.cluster.registry import Registry
from streamsvc.cluster.shared_log import QUESTIONS, Fenced, Hole, SharedLog
from tests.builders.cluster import SESSION, settings_of
from tests.builders.redis_server import RedisServer

ROWS: list[Row] = [
    (1, "session.created", None, '{"a":1'),
    (2, "answer.done", "somebody", '{"text":"é"'),
    (3, "answer.done", "", "{"),
]


@dataclass
class Shared:
    redis: RedisClient
    registry: Registry
    log: SharedLog
    claim: Claim


@pytest.fixture
async def shared(redis_server: RedisServer) -> AsyncIterator[Shared]:
    settings = settings_of(redis_server)
    redis = RedisClient(settings)
    registry = Registry(redis, settings, "one", 3600.0)
    claim = await registry.claim(SESSION)
    assert isinstance(claim, Claim)
    yield Shared(redis, registry, SharedLog(redis, registry, events=1000, frames=3), claim)
    await redis.close()


async def test_events_are_read_as_they_were_appended(shared: Shared) -> None:
    log = shared.log
    assert await log.newest(SESSION) == 0
    assert await log.write([log.append(shared.claim, 0, ROWS)]) == 3
    assert await log.read(SESSION, 0, 10) == ROWS
    assert await log.read(SESSION, 1, 1) == ROWS[1:2]
    assert await log.newest(SESSION) == 3
    assert await log.read("none", 0, 10) == []


async def test_the_oldest_events_are_dropped(redis_server: RedisServer, shared: Shared) -> None:
    log = SharedLog(shared.redis, shared.registry, events=100, frames=3)
    rows: list[Row] = [(seq, "caption.final", None, "{") for seq in range(1, 1001)]
    await log.write([log.append(shared.claim, 0, rows)])
    kept = await log.read(SESSION, 0, 2000)
    assert kept[-1][0] == 1000
    assert 100 <= len(kept) < 400  # Redis drops whole nodes of its tree


async def test_a_hole_and_a_lost_claim_are_told(shared: Shared) -> None:
    log = shared.log
    with pytest.raises(Hole) as hole:
        await log.write([log.append(shared.claim, 2, ROWS[2:])])
    assert hole.value.seq == 0
    stolen = Claim(SESSION, Owner("two", shared.claim.owner.fence + 1))
    with pytest.raises(Fenced):
        await log.write([log.append(stolen, 0, ROWS)])
    assert await log.newest(SESSION) == 0


async def test_what_belongs_to_a_session_is_read_as_it_was_written(shared: Shared) -> None:
    log, claim = shared.log, shared.claim
    asked = [("q1", "", "asker", None, "what?\0"), ("q1", "somebody", "", "reader", "wie groß?")]
    await log.write(
        [
            log.facts(claim, {"name": "lecture", "started_utc": "x"}),
            *[log.question(claim, one) for one in asked],
            *[log.frame(claim, at, b"\xff" + bytes([round(at)])) for at in (1.0, 2.0, 3.0, 4.5)],
        ]
    )
    assert await log.meta(SESSION) == {"name": "lecture", "started_utc": "x"}
    assert sorted(await log.questions(SESSION), key=lambda one: one[1]) == asked
    assert await log.newest_frame(SESSION) == 4.5
    assert await log.frame_at(SESSION, 4.4996) == b"\xff\x04"
    assert await log.frame_at(SESSION, 4.4) == b"\xff\x03"
    assert await log.frame_at(SESSION, 1.5) is None  # the oldest was dropped
    assert await log.newest_frame("none") is None


async def test_sessions_are_listed_from_the_newest_and_by_name(shared: Shared) -> None:
    log = shared.log
    await log.write([log.facts(shared.claim, {"name": "lecture"}), log.append(shared.claim, 0, ROWS)])
    for at, (session, name) in enumerate(((SESSION, "lecture"), ("lecture.b", "lecture"), ("0.c", None))):
        await log.enter(session, 1000 + at, name)
    assert await log.recent(2) == ["0.c", "lecture.b"]
    assert await log.recent(5, before_ms=1002) == ["lecture.b", SESSION]
    assert await log.broadcasts("lecture") == ["lecture.b", SESSION]
    found = await log.look(["0.c", "lecture.b", SESSION])
    assert list(found) == [SESSION]
    assert found[SESSION].owner == shared.claim.owner
    assert found[SESSION].seq == 3
    assert not found[SESSION].stalled
    assert await log.recent(5) == [SESSION]  # of the others nothing is kept


async def test_nothing_is_left_of_a_deleted_session(shared: Shared) -> None:
    log, claim = shared.log, shared.claim
    await log.enter(SESSION, 1000, "lecture")
    await log.write(
        [
            log.facts(claim, {"name": "lecture"}),
            log.question(claim, ("q", "", "", None, "what?")),
            log.frame(claim, 1.0, b"\xff"),
            log.live(claim, [(0, "caption.partial", None, "{")]),
            log.append(claim, 0, ROWS),
        ]
    )
    await log.delete(SESSION, "lecture")
    assert await shared.redis.run("KEYS", "*") == []


async def test_the_list_of_a_name_runs_out(shared: Shared) -> None:
    await shared.log.enter(SESSION, 1000, "lecture")
    left = await shared.redis.run("PTTL", shared.redis.key("name", "lecture"))
    assert isinstance(left, int)
    assert left > 0


async def test_so_many_questions_are_kept_and_no_more(shared: Shared) -> None:
    log = shared.log
    asked = [(f"q{number}", "", "", None, "what?") for number in range(QUESTIONS + 2)]
    await log.write([log.question(shared.claim, one) for one in asked])
    assert sorted(await log.questions(SESSION)) == sorted(asked[2:])
