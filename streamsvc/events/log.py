"""The event log of one session.

Durable events are numbered per session (`seq`), stored, and replayed to subscribers that resume. Ephemeral
events carry the last seq as `after`, and are gone once sent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError, StreamsvcError
from streamsvc.core.latency import seconds_by_stage
from streamsvc.core.session_clock import SessionClock
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.types import Event, Stages
from streamsvc.events.event_writer import EventWriter, Row, SharedCopy
from streamsvc.events.group_commit import GroupCommit
from streamsvc.events.schema import DURABLE, EVENTS, VERSION
from streamsvc.events.store import Store, StoredQuestion
from streamsvc.events.subscription import Entry, SharedTexts, Subscription

log = structlog.get_logger()
_TAIL = 512  # durable events in memory, those of ten minutes or so: a resume seldom reads the disk
_PAGE = 512  # events read from the disk at once


class EventLog:
    """Publishes the events of one session, and keeps the durable ones.

    Args:
        session: its id.
        session_clock: for the times of events.
        limits: of subscribers.
        store: where durable events go, on disk before anybody sees them.
        tape: hears of every event.
    """

    def __init__(
        self, session: str, session_clock: SessionClock, limits: Limits, store: Store, tape: Tape = LIVE
    ) -> None:
        self.epoch = secrets.token_hex(4)
        self.seq = 0
        self._session = session
        self._clock = session_clock
        self._limits = limits
        self._store = store
        self._tape = tape
        self._tail: deque[Entry] = deque(maxlen=_TAIL)
        self._writer = EventWriter(session, store, lambda body: self.emit("error", body))
        self._group = GroupCommit(self._writer.commit, self._show) if store.waits else None
        self._shown = 0  # seq of the last durable event that anybody has seen
        self._ephemerals = 0
        self._subscribers: dict[Subscription, str] = {}  # each with whose it is
        self._texts = SharedTexts()
        self._ended = False

    def resume(self, epoch: str, seq: int, *, ended: bool = True) -> None:
        """Go on as the log whose events the store holds, such as that of a session that has `ended`."""
        self.epoch, self.seq, self._shown, self._ended = epoch, seq, seq, ended

    def share(self, copy: SharedCopy) -> None:
        """Copy all of it to other nodes, before anything is published; each event before it is shown."""
        self._writer.share(copy)
        if self._group is None:
            self._group = GroupCommit(self._writer.commit, self._show, gather=0)

    def take(self, entry: Entry, epoch: str) -> None:
        """Show an event that another node has published; the store has it already, where it is durable."""
        if entry.seq is not None:
            if epoch != self.epoch:
                for subscriber in self._subscribers:
                    subscriber.begin_epoch()
            self.epoch, self.seq = epoch, entry.seq
        self._show(entry)

    # --- publishing ---

    def emit(
        self,
        kind: str,
        body: Mapping[str, Any],
        *,
        at: float | None = None,
        arrived: float | None = None,
        stages: Stages = (),
        audience: str | None = None,
    ) -> Event:
        """Publish one event to all subscribers that want it.

        Args:
            kind: a type of the event table.
            body: JSON values.
            at: session seconds that the event is about; None: now.
            arrived: of the evidence's last packet (monotonic seconds); None: the event is about now, and has
                no age.
            stages: marks of what the time since `arrived` went to; the event has milliseconds per stage,
                which add up to its age.
            audience: the one subscriber that may see it; None: all.

        Raises:
            ValueError: there is no such event type.
        """
        if kind not in EVENTS:
            raise ValueError(f"{kind} is no event type")
        now = clock.now()
        parts = seconds_by_stage(stages, arrived, now) if arrived is not None else {}
        durable = kind in DURABLE
        if durable:
            self.seq += 1
        else:
            self._ephemerals += 1
        event = Event(
            session=self._session,
            track="main",
            epoch=self.epoch,
            id=f"{self.epoch}.{self.seq}" if durable else f"{self.epoch}.{self.seq}.{self._ephemerals}",
            type=kind,
            at=round(now - self._clock.zero if at is None else at, 3),
            age_ms=round(max(0.0, now - arrived) * 1000, 1) if arrived is not None else 0.0,
            stages={name: round(part * 1000, 1) for name, part in parts.items() if part >= 0.00005},
            body=body,
            seq=self.seq if durable else None,
            after=self.seq,
            audience=audience,
        )
        for stage, part in parts.items():
            metrics.stage_latency.labels(stage).observe(part)
        entry = Entry(event.seq, kind, audience, _text(event))
        self._tape.note("event", entry.text)
        if durable and not self._store.waits:
            self._writer.write_now(entry)
        if self._group is not None:
            self._group.put(entry)
        else:
            self._show(entry)
        return event

    def _show(self, entry: Entry) -> None:
        if entry.seq is not None:
            self._tail.append(entry)
            self._shown = entry.seq
        else:
            self._writer.show(entry)
        for subscriber in self._subscribers:
            subscriber.offer(entry)

    def whisper(self, subscription: Subscription, kind: str, body: Mapping[str, Any]) -> None:
        """Send an ephemeral event to one subscriber, past its filter."""
        subscription.offer(self._private(kind, body), filtered=False)

    # --- subscribers ---

    def subscribe(
        self, types: Sequence[str] = (), client: str = "", *, lasting: bool = False, share: str = ""
    ) -> Subscription:
        """Add a subscriber, for events from now on; other arguments as for Subscription.

        `share`: whose it is, who may have half of the places; "": all.

        Raises:
            CapacityError: the session has as many subscribers as it may have, or has as many of this share.
        """
        if len(self._subscribers) >= self._limits.subscribers:
            raise CapacityError(
                f"this session has {self._limits.subscribers} subscribers already",
                code="too_many_subscribers",
            )
        half = max(1, self._limits.subscribers // 2)
        if share and list(self._subscribers.values()).count(share) >= half:
            raise CapacityError(
                f"this token, with those made with it, has {half} subscribers of this session already",
                code="too_many_of_token",
            )
        subscription = Subscription(
            self._limits, types, client or secrets.token_hex(8), lasting=lasting, texts=self._texts
        )
        if self._ended and not lasting:
            subscription.end()
        self._subscribers[subscription] = share
        metrics.subscribers.inc()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscriber. Idempotent."""
        if subscription in self._subscribers:
            del self._subscribers[subscription]
            metrics.subscribers.dec()

    @property
    def followed(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self._subscribers)

    async def since(self, after: int, epoch: str | None, until: int) -> tuple[list[Entry], Entry | None]:
        """Durable events with after < seq <= until, and an event that names those no longer held, if any."""
        gap: Entry | None = None
        if epoch is not None and epoch != self.epoch:
            gap = self._gap(0, 0, "new_epoch")
            after = 0
        entries: list[Entry] = []
        # Copied before the disk is read: between memory and disk nothing is missed.
        tail = list(self._tail)
        unwritten = list(self._writer.unwritten)
        first = tail[0].seq or 0 if tail else self._shown + 1
        if after + 1 < first:
            while page := await asyncio.to_thread(self._store.read, after, first, _PAGE):
                if not entries and page[0][0] > after + 1:
                    gap = gap or self._gap(after + 1, page[0][0] - 1, "trimmed")
                entries += [Entry(*row) for row in page]
                after = page[-1][0]
            waiting = [entry for entry in unwritten if entry.seq is not None and after < entry.seq < first]
            missed = (waiting[0].seq or 0 if waiting else first) - 1
            if after < missed:
                gap = gap or self._gap(after + 1, missed, "trimmed")
            entries += waiting
        entries += [entry for entry in tail if entry.seq is not None and entry.seq > after]
        return [entry for entry in entries if (entry.seq or 0) <= until], gap

    # --- storing ---

    async def flush(self) -> None:
        """Write what is not yet written, on a thread; what cannot be written waits for the next call."""
        if self._group is not None:
            await self._group.drain()
        await self._writer.flush()

    async def put_frame(self, at: float, jpeg: bytes) -> None:
        """Store the thumbnail of session second `at`.

        A failure is reported as an event, and the stream goes on without it.
        """
        await self._writer.put_frame(at, jpeg)

    def put_question(self, asked: StoredQuestion) -> None:
        """Store a question, before its answer is published."""
        self._writer.put_question(asked)

    def put_facts(self, **values: str) -> None:
        """Let other nodes know facts about the session."""
        self._writer.put_facts(**values)

    async def put_end(self, **values: str) -> None:
        """Store the facts of the session's end, after `end`."""
        await self._writer.put_end(**values)

    async def end(self) -> None:
        """Write the rest, and let every subscriber have what waits, whether it could be written or not."""
        try:
            await self.flush()
            self._writer.give_up()
        finally:
            self._ended = True
            for subscriber in self._subscribers:
                if not subscriber.lasting:
                    subscriber.end()

    def close(self) -> None:
        """End the lasting subscriptions too: nothing is published any more."""
        for subscriber in self._subscribers:
            subscriber.end()

    def cut(self, error: StreamsvcError) -> None:
        """End all subscriptions with an error: the session goes on elsewhere, where they may resume."""
        for subscriber in list(self._subscribers):
            subscriber.fail(error)

    # --- events for one subscriber ---

    def _gap(self, first: int, last: int, reason: str) -> Entry:
        return self._private("log.gap", {"first": first, "last": last, "reason": reason})

    def _private(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """An ephemeral event that is not sent to all."""
        self._ephemerals += 1
        name = f"{self.epoch}.{self._shown}.{self._ephemerals}"
        at = round(clock.now() - self._clock.zero, 3)
        event = Event(self._session, "main", self.epoch, name, kind, at, 0.0, {}, body, None, self._shown)
        return Entry(None, kind, None, _text(event))


def closed_row(session: str, epoch: str, seq: int, at: float, reason: str) -> Row:
    """The `session.closed` of a session that nobody has closed, as `Store.append` takes it."""
    body = {"reason": reason}
    event = Event(session, "main", epoch, f"{epoch}.{seq}", "session.closed", at, 0.0, {}, body, seq, seq)
    return seq, event.type, None, _text(event)


def _text(event: Event) -> str:
    """The event's JSON without the closing brace."""
    head: dict[str, Any] = {
        "v": VERSION,
        "type": event.type,
        "session": event.session,
        "track": event.track,
        "epoch": event.epoch,
        "id": event.id,
        "at": event.at,
        "age_ms": event.age_ms,
        "stages": event.stages,
    }
    head |= {"seq": event.seq} if event.seq is not None else {"after": event.after}
    return json.dumps(head | dict(event.body), ensure_ascii=False, separators=(",", ":"))[:-1]
