"""Redis as a process survives a kill with its data; a node of the control run shares nothing."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from load_tests import publish_server
from load_tests.cluster_nodes import SECRET, Node, Redis, missing, serve_unshared, settings_of
from streamsvc.cluster import scripts
from streamsvc.cluster.records import Claim
from streamsvc.cluster.registry import Registry, Renewed
from streamsvc.cluster.shared_log import Call, SharedLog

needs_redis = pytest.mark.skipif(bool(missing()), reason=missing())


def asked(redis: Redis, command: str) -> str:
    with socket.create_connection(("127.0.0.1", redis.port), 5) as asking:
        asking.sendall(f"{command}\r\n".encode())
        return asking.recv(1000).decode()


@needs_redis
def test_what_redis_has_acknowledged_survives_its_kill(tmp_path: Path) -> None:
    redis = Redis(tmp_path)
    redis.start()
    try:
        assert asked(redis, "SET a 7") == "+OK\r\n"
        first = redis.pid
        redis.kill()
        with pytest.raises(OSError):
            asked(redis, "PING")
        redis.start()
        assert redis.pid != first
        assert asked(redis, "GET a").split() == ["$1", "7"]
    finally:
        redis.kill()
        redis.kill()  # again: nothing


def test_a_node_knows_where_it_is_reached(tmp_path: Path) -> None:
    node = Node("n0", tmp_path / "n0", Redis(tmp_path), settings_of(2))
    told = {name: value for name, value in node._environment.items() if name.startswith("STREAMSVC_CLUSTER")}
    assert told["STREAMSVC_CLUSTER__ADVERTISE"] == node.address
    assert told["STREAMSVC_CLUSTER__NODE"] == "n0"
    assert told["STREAMSVC_CLUSTER__SECRET"] == SECRET
    assert node._environment["STREAMSVC_LIMITS__SESSIONS"] == "2"


async def test_the_control_run_tells_that_events_are_shared_and_shares_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[Call] = []

    async def write(log: object, calls: Sequence[Call]) -> int:
        written.extend(calls)
        return 1

    async def renew(registry: object, claims: Sequence[Claim]) -> list[Renewed]:
        return [Renewed(True, 3, False)]

    monkeypatch.setattr(SharedLog, "write", write)
    monkeypatch.setattr(Registry, "renew", renew)
    monkeypatch.setattr(publish_server, "serve_tones", lambda: None)
    serve_unshared()
    log, registry = object.__new__(SharedLog), object.__new__(Registry)
    facts: Call = (scripts.FACTS, [], [])
    append: Call = (scripts.APPEND, [], [4, "a", "", "{", 5, "a", "", "{"])
    assert await log.write([facts, append]) == 5
    assert await log.write([append]) == 5
    assert written == [facts]
    assert (await registry.renew([]))[0].seq > 5
