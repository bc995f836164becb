"""Rate limit per client: a token bucket each, bounded in number."""

from __future__ import annotations

from collections import OrderedDict

from streamsvc.core import clock
from streamsvc.core.errors import RateLimited

_CLIENTS = 10_000  # buckets kept; the one unused for longest goes first


class Rate:
    """At most `per_minute` takes a minute for each client, with bursts of as many."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # client -> (tokens, monotonic seconds)

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            RateLimited: the client has none left.
        """
        now = clock.now()
        tokens, last = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - last) * self._per_minute / 60)
        self._buckets[client] = (max(0.0, tokens - 1), now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise RateLimited(f"at most {self._per_minute} requests a minute")
