"""Lua scripts: claims, fences, and what a write finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamsvc.cluster import scripts
from streamsvc.cluster.redis_client import Argument, RedisClient, Script, items, number
from tests.builders.cluster import settings_of
from tests.builders.redis_server import RedisServer

HELD: list[Argument] = ["one:7", 7, 10_000, 60_000]


Write = tuple[Script, list[str], list[Argument]]  # its keys, its arguments after those that all have
WRITES: list[Write] = [
    (scripts.APPEND, ["log"], [100, 0, 1, "caption.final", "", "{"]),
    (scripts.LIVE, ["live"], [100, "caption.partial", "", "{"]),
    (scripts.FRAME, ["times", "frames"], [10, "1.500", b"\xff\xd8"]),
    (scripts.FACTS, ["meta"], ["name", "lecture"]),
    (scripts.QUESTION, ["questions", "names"], [10, "q", "what?"]),
]


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    client = RedisClient(settings_of(redis_server))
    yield client
    await client.close()


async def append(redis: RedisClient, held: list[Argument], after: int, *seqs: int) -> list[object]:
    rows = [part for seq in seqs for part in (seq, "caption.final", "=me", f"text {seq}")]
    reply = await redis.script(scripts.APPEND, ["owner", "fence", "log"], [*held, 100, after, *rows])
    return list(items(reply))


async def ids(redis: RedisClient) -> list[object]:
    return [items(entry)[0] for entry in items(await redis.run("XRANGE", "log", "-", "+"))]


async def test_a_token_is_greater_than_all_before(redis: RedisClient) -> None:
    keys = ["owner", "fence", "meta"]
    first = items(await redis.script(scripts.CLAIM, keys, ["one", 10_000, 60_000]))
    assert first[0] == 1
    assert items(await redis.script(scripts.CLAIM, keys, ["two", 10_000, 60_000])) == [
        0,
        b"one:" + bytes(str(first[1], "ascii") if isinstance(first[1], bytes) else "", "ascii"),
    ]
    await redis.run("DEL", "owner")
    second = items(await redis.script(scripts.CLAIM, keys, ["two", 10_000, 60_000]))
    await redis.run("FLUSHALL")  # Redis has lost its data
    await asyncio.sleep(0.002)
    third = items(await redis.script(scripts.CLAIM, keys, ["three", 10_000, 60_000]))
    tokens = [int(found[1]) for found in (first, second, third) if isinstance(found[1], bytes)]
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 3


async def left(redis: RedisClient, key: str) -> int:
    """Milliseconds that Redis keeps a key; -1: for ever."""
    return number(await redis.run("PTTL", key))


async def test_a_token_is_greater_than_one_of_a_clock_that_was_ahead(redis: RedisClient) -> None:
    await redis.run("SET", "fence", 1 << 52)
    reply = items(await redis.script(scripts.CLAIM, ["owner", "fence", "meta"], ["one", 10_000, 60_000]))
    assert reply[:2] == [1, b"%d" % ((1 << 52) + 1)]


async def test_a_claim_lasts_for_its_lease_alone(redis: RedisClient) -> None:
    await redis.script(scripts.CLAIM, ["owner", "fence", "meta"], ["one", 10_000, 60_000])
    assert 0 < await left(redis, "owner") <= 10_000
    assert 10_000 < await left(redis, "fence") <= 60_000


async def test_a_claim_that_is_taken_up_again_lasts_for_its_lease_alone(redis: RedisClient) -> None:
    await append(redis, HELD, 0, 1)
    assert 0 < await left(redis, "owner") <= 10_000
    assert 10_000 < await left(redis, "fence") <= 60_000


async def test_a_renewal_prolongs_the_lease(redis: RedisClient) -> None:
    await redis.run("SET", "owner", "one:7", "PX", 5_000)
    await redis.script(scripts.RENEW, ["owner", "fence", "meta", "log", "followed"], [*HELD, "run"])
    assert await left(redis, "owner") > 5_000


async def test_all_that_is_written_runs_out(redis: RedisClient) -> None:
    for script, keys, arguments in WRITES:
        await redis.script(script, ["owner", "fence", *keys], [*HELD, *arguments])
        assert [key for key in keys if not 0 < await left(redis, key) <= 60_000] == []


async def test_the_oldest_questions_are_dropped(redis: RedisClient) -> None:
    for name, asked in (("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("c", "1")):
        arguments: list[Argument] = [*HELD, 2, name, asked]
        await redis.script(scripts.QUESTION, ["owner", "fence", "questions", "names"], arguments)
    assert items(await redis.run("HGETALL", "questions")) == [b"b", b"1", b"c", b"1"]
    assert await redis.run("LRANGE", "names", 0, -1) == [b"b", b"c"]


async def test_what_redis_has_is_not_appended_again(redis: RedisClient) -> None:
    assert await append(redis, HELD, 0, 1, 2) == [scripts.OK, 2, 0]
    assert await append(redis, HELD, 0, 1, 2, 3) == [scripts.OK, 3, 0]
    assert await ids(redis) == [b"1-0", b"2-0", b"3-0"]


async def test_nothing_is_appended_behind_a_hole(redis: RedisClient) -> None:
    await append(redis, HELD, 0, 1)
    assert await append(redis, HELD, 3, 4) == [scripts.HOLE, 1, 0]
    assert await ids(redis) == [b"1-0"]
    assert await append(redis, HELD, 1, 4) == [scripts.OK, 4, 0]  # its store had dropped the ones between


async def test_an_audience_is_kept_as_it_was(redis: RedisClient) -> None:
    for at, audience in enumerate(("", "=", "=somebody"), 1):
        arguments: list[Argument] = [*HELD, 100, at - 1, at, "answer.done", audience, "{"]
        await redis.script(scripts.APPEND, ["owner", "fence", "log"], arguments)
    fields = [items(items(entry)[1]) for entry in items(await redis.run("XRANGE", "log", "-", "+"))]
    assert fields == [
        [b"type", b"answer.done", b"json", b"{"],
        [b"type", b"answer.done", b"json", b"{", b"audience", b""],
        [b"type", b"answer.done", b"json", b"{", b"audience", b"somebody"],
    ]


@pytest.mark.parametrize(
    ("owner", "fence", "held"),
    [
        ("one:7", "7", True),
        (None, "7", True),  # the lease has run out, and nobody has claimed it
        (None, None, True),  # Redis has lost all of it
        ("two:8", "8", False),
        ("two:8", None, False),  # its token is lost
        (None, "8", False),  # somebody has claimed it since, and is dead too
        ("one:8", "8", False),  # this node, after its restart
    ],
)
async def test_who_has_lost_a_session_writes_nothing(
    redis: RedisClient, owner: str | None, fence: str | None, held: bool
) -> None:
    for key, value in (("owner", owner), ("fence", fence)):
        if value is not None:
            await redis.run("SET", key, value)
    renewal: Write = (scripts.RENEW, ["meta", "log", "followed"], ["run"])
    for script, keys, arguments in (*WRITES, renewal):
        reply = items(await redis.script(script, ["owner", "fence", *keys], [*HELD, *arguments]))
        assert (reply[0] == scripts.OK) is held
    there = await redis.run("EXISTS", "log", "live", "times", "frames", "meta", "questions", "names")
    assert there == (7 if held else 0)
    if held:
        assert await redis.run("GET", "owner") == b"one:7"


async def test_a_renewal_tells_what_redis_has(redis: RedisClient) -> None:
    keys = ["owner", "fence", "meta", "log", "followed"]
    assert await redis.script(scripts.RENEW, keys, [*HELD, "run"]) == [scripts.OK, 0, 0]
    await append(redis, HELD, 0, 1, 2)
    await redis.run("SET", "followed", "1")
    assert await redis.script(scripts.RENEW, keys, [*HELD, "run"]) == [scripts.OK, 2, 1]
    left = [await redis.run("PTTL", key) for key in keys]
    assert isinstance(left[0], int)
    assert 0 < left[0] <= 10_000
    assert all(isinstance(one, int) and one > 10_000 for one in left[1:4])
    assert left[4] == -1  # who follows says so himself


async def test_thumbnails_are_bounded(redis: RedisClient) -> None:
    for at in (1.0, 2.0, 10.0, 11.0):
        await redis.script(
            scripts.FRAME, ["owner", "fence", "times", "frames"], [*HELD, 3, f"{at:.3f}", f"jpeg {at}"]
        )
    assert await redis.run("ZRANGE", "times", 0, -1) == [b"2.000", b"10.000", b"11.000"]
    assert await redis.run("HKEYS", "frames") == [b"2.000", b"10.000", b"11.000"]


async def test_only_the_owner_gives_a_claim_back(redis: RedisClient) -> None:
    await redis.run("SET", "owner", "one:7")
    await redis.script(scripts.RELEASE, ["owner"], ["two:8"])
    assert await redis.run("GET", "owner") == b"one:7"
    await redis.script(scripts.RELEASE, ["owner"], ["one:7"])
    assert await redis.run("GET", "owner") is None


async def test_a_name_is_of_one_living_process(redis: RedisClient) -> None:
    def join(instance: str, lease: int) -> list[Argument]:
        return ["node", instance, f'{{"instance":"{instance}"}}', lease]

    assert await redis.script(scripts.JOIN, ["nodes"], join("a", 200)) == 1
    assert await redis.script(scripts.JOIN, ["nodes"], join("a", 200)) == 1
    assert await redis.script(scripts.JOIN, ["nodes"], join("b", 200)) == 0
    await redis.script(scripts.LEAVE, ["nodes"], ["node", "b"])
    assert await redis.run("HLEN", "nodes") == 1
    await asyncio.sleep(0.3)  # it is dead
    assert await redis.script(scripts.JOIN, ["nodes"], join("b", 200)) == 1
    await redis.script(scripts.LEAVE, ["nodes"], ["node", "b"])
    assert await redis.run("HLEN", "nodes") == 0
