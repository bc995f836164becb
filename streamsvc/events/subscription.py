"""One subscriber's bounded queue of events.

Over its limits the queue first drops ephemeral events, counted by type; then the subscription fails with
SlowSubscriber (WebSocket close code 4008), and the subscriber may resume from the log.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamsvc.core import clock, metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.shared_text import SharedText

_TEXTS = 64  # that are shared: some events, each for some different filters


class SlowSubscriber(StreamsvcError):
    """The subscriber fell behind by more than its queue holds; it may resume."""

    type, code, status, close_code, retryable = "slow_subscriber", "too_slow", 503, 4008, True


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it is stored and sent.

    `text`: its JSON without the closing brace, so that `prev` can be added.
    """

    seq: int | None  # None: ephemeral
    type: str
    audience: str | None  # the one subscriber that may see it; None: all
    text: str


class SharedTexts:
    """The texts of the last events as subscribers are sent them, each made once.

    Subscribers with the same filter have had the same event before, so that one text does for all of them.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], SharedText] = {}  # by text and `prev`, oldest first

    def of(self, entry: Entry, prev: int) -> SharedText:
        """The event's JSON text; a durable one gets `prev`, the seq of the durable event sent before."""
        key = entry.text, prev if entry.seq is not None else -1
        found = self._made.get(key)
        if found is None:
            ending = f',"prev":{prev}}}' if entry.seq is not None else "}"
            found = self._made[key] = SharedText(entry.text + ending)
            if len(self._made) > _TEXTS:
                del self._made[next(iter(self._made))]
        return found


class Subscription:
    """One subscriber's bounded queue. Call `next` until it returns None or raises.

    Args:
        limits: of the queue (events, bytes, seconds).
        types: patterns such as "caption.*"; empty: all.
        client: the subscriber's id; events with another audience are left out.
        lasting: goes on after the end of the log: answers to questions about an ended session still come.
        texts: of the log, which all its subscribers share; None: this one has its own.

    `dropped`: events that the subscriber has lost.
    """

    def __init__(
        self,
        limits: Limits,
        types: Sequence[str],
        client: str,
        *,
        lasting: bool = False,
        texts: SharedTexts | None = None,
    ) -> None:
        self.client = client
        self.lasting = lasting
        self.dropped = 0
        self._limits = limits
        self._texts = texts or SharedTexts()
        self._types = tuple(types)
        self._waiting: deque[tuple[float, Entry]] = deque()  # with the monotonic second of its arrival here
        self._bytes = 0
        self._prev = 0  # seq of the last durable event sent
        self._seen = 0  # see skip_to
        self._filled = asyncio.Event()
        self._ended = False
        self._failure: StreamsvcError | None = None

    def wants(self, entry: Entry) -> bool:
        """Whether the subscriber's filter and audience let an event pass."""
        if entry.audience is not None and entry.audience != self.client:
            return False
        return not self._types or any(fnmatch.fnmatchcase(entry.type, pattern) for pattern in self._types)

    def offer(self, entry: Entry, *, filtered: bool = True) -> None:
        """Queue an event; over a limit, ephemeral events are dropped first, then the subscription fails."""
        if self._failure is not None or (filtered and not self.wants(entry)):
            return
        if entry.seq is not None and entry.seq <= self._seen:
            return
        self._waiting.append((clock.now(), entry))
        self._bytes += len(entry.text)
        if self._over_limit():
            durable = deque(item for item in self._waiting if item[1].seq is not None)
            for _, dropped in self._waiting:
                if dropped.seq is None:
                    self._drop(dropped)
            self._waiting = durable
            self._bytes = sum(len(item.text) for _, item in durable)
        if self._over_limit():
            self.fail(SlowSubscriber("you read too slowly; resume with ?epoch=&after="))
        self._filled.set()

    def fail(self, error: StreamsvcError) -> None:
        """End the subscription at once; what waits is counted as dropped."""
        self._failure = error
        for _, dropped in self._waiting:
            self._drop(dropped)
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
        events = [self._completed(entry) for _, entry in self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return events

    def replay(self, entries: Iterable[Entry]) -> list[tuple[int | None, str]]:
        """Events of the past for this subscriber, to be sent before what waits."""
        return [self._completed(entry) for entry in entries if self.wants(entry)]

    def skip_to(self, seq: int) -> None:
        """Leave out durable events up to `seq`, those that wait and those to come: they were sent already.

        Those to come: at a node that hears of a session's events later than the one that has sent them.
        """
        self._seen = seq
        self._waiting = deque(item for item in self._waiting if item[1].seq is None or item[1].seq > seq)
        self._bytes = sum(len(item.text) for _, item in self._waiting)

    def begin_epoch(self) -> None:
        """Leave nothing out any more: an event that comes is another one than that of its seq before."""
        self._seen = 0

    def _completed(self, entry: Entry) -> tuple[int | None, str]:
        text = self._texts.of(entry, self._prev)
        self._prev = self._prev if entry.seq is None else entry.seq
        return entry.seq, text

    def _over_limit(self) -> bool:
        if not self._waiting:
            return False
        limits = self._limits
        return (
            len(self._waiting) > limits.subscriber_events
            or self._bytes > limits.subscriber_bytes
            or clock.now() - self._waiting[0][0] > limits.subscriber_seconds
        )

    def _drop(self, entry: Entry) -> None:
        self.dropped += 1
        metrics.events_dropped.labels(entry.type).inc()
