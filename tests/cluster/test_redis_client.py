"""Commands to Redis: replies, waits, errors without secrets."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from streamsvc.cluster.redis_client import RedisClient, Script, items, number, text, unavailable
from streamsvc.core.cluster_config import Cluster
from streamsvc.core.errors import ClusterUnavailable, ConfigError
from tests.builders.cluster import settings_of
from tests.builders.redis_server import RedisServer

ECHO = Script("return {KEYS[1], ARGV[1]}")


async def test_replies_are_as_redis_sends_them(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        key = redis.of("a session", "log")
        assert key == "streamsvc:{a session}:log"
        assert text(await redis.run("XADD", key, "7-0", "json", "{")) == "7-0"
        assert items(await redis.run("XRANGE", key, "-", "+")) == [[b"7-0", [b"json", b"{"]]]
        assert await redis.run("GET", redis.key("none")) is None
        assert number(await redis.run("EXISTS", key)) == 1
        assert await redis.pipeline([("SET", "a", b"\xff\x00"), ("GET", "a")]) == [b"OK", b"\xff\x00"]
        assert await redis.pipeline([]) == []
    finally:
        await redis.close()


async def test_a_script_that_redis_has_forgotten_is_sent_again(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        assert await redis.script(ECHO, ["k"], ["one"]) == [b"k", b"one"]
        await redis.run("SCRIPT", "FLUSH")
        assert await redis.scripts([(ECHO, ["k"], ["two"]), (ECHO, ["l"], [3])]) == [
            [b"k", b"two"],
            [b"l", b"3"],
        ]
    finally:
        await redis.close()


async def test_only_the_first_asks_once(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        assert await redis.once("ticket", 0.2)
        assert not await redis.once("ticket", 0.2)
        await asyncio.sleep(0.3)
        assert await redis.once("ticket", 0.2)
    finally:
        await redis.close()


async def test_a_redis_that_is_gone_is_told_without_its_address(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        await redis.run("PING")
        redis_server.kill()
        for _ in range(2):  # on a connection that was open, and on a new one
            with pytest.raises(ClusterUnavailable, match="does not answer") as failed:
                await redis.run("SET", "spoken", "a word that somebody said")
            assert "word" not in str(failed.value)
            assert str(redis_server.port) not in str(failed.value)
            assert failed.value.__cause__ is None
        redis_server.start()
        assert await redis.run("PING") == b"PONG"
    finally:
        await redis.close()


async def test_a_redis_that_hangs_is_waited_for_a_bounded_time(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        await redis.run("PING")
        redis_server.hang()
        with pytest.raises(ClusterUnavailable):
            await redis.run("PING", seconds=0.1)
        with pytest.raises(ClusterUnavailable):
            await redis.scripts([(ECHO, ["k"], ["a"])], seconds=0.1)
        with pytest.raises(ClusterUnavailable):
            await asyncio.wait_for(redis.pipeline([("PING",)], seconds=0.1), 20)
        redis_server.go_on()
        assert await redis.run("PING") == b"PONG"
    finally:
        await redis.close()


async def test_a_refusal_tells_its_kind_alone(redis_server: RedisServer, tmp_path: Path) -> None:
    locked = RedisServer(tmp_path / "locked", password="hidden-word-1")
    (tmp_path / "locked").mkdir()
    locked.start()
    wrong = Cluster.model_validate(
        {
            "url": f"redis://:hidden-word-2@127.0.0.1:{locked.port}",
            "advertise": "http://a.example",
            "secret": "s" * 16,
        }
    )
    redis = RedisClient(wrong)
    try:
        with pytest.raises(ClusterUnavailable, match=r"AuthenticationError|WRONGPASS") as failed:
            await redis.run("PING")
        assert "hidden-word" not in str(failed.value)
    finally:
        await redis.close()
        locked.kill()


async def test_a_command_that_redis_refuses_is_no_answer(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        await redis.run("SET", "word", "spoken")
        with pytest.raises(ClusterUnavailable, match="ResponseError") as failed:
            await redis.pipeline([("HGETALL", "word")])
        assert "spoken" not in str(failed.value)
    finally:
        await redis.close()


def test_without_the_package_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    settings = Cluster.model_validate(
        {"url": "redis://127.0.0.1", "advertise": "http://a.example", "secret": "s" * 16}
    )
    with pytest.raises(ConfigError, match=r"streamsvc\[cluster\]"):
        RedisClient(settings)


async def test_a_command_that_is_cancelled_ends_wherever_it_is(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        for turns in range(40):
            task = asyncio.create_task(redis.pipeline([("PING",), ("PING",)]))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                assert await task == [b"PONG", b"PONG"]
        assert await redis.run("PING") == b"PONG"
    finally:
        await redis.close()


async def test_connections_of_a_redis_that_was_restarted_are_made_anew(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server))
    try:
        await asyncio.gather(*(redis.run("PING") for _ in range(8)))  # as many connections
        redis_server.kill()
        redis_server.start()
        await asyncio.sleep(0.1)  # the loop hears that they are closed
        for _ in range(8):
            assert await redis.run("PING") == b"PONG"
    finally:
        await redis.close()


async def test_connections_are_bounded_and_what_needs_one_more_waits(redis_server: RedisServer) -> None:
    redis = RedisClient(settings_of(redis_server, connections=4))
    try:
        assert await asyncio.gather(*(redis.run("PING") for _ in range(20))) == [b"PONG"] * 20
        assert len(text(await redis.run("CLIENT", "LIST")).splitlines()) == 4
    finally:
        await redis.close()


async def test_a_command_whose_answer_is_lost_is_not_sent_again() -> None:
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if b"INCR" in data:
                sent.append(data)
                break
            writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        redis = RedisClient(
            Cluster.model_validate(
                {"url": f"redis://127.0.0.1:{port}", "advertise": "http://a.example", "secret": "s" * 16}
            )
        )
        try:
            with pytest.raises(ClusterUnavailable):
                await redis.run("INCR", "word")
        finally:
            await redis.close()
    assert len(sent) == 1


def test_of_an_error_its_class_or_a_known_code_is_told() -> None:
    assert "(OOM)" in unavailable(ValueError("OOM command not allowed")).message
    told = unavailable(ValueError("kettle boils")).message
    assert "kettle" not in told
    assert "(ValueError)" in told
