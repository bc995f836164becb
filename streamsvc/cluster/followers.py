"""Sessions of other nodes, followed: one blocking read of Redis for all of this node's followers together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from streamsvc.cluster.records import Row
from streamsvc.cluster.redis_client import RedisClient, items, text
from streamsvc.cluster.shared_log import FOLLOWED_SECONDS, SharedLog, row_of
from streamsvc.core import clock, metrics
from streamsvc.core.errors import ClusterUnavailable

BLOCK_SECONDS = 0.1  # that one read waits: so long at most a new follower waits for what comes then
AWAY_SECONDS = 0.5  # between tries while Redis is away
PAGE = 500  # rows that are read at once
WAITING = 2048  # rows that wait for a follower; then it reads again, and ephemeral ones are dropped


class _Follower:
    """What waits for one follower; full: all of it goes, and is read again."""

    def __init__(self) -> None:
        self.rows: deque[Row] = deque()
        self.lost = False
        self.woken = asyncio.Event()

    def offer(self, rows: list[Row]) -> None:
        self.rows.extend(rows)
        if len(self.rows) > WAITING:
            for row in self.rows:
                if not row[0]:
                    metrics.events_dropped.labels(row[1]).inc()
            self.rows.clear()
            self.lost = True
        self.woken.set()


class _Followed:
    """A session with its followers. `log`, `live`: ids of the newest entries that were read."""

    def __init__(self, log: str, live: str) -> None:
        self.log, self.live = log, live
        self.followers: set[_Follower] = set()


class Followers:
    """Follows sessions for as long as anybody asks for them.

    Args:
        redis: the client.
        log: the shared log.
    """

    def __init__(self, redis: RedisClient, log: SharedLog) -> None:
        self._redis = redis
        self._log = log
        self._sessions: dict[str, _Followed] = {}
        self._task: asyncio.Task[None] | None = None
        self._told_at = 0.0

    async def follow(self, session: str, after: int) -> AsyncGenerator[list[Row], None]:
        """Rows of a session: durable ones with seq > `after`, none missing, and ephemeral ones (seq 0).

        Never ends by itself, and waits where Redis is away. Leave it with `contextlib.aclosing`.
        """
        me = _Follower()
        await self._enter(session, me)
        try:
            me.lost = True
            while True:
                if me.lost:
                    me.lost = False
                    async for page in self._missing(session, after):
                        after = page[-1][0]
                        yield page
                rows = [row for row in me.rows if row[0] == 0 or row[0] > after]
                me.rows.clear()
                after = max([after, *(row[0] for row in rows)])
                if rows:
                    yield rows
                if not me.rows and not me.lost:
                    me.woken.clear()
                    await me.woken.wait()
        finally:
            self._leave(session, me)

    async def _missing(self, session: str, after: int) -> AsyncIterator[list[Row]]:
        while True:
            try:
                page = await self._log.read(session, after, PAGE)
            except ClusterUnavailable:
                await clock.sleep(AWAY_SECONDS)
                continue
            if not page:
                return
            yield page
            after = page[-1][0]

    async def _enter(self, session: str, me: _Follower) -> None:
        """Begin to collect what comes from now on; what was before is read after."""
        while session not in self._sessions:
            try:
                newest = await self._redis.pipeline(
                    [
                        ("XREVRANGE", self._redis.of(session, part), "+", "-", "COUNT", 1)
                        for part in ("log", "live")
                    ]
                )
            except ClusterUnavailable:
                await clock.sleep(AWAY_SECONDS)
                continue
            log, live = (text(items(items(found)[0])[0]) if items(found) else "0-0" for found in newest)
            self._sessions.setdefault(session, _Followed(log, live))
            self._told_at = 0.0
        self._sessions[session].followers.add(me)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def _leave(self, session: str, me: _Follower) -> None:
        followed = self._sessions.get(session)
        if followed is not None:
            followed.followers.discard(me)
            if not followed.followers:
                del self._sessions[session]

    async def _run(self) -> None:
        while self._sessions:
            try:
                await self._tell()
                await self._read()
            except ClusterUnavailable:
                await clock.sleep(AWAY_SECONDS)

    async def _tell(self) -> None:
        """Let the owners know that they are followed."""
        if clock.now() - self._told_at > FOLLOWED_SECONDS / 3:
            keys = [self._redis.of(session, "followed") for session in self._sessions]
            told = round(FOLLOWED_SECONDS * 1000)
            await self._redis.pipeline([("SET", key, "1", "PX", told) for key in keys])
            self._told_at = clock.now()

    async def _read(self) -> None:
        places = {
            self._redis.of(session, part): (followed, part)
            for session, followed in self._sessions.items()
            for part in ("log", "live")
        }
        ids = [followed.log if part == "log" else followed.live for followed, part in places.values()]
        block = ("BLOCK", round(BLOCK_SECONDS * 1000))
        found = await self._redis.run("XREAD", "COUNT", PAGE, *block, "STREAMS", *places, *ids)
        for stream in items(found):
            key, entries = items(stream)
            followed, part = places[text(key)]
            newest = text(items(items(entries)[-1])[0])
            rows = [row_of(entry) for entry in items(entries)]
            if part == "log":
                followed.log = newest
            else:
                followed.live = newest
                rows = [(0, *row[1:]) for row in rows]
            for follower in followed.followers:
                follower.offer(rows)

    async def close(self) -> None:
        """End the reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
