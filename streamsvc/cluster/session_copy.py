"""The way of one session's events to Redis, at the node that owns it, through outages of Redis.

    stored here -> Redis -> shown                while Redis answers in time
    stored here -> shown; copied in order later  while it does not

Nothing of it waits in a task of media: what belongs to events (facts, questions, thumbnails) is kept until
the next of them is written, which waits for Redis for a bounded time in the task that shows events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from streamsvc.cluster.contact import CopyTools
from streamsvc.cluster.holding import Holding
from streamsvc.cluster.live_rows import LiveRows
from streamsvc.cluster.pending import Pending
from streamsvc.cluster.records import Claim, Row
from streamsvc.cluster.registry import Renewed
from streamsvc.cluster.shared_log import Call, Fenced, Hole, Question
from streamsvc.core import clock, metrics
from streamsvc.core.errors import ClusterUnavailable

log = structlog.get_logger()
PAGE = 256  # events copied at once
DISK_SECONDS = 1.0  # between tries to read them
END_SECONDS = 2.0  # for the last of a session to be copied; what is left is copied in the background


class RowSource(Protocol):
    """What the session has stored itself."""

    async def rows(self, after: int, limit: int) -> list[Row]:
        """Durable rows with seq > `after`, in order, at most `limit`; none: they cannot be read either."""
        ...


class SessionCopy:
    """Copies one session to Redis.

    Args:
        session: its id.
        tools: of the node.
        facts: about it: see `SharedLog.meta`; `started_utc` at least. "stored": "0": no event is copied.
        claim: that it goes on with; None: it is new.
        seq: of the newest event in the shared log.

    `fenced`: another node owns the session; nothing is copied any more. `behind`: Redis lacks something.
    `ended`: the claim is not renewed; late answers are copied.
    """

    def __init__(
        self,
        session: str,
        tools: CopyTools,
        facts: Mapping[str, str],
        claim: Claim | None = None,
        seq: int = 0,
    ) -> None:
        self.session = session
        self.fenced = False
        self.behind = False
        self.ended = False
        self._tools = tools
        self._holding = Holding(session, tools.registry, tools.log, claim)
        self._copies = facts.get("stored") != "0"
        self._pending = Pending(facts)
        self._live = LiveRows(tools, self._fence)
        self._last = self._newest = seq  # seq of what Redis has; of what was stored here
        self._source: RowSource | None = None
        self._lock = asyncio.Lock()  # one writes
        self._told = False  # Redis knows that it lacks events
        self._followed = False
        self._share = metrics.Share(metrics.cluster_events_waiting)

    def begin(self, source: RowSource) -> None:
        """Copy the events of `source`; its first ones have not been published yet."""
        self._source = source
        self._fall_behind()  # the claim and the facts need no event

    @property
    def claim(self) -> Claim | None:
        """The claim on the session; None: there is none yet."""
        return self._holding.claim

    @property
    def waiting(self) -> int:
        """How many events Redis lacks."""
        return max(0, self._newest - self._last) if self._copies and not self.fenced else 0

    # --- what the session gives ---

    async def write(self, rows: Sequence[Row]) -> None:
        """Have Redis store rows before they are shown, where it answers in time. Never raises."""
        if not rows or self.fenced or not self._copies:
            return
        self._newest = max(self._newest, rows[-1][0])
        if not self._tools.contact.up or (self.behind and self.waiting > len(rows)):
            self._fall_behind()
            return
        began = clock.now()
        try:
            async with asyncio.timeout(self._tools.seconds), self._lock:
                fresh = [row for row in rows if row[0] > self._last]
                if fresh and fresh[0][0] > self._last + 1:
                    self._fall_behind()
                elif fresh:
                    await self._holding.claimed()
                    await self._send(fresh)
                    metrics.stage_latency.labels("shared").observe(clock.now() - began)
        except ClusterUnavailable:
            self._tools.contact.lost()
            self._fall_behind()
        except TimeoutError:  # this process may be as slow as Redis: the next heartbeat tells
            self._fall_behind()
            if self.claim is not None and not self._told:
                self._tools.spawn(self._warn())
        except Hole as hole:
            self._lost_data(hole)
        except Fenced:
            self._fence()

    def show(self, row: Row) -> None:
        """Pass on an ephemeral event, where another node follows the session. Does not wait."""
        if self._followed and self._copies and self.claim is not None and not self.fenced:
            self._live.put(self.claim, row)

    def put_frame(self, at: float, jpeg: bytes) -> None:
        """Keep a thumbnail for the next write. Does not wait."""
        if self._copies and not self.fenced:
            self._pending.put_frame(at, jpeg)

    def put_question(self, asked: Question) -> None:
        """Keep a question for the next write, which may hold its answer. Does not wait."""
        if self._copies and not self.fenced:
            self._pending.put_question(asked)

    def put_facts(self, **values: str) -> None:
        """Keep facts, which are written soon. Does not wait."""
        self._pending.put_facts(values)
        self._fall_behind()

    async def end(self) -> None:
        """Copy the rest and give the claim back, in a bounded time; late answers are still copied."""
        self.ended = True
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._live.sent()
                if self._tools.contact.up:
                    await self.catch_up()
        except (ClusterUnavailable, TimeoutError):
            self._tools.contact.lost()

    # --- what the node gives ---

    @property
    def copied(self) -> int:
        """Seq of the newest event that Redis has, as far as is known."""
        return self._last

    def renewed(self, found: Renewed, copied: int) -> None:
        """Take what the renewal of the claim has found; `copied`: as it was when that was sent."""
        if not found.held:
            self._fence()
            return
        self._followed = found.followed
        if self._copies and found.seq < min(copied, self._last):
            self._lost_data(Hole(found.seq))
        elif not self._holding.listed:
            self._fall_behind()

    async def catch_up(self) -> None:
        """Copy what Redis lacks, in order, until it lacks nothing. Raises ClusterUnavailable."""
        try:
            while self.behind and not self.fenced:
                async with self._lock:
                    await self._holding.claimed()
                    await self._copy_page()
                self._share.set(self.waiting)
            if self.ended and not self.fenced:
                await self._holding.release()
        except Hole as hole:
            self._lost_data(hole)
        except Fenced:
            self._fence()

    async def _copy_page(self) -> None:
        if self.waiting and not self._told:
            await self._tell_behind("1")
        page: list[Row] = []
        if self.waiting and self._source is not None:
            page = await self._source.rows(self._last, PAGE)
            if not page:
                await self._cannot_read()
                return
        await self._send(page)
        if self.waiting or self._pending.facts_wait:
            return
        if self._told:
            await self._tell_behind("")
        if (
            not self.waiting and not self._pending.facts_wait and self._holding.listed
        ):  # nothing came meanwhile
            self.behind = False
            self._tools.contact.caught_up(self.session, self)

    async def _warn(self) -> None:
        """Tell at once that events are shown without Redis: this node may die before it has caught up."""
        with contextlib.suppress(ClusterUnavailable, Fenced):
            await self._tell_behind("1")

    async def _tell_behind(self, value: str) -> None:
        """Let a node that takes over know that Redis lacks what was shown."""
        assert self.claim is not None
        await self._tools.log.write([self._tools.log.facts(self.claim, {"behind": value})])
        self._told = bool(value)

    async def _cannot_read(self) -> None:
        """Wait for the disk; after the session's end nothing more is tried."""
        if self.ended:
            self._give_up()
        else:
            await clock.sleep(DISK_SECONDS)

    def _give_up(self) -> None:
        if self.waiting:
            metrics.events_unwritten.inc(self.waiting)
            log.error("events were never copied", session=self.session, count=self.waiting)
            self._newest = self._last

    # --- sending ---

    async def _send(self, rows: Sequence[Row]) -> None:
        """Write rows and what waits for them, in one round trip; on failure it waits again."""
        claim, write = self.claim, self._tools.log
        assert claim is not None
        aside = self._pending.take()
        calls: list[Call] = [write.facts(claim, aside.facts)] if aside.facts else []
        calls += [write.question(claim, asked) for asked in aside.questions]
        calls += [write.frame(claim, at, jpeg) for at, jpeg in aside.frames]
        if rows:
            calls.append(write.append(claim, self._last, rows))
        try:
            newest = await write.write(calls) if calls else 0
        except BaseException:
            self._pending.put_back(aside)
            raise
        if rows:
            self._last = newest
            self._newest = max(self._newest, newest)
        if not self._holding.listed:
            await self._holding.enter(self._pending.facts)

    def _fall_behind(self) -> None:
        """Have the rest copied in the background."""
        if not self.fenced:
            self.behind = True
            self._share.set(self.waiting)
            self._tools.contact.fell_behind(self.session, self)

    def _lost_data(self, hole: Hole) -> None:
        """Redis has forgotten what it had: copy all again that is still here."""
        log.error("Redis has lost events: they are copied again", session=self.session)
        self._last = hole.seq
        self._holding.forgotten()
        self._told = False
        self._pending.all_again()
        self._fall_behind()

    def _fence(self) -> None:
        if not self.fenced:
            self.fenced = True
            self._tools.contact.caught_up(self.session, self)
            self._share.set(0)
            metrics.cluster_fenced.inc()
            log.error("another node owns this session now", session=self.session)
            self._tools.contact.fenced(self.session)

    async def abandon(self) -> None:
        """Copy nothing more: the process ends. Counts what Redis lacks."""
        await self._live.stop()
        self._give_up()
        self._share.set(0)
