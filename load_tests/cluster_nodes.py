"""Redis and the nodes of `load_tests.cluster` as processes, that are killed and started again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from load_tests import publish_server
from load_tests.serve_process import KEY, Serve, environment
from streamsvc.cluster import scripts
from streamsvc.cluster.records import Claim
from streamsvc.cluster.registry import Registry, Renewed
from streamsvc.cluster.shared_log import Call, SharedLog
from tests.builders import redis_server
from tests.builders.redis_server import RedisServer

SECRET = "a secret that nodes of load tests share"
UNSHARED = ("-c", "from load_tests.cluster_nodes import serve_unshared; serve_unshared()")


def serve_unshared() -> None:
    """The command line with a shared log that tells that it took every event, and takes none."""
    write, renew = SharedLog.write, Registry.renew

    async def write_no_event(log: SharedLog, calls: Sequence[Call]) -> int:
        others = [call for call in calls if call[0] is not scripts.APPEND]
        newest = await write(log, others) if others else 0
        for script, _, arguments in calls:
            if script is scripts.APPEND:
                newest = int(arguments[-4])  # seq of the last row
        return newest

    async def renew_as_whole(registry: Registry, claims: Sequence[Claim]) -> list[Renewed]:
        return [replace(one, seq=2**53) for one in await renew(registry, claims)]

    SharedLog.write = write_no_event  # type: ignore[method-assign,assignment]
    Registry.renew = renew_as_whole  # type: ignore[method-assign,assignment]
    publish_server.serve_tones()


def missing() -> str:
    """What this machine lacks for a cluster; "": nothing."""
    if why := redis_server.missing():
        return why
    try:
        import redis as _  # noqa: F401
    except ImportError:
        return 'the package redis is not installed: pip install "streamsvc[cluster]"'
    return ""


class Redis(RedisServer):
    """A Redis that keeps its data, as an operator's does.

    They survive `kill`: what was acknowledged is in the kernel's hands by then, and is written to the disk
    once a second. A machine that loses its power would lose up to that second.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, keeps=True, fsync="everysec")


class Node(Serve):
    """A node of a cluster: `serve` with engines without models (tone_engine.py).

    Args:
        name: of the node; its data folder is kept from one start to the next.
        folder: for its data and its log.
        redis: that all nodes share.
        settings: groups of settings besides those of a node.
        sabotage: it tells all that went well, and shares no event.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        redis: Redis,
        settings: Mapping[str, Mapping[str, Any]],
        *,
        sabotage: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, settings, UNSHARED if sabotage else publish_server.INGEST)
        cluster = {"url": redis.url, "node": name, "advertise": self.address, "secret": SECRET}
        self.name = name
        self._environment |= environment({"cluster": cluster | dict(settings.get("cluster", {}))})


def settings_of(places: int) -> dict[str, dict[str, Any]]:
    """Settings of a node with so many places for publishers; everything else is bounded generously."""
    return {
        "server": {"api_key": KEY, "drain_seconds": 0},
        "limits": {
            "sessions": places,
            "requests_per_minute": 100_000,
            "updates_per_minute": 1_000_000,
            "connections_per_address": 1000,
            "connections_per_token": 1000,
        },
        "budget": {"admission": False, "ladder": False},
        "hear": {"spare": False},
        "think": {"model": "none"},
        "ingest": {"resume_seconds": 120},
    }


def start_all(nodes: Sequence[Node]) -> None:
    """Start nodes one after the other, and wait until all have loaded their engines."""
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()
