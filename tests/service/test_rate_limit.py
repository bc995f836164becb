"""The rate limit lets bursts through, refuses the flood, and forgets."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import RateLimited
from streamsvc.service import rate_limit
from streamsvc.service.rate_limit import Rate


def test_a_burst_passes_and_the_flood_is_refused_until_time_has_passed(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        limit = Rate(60)
        for _ in range(60):
            limit.take("a")
        with pytest.raises(RateLimited):
            limit.take("a")
        limit.take("b")
        await clock.sleep(2.1)
        limit.take("a")

    virtual.run(main())


def test_the_number_of_clients_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_CLIENTS", 3)
    limit = Rate(1)
    for name in "abcd":
        limit.take(name)
    assert len(limit._buckets) == 3
    limit.take("a")
