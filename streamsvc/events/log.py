"""The event log of one session, and its subscribers.

Durable events are counted by one per session (`seq`), kept in the store and replayed to whoever resumes; ephemeral ones
carry the last seq as `after` and are gone once sent. Each subscriber has a bounded queue: over its limits it first
loses ephemeral events, then the subscription ends (WebSocket close code 4008) and may be resumed.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError, StreamsvcError
from streamsvc.core.types import Event, Stages
from streamsvc.events.schema import DURABLE, EVENTS, VERSION
from streamsvc.events.store import FAILURES, Store

log = structlog.get_logger()
_TAIL = 512  # durable events kept in memory, those of ten minutes or so: a resume seldom reads the disk
_PAGE = 512  # events read from the disk at once
_AGED = {  # what counts as a kind in streamsvc_caption_age_seconds
    "caption.partial": "partial",
    "caption.final": "final",
    "sight.ready": "sight",
    "screen.text": "screen",
    "scene.caption": "scene",
}


class SlowSubscriber(StreamsvcError):
    """The subscriber fell behind by more than its queue holds; it may resume."""

    type, code, status, close_code, retryable = "slow_subscriber", "too_slow", 503, 4008, True


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it is kept and sent. `text`: its JSON without the closing brace, so that `prev` can be added."""

    seq: int | None  # None: ephemeral
    type: str
    audience: str | None
    text: str


