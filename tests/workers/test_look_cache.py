"""Identical pictures are looked at once; failures and deadlines stay with their callers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from engines import Payload
from streamsvc.core import clock, metrics
from streamsvc.core.errors import DeadlineMissed, WorkerError
from streamsvc.workers.look_cache import LookCache
from tests.fakes.role import FakeRole


def first_byte(payload: Payload) -> Payload:
    """Op `look`: the picture's tag is its first byte."""
    return {"tags": [int(payload["jpeg"][0])]}


def gated_role() -> FakeRole:
    """A see role whose looks wait until its gate is set."""
    return FakeRole({"look": first_byte, "read": {}}, gates={"look": asyncio.Event()})


def picture(first: int, size: int = 4) -> Payload:
    return {"jpeg": np.array([first] * size, np.uint8)}


async def test_sessions_with_the_same_feed_look_once_at_once_and_later() -> None:
    see = gated_role()
    cache = LookCache(see)
    hits = metrics.looks.labels("hit")._value.get()
    both = [
        asyncio.create_task(cache.call("look", picture(7), deadline_in_s=5.0, affinity=name)) for name in "ab"
    ]
    await asyncio.sleep(0)
    see.gates["look"].set()
    assert [result["tags"] for result in await asyncio.gather(*both)] == [[7], [7]]
    assert (await cache.call("look", picture(7), deadline_in_s=5.0))["tags"] == [7]
    assert see.count("look") == 1
    assert metrics.looks.labels("hit")._value.get() == hits + 2


async def test_one_changed_byte_is_another_picture_and_reads_are_not_cached() -> None:
    see = gated_role()
    see.gates["look"].set()
    cache = LookCache(see)
    almost = picture(7)
    almost["jpeg"][3] = 8
    for payload in (picture(7), almost):
        await cache.call("look", payload, deadline_in_s=5.0)
    for _ in range(2):
        await cache.call("read", picture(7), deadline_in_s=5.0)
    assert (see.count("look"), see.count("read")) == (2, 2)


async def test_the_least_recently_used_picture_is_evicted() -> None:
    see = gated_role()
    see.gates["look"].set()
    cache = LookCache(see, most=2)
    for first in (1, 2, 1, 3, 1, 2):  # 3 evicts 2, since 1 was used later
        await cache.call("look", picture(first), deadline_in_s=5.0)
    assert see.count("look") == 4


async def test_a_failed_or_cancelled_look_is_retried_by_the_next_waiter() -> None:
    see = gated_role()
    see.results = {"look": [WorkerError("died"), first_byte]}
    cache = LookCache(see)
    first = asyncio.create_task(cache.call("look", picture(7), deadline_in_s=5.0))
    second = asyncio.create_task(cache.call("look", picture(7), deadline_in_s=5.0))
    third = asyncio.create_task(cache.call("look", picture(7), deadline_in_s=5.0))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    see.gates["look"].set()
    with pytest.raises(WorkerError):
        await second
    assert (await third)["tags"] == [7]
    assert first.cancelled()
    assert see.count("look") == 3


def test_a_waiter_keeps_its_own_deadline(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        cache = LookCache(gated_role())
        first = asyncio.create_task(cache.call("look", picture(7), deadline_in_s=60.0))
        await asyncio.sleep(0)
        began = clock.now()
        with pytest.raises(DeadlineMissed):
            await cache.call("look", picture(7), deadline_in_s=2.0)
        assert clock.now() - began == pytest.approx(2.0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    virtual.run(main())
