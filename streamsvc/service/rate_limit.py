"""Rate limit for each client: token buckets in a bounded LRU table."""

from __future__ import annotations

from collections import OrderedDict

from streamsvc.core import clock
from streamsvc.core.errors import RateLimited

_CLIENTS = 10_000  # buckets; the least recently used one is evicted


class MessageLimit:
    """At most `per_second` messages a second of one client, in bursts of twice as many."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._tokens = 2.0 * per_second
        self._last = clock.now()

    def take(self) -> None:
        """Count one message. Raises RateLimited: it is one too many."""
        now = clock.now()
        self._tokens = min(2.0 * self._per_second, self._tokens + (now - self._last) * self._per_second)
        self._last = now
        if self._tokens < 1:
            raise RateLimited(f"At most {self._per_second} messages a second are allowed on this socket")
        self._tokens -= 1


class RateLimiter:
    """At most `per_minute` requests a minute for each client, in bursts of the same size."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        # client -> (tokens, monotonic seconds of the last request)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            RateLimited: the bucket of the client is empty.
        """
        now = clock.now()
        tokens, last = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - last) * self._per_minute / 60)
        self._buckets[client] = (max(0.0, tokens - 1), now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise RateLimited(f"At most {self._per_minute} requests a minute are allowed")
