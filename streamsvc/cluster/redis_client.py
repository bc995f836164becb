"""Commands to Redis: a bounded wait, raw replies, and errors that hold no secret and no content.

The only module that imports redis-py, and only where a client is made.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from streamsvc.core.cluster_config import Cluster
from streamsvc.core.errors import ClusterUnavailable, ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

Reply = bytes | int | list["Reply"] | None
Argument = str | bytes | int | float
READ_SECONDS = 2.0  # for an answer to what no event waits for
_CODES = (
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "OOM",
    "LOADING",
    "READONLY",
    "MISCONF",
    "CLUSTERDOWN",
    "MASTERDOWN",
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; sent whole where Redis does not know it (it forgets them with its restart)."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


class RedisClient:
    """A client of one Redis, with a bounded pool of connections; more commands at once wait for one.

    Args:
        settings: with a URL.

    Raises:
        ConfigError: redis-py is not installed.
    """

    def __init__(self, settings: Cluster) -> None:
        try:
            from redis import asyncio as redis_asyncio
            from redis import exceptions
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise ConfigError(
                'cluster.url needs the package redis: pip install "streamsvc[cluster]"'
            ) from None
        if settings.url is None:
            raise ConfigError("there is no cluster.url")
        self._prefix = settings.prefix
        # None of it tries again by itself: an outage is told at once, and what was sent twice is our affair.
        pool = redis_asyncio.BlockingConnectionPool.from_url(
            settings.url.get_secret_value(),
            max_connections=settings.connections,
            timeout=READ_SECONDS,
            socket_timeout=None,  # redis-py's is an asyncio.wait_for, which before Python 3.12 loses cancels
            socket_connect_timeout=READ_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._redis: Redis = redis_asyncio.Redis.from_pool(pool)
        self._redis.response_callbacks.clear()  # replies as Redis sends them
        self._failures = (exceptions.RedisError, OSError, TimeoutError)
        self._unknown_script = exceptions.NoScriptError

    def key(self, *parts: str) -> str:
        """The key of something that belongs to no session."""
        return ":".join((self._prefix, *parts))

    def of(self, session: str, part: str) -> str:
        """A key of a session; the braces keep all of one together in a Redis Cluster."""
        return f"{self._prefix}:{{{session}}}:{part}"

    async def run(self, *command: Argument, seconds: float = READ_SECONDS) -> Reply:
        """Run one command.

        Raises:
            ClusterUnavailable: Redis has not answered within `seconds`, or refuses; it may have run it.
        """
        try:
            async with asyncio.timeout(seconds):
                return cast("Reply", await self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
        except self._failures as error:
            raise unavailable(error) from None

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], *, seconds: float = READ_SECONDS
    ) -> Reply:
        """Run a script. Raises as `run`."""
        return (await self.scripts([(script, keys, args)], seconds=seconds))[0]

    async def scripts(
        self,
        calls: Sequence[tuple[Script, Sequence[str], Sequence[Argument]]],
        *,
        seconds: float = READ_SECONDS,
    ) -> list[Reply]:
        """Run scripts one after the other, in one round trip. Raises as `run`.

        Where Redis knows one of them not, all are sent once more: running one twice must change nothing.
        """
        try:
            async with asyncio.timeout(seconds):
                short = [_evaluated(call, whole=False) for call in calls]
                replies = await self._pipelined(short, atomic=False)
                if any(isinstance(reply, self._unknown_script) for reply in replies):
                    replies = await self._pipelined(
                        [_evaluated(call, whole=True) for call in calls], atomic=False
                    )
        except self._failures as error:
            raise unavailable(error) from None
        return self._checked(replies)

    async def pipeline(
        self, commands: Sequence[Sequence[Argument]], *, atomic: bool = False, seconds: float = READ_SECONDS
    ) -> list[Reply]:
        """Run commands in one round trip; `atomic`: with nothing in between. Raises as `run`."""
        if not commands:
            return []
        try:
            async with asyncio.timeout(seconds):
                replies = await self._pipelined(commands, atomic=atomic)
        except self._failures as error:
            raise unavailable(error) from None
        return self._checked(replies)

    async def once(self, key: str, seconds: float) -> bool:
        """Whether this is the first time within `seconds` that anybody asks this of `key`."""
        return await self.run("SET", key, "1", "NX", "PX", round(seconds * 1000)) is not None

    async def _pipelined(self, commands: Sequence[Sequence[Argument]], *, atomic: bool) -> list[object]:
        pipe: Pipeline
        async with self._redis.pipeline(transaction=atomic) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=False))

    def _checked(self, replies: Sequence[object]) -> list[Reply]:
        for reply in replies:
            if isinstance(reply, Exception):
                raise unavailable(reply)
        return cast("list[Reply]", list(replies))

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose(close_connection_pool=True)


def _evaluated(
    call: tuple[Script, Sequence[str], Sequence[Argument]], *, whole: bool
) -> tuple[Argument, ...]:
    script, keys, args = call
    return ("EVAL" if whole else "EVALSHA", script.text if whole else script.sha, len(keys), *keys, *args)


def unavailable(error: Exception) -> ClusterUnavailable:
    """An error of redis-py without its text, which may quote an address, a password or an event."""
    code = str(error).partition(" ")[0]
    why = code if code in _CODES else type(error).__name__
    return ClusterUnavailable(f"Redis, which the nodes of this cluster share, does not answer ({why})")


def text(reply: Reply) -> str:
    """A string that Redis sent; "": none."""
    return reply.decode() if isinstance(reply, bytes) else ""


def items(reply: Reply) -> list[Reply]:
    """An array that Redis sent; empty: none."""
    return reply if isinstance(reply, list) else []


def number(reply: Reply) -> int:
    """An integer that Redis sent, as a number or in digits; 0: none."""
    return int(reply) if isinstance(reply, int | bytes) else 0