class Subscription:
    """One subscriber's bounded queue. Iterate with `next()` until it raises.

    Args:
        limits: of the queue (events, bytes, seconds).
        types: patterns such as "caption.*"; empty: all.
        client: whose private events (answers to own questions) are included.
    """

    def __init__(self, limits: Limits, types: Sequence[str], client: str) -> None:
        self.client = client
        self.dropped = 0
        self._limits, self._types = limits, tuple(types)
        self._waiting: deque[tuple[float, Entry]] = deque()
        self._bytes = 0
        self._prev = 0  # seq of the last durable event sent
        self._filled = asyncio.Event()
        self._ended = False
        self._failure: StreamsvcError | None = None

    def wants(self, entry: Entry) -> bool:
        """Whether this subscriber is to have an event."""
        if entry.audience is not None and entry.audience != self.client:
            return False
        return not self._types or any(fnmatch.fnmatchcase(entry.type, pattern) for pattern in self._types)

    def offer(self, entry: Entry, *, filtered: bool = True) -> None:
        """Queue an event; over a limit, ephemeral events go first, then the subscription."""
        if self._failure is not None or (filtered and not self.wants(entry)):
            return
        self._waiting.append((clock.now(), entry))
        self._bytes += len(entry.text)
        if self._over():
            kept = deque(item for item in self._waiting if item[1].seq is not None)
            for _, lost in self._waiting:
                if lost.seq is None:
                    self._lose(lost)
            self._waiting = kept
            self._bytes = sum(len(item.text) for _, item in kept)
        if self._over():
            self.fail(SlowSubscriber("you read too slowly; resume with ?epoch=&after="))
        self._filled.set()

    def fail(self, error: StreamsvcError) -> None:
        """End the subscription at once; what waits is counted as dropped."""
        self._failure = error
        for _, lost in self._waiting:
            self._lose(lost)
        self._waiting.clear()
        self._filled.set()

    def end(self) -> None:
        """Let the subscriber have what waits, and nothing after it."""
        self._ended = True
        self._filled.set()

    async def next(self) -> list[tuple[int | None, str]] | None:
        """The waiting events as (seq, JSON text), at least one; None: the log has ended.

        Raises:
            SlowSubscriber: the queue overflowed.
        """
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._filled.clear()
            await self._filled.wait()
        taken = [self._sealed(entry) for _, entry in self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return taken

    def replay(self, entries: Iterable[Entry]) -> list[tuple[int | None, str]]:
        """Events of the past for this subscriber, ahead of what waits."""
        return [self._sealed(entry) for entry in entries if self.wants(entry)]

    def skip_to(self, seq: int) -> None:
        """Forget waiting durable events up to `seq`: a replay has brought them already."""
        self._waiting = deque(item for item in self._waiting if item[1].seq is None or item[1].seq > seq)
        self._bytes = sum(len(item.text) for _, item in self._waiting)

    def _sealed(self, entry: Entry) -> tuple[int | None, str]:
        if entry.seq is None:
            return None, entry.text + "}"
        prev, self._prev = self._prev, entry.seq
        return entry.seq, f'{entry.text},"prev":{prev}}}'

    def _over(self) -> bool:
        waiting, limits = self._waiting, self._limits
        return bool(waiting) and (
            len(waiting) > limits.subscriber_events
            or self._bytes > limits.subscriber_bytes
            or clock.now() - waiting[0][0] > limits.subscriber_seconds
        )

    def _lose(self, entry: Entry) -> None:
        self.dropped += 1
        metrics.events_dropped.labels(entry.type).inc()


class EventLog:
    """The events of one session.

    Args:
        session: its id.
        zero: clock.now() at session second 0; changes when `rebase` is called before the first media.
        limits: of subscribers.
        store: where durable events go; `flush` writes them.
        watch: called with every event (latency reports).
    """

    def __init__(
        self,
        session: str,
        zero: float,
        limits: Limits,
        store: Store,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        self.epoch = secrets.token_hex(4)
        self.seq = 0
        self.zero = zero
        self._session, self._limits, self._store, self._watch = session, limits, store, watch
        self._tail: deque[Entry] = deque(maxlen=_TAIL)
        self._unwritten: deque[Entry] = (
            deque()
        )  # kept until it is written; never more than the store would keep
        self._failing = False  # the last write failed
        self._ephemerals = 0
        self._subscribers: set[Subscription] = set()
        self._ended = False

    def emit(
        self,
        kind: str,
        body: Mapping[str, Any],
        *,
        at: float | None = None,
        arrived: float | None = None,
        track: str = "main",
        stages: Stages | None = None,
        audience: str | None = None,
    ) -> Event:
        """Publish one event to all subscribers that want it.

        Args:
            kind: a type of the event table.
            body: JSON values.
            at: session seconds that the event is about; None: now.
            track: name of the track.
            arrived: of the evidence's last packet (monotonic); None: the event is about now, and has no age.
            stages: seconds per stage.
            audience: the one client that may see it; None: all.
        """
        if kind not in EVENTS:
            raise ValueError(f"{kind} is no event type")
        now = clock.now()
        durable = kind in DURABLE
        if durable:
            self.seq += 1
        else:
            self._ephemerals += 1
        event = Event(
            session=self._session,
            track=track,
            epoch=self.epoch,
            id=f"{self.epoch}.{self.seq}" if durable else f"{self.epoch}.{self.seq}.{self._ephemerals}",
            type=kind,
            at=round(now - self.zero if at is None else at, 3),
            age_ms=round(max(0.0, now - arrived) * 1000, 1) if arrived is not None else 0.0,
            stages={name: round(seconds * 1000, 1) for name, seconds in (stages or {}).items()},
            body=body,
            seq=self.seq if durable else None,
            after=self.seq,
            audience=audience,
        )
        if kind in _AGED and arrived is not None:
            by = "_model" if body.get("by") == "model" else ""
            metrics.caption_age.labels(_AGED[kind] + by).observe(event.age_ms / 1000)
        for stage, seconds in (stages or {}).items():
            metrics.stage_latency.labels(stage).observe(seconds)
        entry = Entry(event.seq, kind, audience, _text(event))
        if durable:
            self._tail.append(entry)
            self._unwritten.append(entry)
        for subscriber in self._subscribers:
            subscriber.offer(entry)
        if self._watch is not None:
            self._watch(event)
        return event

    def whisper(self, subscription: Subscription, kind: str, body: Mapping[str, Any]) -> None:
        """An ephemeral event for one subscriber, past its filter."""
        subscription.offer(self._aside(kind, body), filtered=False)

    def subscribe(self, types: Sequence[str] = (), client: str = "") -> Subscription:
        """A new subscriber, from now on.

        Raises:
            CapacityError: the session has as many subscribers as it may have.
        """
        if len(self._subscribers) >= self._limits.subscribers:
            raise CapacityError(
                f"this session has {self._limits.subscribers} subscribers already",
                code="too_many_subscribers",
            )
        subscription = Subscription(self._limits, types, client or secrets.token_hex(8))
        if self._ended:
            subscription.end()
        self._subscribers.add(subscription)
        metrics.subscribers.inc()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscriber."""
        if subscription in self._subscribers:
            self._subscribers.remove(subscription)
            metrics.subscribers.dec()

    async def since(self, after: int, epoch: str | None, until: int) -> tuple[list[Entry], Entry | None]:
        """Durable events with after < seq <= until, and, where some of them are no longer held, an event that says so."""
        if epoch is not None and epoch != self.epoch:
            gap = self._gap(0, 0, "new_epoch")
            after = 0
        else:
            gap = None
        entries: list[Entry] = []
        held, unwritten = (
            list(self._tail),
            list(self._unwritten),
        )  # as they stand before the disk is read: between them nothing is lost
        first = held[0].seq or 0 if held else self.seq + 1
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
        entries += [entry for entry in held if entry.seq is not None and entry.seq > after]
        return [entry for entry in entries if (entry.seq or 0) <= until], gap

    async def flush(self) -> None:
        """Write what is not yet written; on a thread, so that a slow disk delays nobody. What cannot be written waits for the next time."""
        batch = list(self._unwritten)
        if not batch:
            return
        rows = ((entry.seq or 0, entry.type, entry.audience, entry.text) for entry in batch)
        done = len(batch)
        if not await self._write(self._store.append, rows):
            done = max(0, done - self._store.events)  # the store would have trimmed them
            metrics.events_unwritten.inc(done)
        elif self._failing:
            self._failing = False
            log.info("events can be written again", session=self._session)
        last = batch[done - 1].seq or 0 if done else 0
        while self._unwritten and (self._unwritten[0].seq or 0) <= last:
            self._unwritten.popleft()

    async def put_frame(self, at: float, jpeg: bytes) -> None:
        """Keep the thumbnail of session second `at`; where that fails it is told, and the stream goes on without."""
        await self._write(self._store.put_frame, at, jpeg)

    async def _write(self, write: Callable[..., None], *what: Any) -> bool:
        """Write on a thread; whether that went well. The first failure of a row is told to all."""
        try:
            await asyncio.to_thread(write, *what)
        except FAILURES as error:
            metrics.store_failures.inc()
            if not self._failing:
                self._failing = True
                log.error("events cannot be written", session=self._session, error=type(error).__name__)
                told = StreamsvcError(
                    "what is published cannot be written to the disk now; it is tried again",
                    code="store_failed",
                )
                self.emit("error", told.body())
            return False
        return True

    async def end(self) -> None:
        """Write the rest, and let every subscriber run dry, whether it could be written or not."""
        try:
            await self.flush()
            if self._unwritten:
                metrics.events_unwritten.inc(len(self._unwritten))
                log.error("events were never written", session=self._session, count=len(self._unwritten))
        finally:
            self._ended = True
            for subscriber in self._subscribers:
                subscriber.end()

    def _gap(self, first: int, last: int, reason: str) -> Entry:
        return self._aside("log.gap", {"first": first, "last": last, "reason": reason})

    def _aside(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """An ephemeral event that is not for all."""
        self._ephemerals += 1
        name = f"{self.epoch}.{self.seq}.{self._ephemerals}"
        at = round(clock.now() - self.zero, 3)
        return Entry(
            None,
            kind,
            None,
            _text(Event(self._session, "main", self.epoch, name, kind, at, 0.0, {}, body, None, self.seq)),
        )


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
