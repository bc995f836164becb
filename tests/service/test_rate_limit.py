"""Token buckets allow bursts, refuse more, refill with time, and are bounded in number."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import RateLimited
from streamsvc.service import rate_limit
from streamsvc.service.rate_limit import MessageLimit, RateLimiter


def test_a_burst_is_allowed_and_more_is_refused_until_the_bucket_refills(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        limiter = RateLimiter(60)
        for _ in range(60):
            limiter.take("a")
        with pytest.raises(RateLimited):
            limiter.take("a")
        limiter.take("b")
        await clock.sleep(2.1)
        limiter.take("a")

    virtual.run(main())


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_CLIENTS", 3)
    limiter = RateLimiter(1)
    for name in "abcd":
        limiter.take(name)
    assert len(limiter._buckets) == 3
    limiter.take("a")


def test_messages_come_in_bursts_of_two_seconds_and_no_more(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        limit = MessageLimit(10)
        for _ in range(20):
            limit.take()
        with pytest.raises(RateLimited, match="10 messages a second"):
            limit.take()
        await clock.sleep(0.1)
        limit.take()

    virtual.run(main())
