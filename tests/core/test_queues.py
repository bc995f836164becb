"""Queues never block `put`, keep the order, and count every dropped item."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core import clock
from streamsvc.core.queues import Closed, Latest, Ring


async def test_a_ring_keeps_the_order() -> None:
    ring: Ring[int] = Ring(4)
    for item in (1, 2, 3):
        ring.put(item)
    assert len(ring) == 3
    assert await ring.take() == [1, 2, 3]
    assert (len(ring), ring.dropped, ring.closed) == (0, 0, False)
    ring.close()
    assert ring.closed


async def test_a_full_ring_drops_the_oldest_counts_it_and_calls_on_drop() -> None:
    dropped: list[int] = []
    ring: Ring[int] = Ring(2, dropped.append)
    for item in range(5):
        ring.put(item)
    assert await ring.take() == [3, 4]
    assert (ring.dropped, dropped) == (3, [0, 1, 2])


async def test_take_returns_at_most_the_requested_number() -> None:
    ring: Ring[int] = Ring(8)
    for item in range(5):
        ring.put(item)
    assert await ring.take(2) == [0, 1]
    assert await ring.take(2) == [2, 3]
    assert await ring.take(2) == [4]


async def test_take_waits_for_an_item() -> None:
    ring: Ring[str] = Ring(2)
    taking = asyncio.create_task(ring.take())
    await asyncio.sleep(0)
    assert not taking.done()
    ring.put("here")
    assert await taking == ["here"]


async def test_a_closed_ring_returns_the_rest_and_then_raises() -> None:
    ring: Ring[int] = Ring(2)
    ring.put(1)
    ring.close()
    ring.close()
    ring.put(2)
    assert await ring.take() == [1]
    with pytest.raises(Closed):
        await ring.take()


async def test_close_wakes_a_waiting_take() -> None:
    ring: Ring[int] = Ring(2)
    taking = asyncio.create_task(ring.take())
    await asyncio.sleep(0)
    ring.close()
    with pytest.raises(Closed):
        await taking


def test_a_source_that_can_wait_loses_nothing(virtual: asyncio.Runner) -> None:
    async def main() -> tuple[list[int], int, int]:
        ring: Ring[int] = Ring(3)
        deepest = 0
        taken: list[int] = []

        async def put_all() -> None:
            for item in range(50):
                await ring.put_when_space(item)
            ring.close()

        putting = asyncio.create_task(put_all())
        try:
            while True:
                await clock.sleep(0.1)
                deepest = max(deepest, len(ring))
                taken += await ring.take(1)
        except Closed:
            await putting
        return taken, deepest, ring.dropped

    assert virtual.run(main()) == (list(range(50)), 3, 0)


async def test_close_wakes_a_source_that_waits_for_space() -> None:
    ring: Ring[int] = Ring(1)
    ring.put(1)
    waiting = asyncio.create_task(ring.put_when_space(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    ring.close()
    await waiting
    assert await ring.take() == [1]


async def test_a_producer_may_wait_until_everything_is_taken() -> None:
    ring: Ring[int] = Ring(4)
    await ring.wait_until_taken()
    ring.put(1)
    ring.put(2)
    waiting = asyncio.create_task(ring.wait_until_taken())
    await ring.take(1)
    await asyncio.sleep(0)
    assert not waiting.done()
    await ring.take()
    await asyncio.wait_for(waiting, 5)


async def test_latest_keeps_only_the_newest_item() -> None:
    replaced: list[str] = []
    queue: Latest[str] = Latest(replaced.append)
    for item in ("a", "b", "c"):
        queue.put(item)
    assert await queue.get() == "c"
    assert (queue.dropped, replaced) == (2, ["a", "b"])
    queue.close()
    with pytest.raises(Closed):
        await queue.get()


@pytest.mark.parametrize("size", [0, -1])
def test_a_ring_without_capacity_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        Ring(size)


@given(size=st.integers(1, 8), steps=st.lists(st.one_of(st.just("put"), st.integers(1, 4)), max_size=60))
def test_every_item_is_taken_in_order_or_counted_as_dropped(size: int, steps: list[str | int]) -> None:
    async def main() -> None:
        dropped: list[int] = []
        ring: Ring[int] = Ring(size, dropped.append)
        put = 0
        taken: list[int] = []
        for step in steps:
            if step == "put":
                ring.put(put)
                put += 1
            elif len(ring):
                taken += await ring.take(int(step))
            assert len(ring) <= size
        if len(ring):
            taken += await ring.take()
        assert sorted(taken + dropped) == list(range(put))
        assert taken == sorted(taken)
        assert ring.dropped == len(dropped)

    asyncio.run(main())


async def test_the_capacity_of_a_ring_may_be_a_weight() -> None:
    dropped: list[float] = []
    ring: Ring[float] = Ring(3.0, dropped.append, lambda item: item)
    ring.put(1.0)
    ring.put(2.5)  # it was not full: the last item may exceed the size
    assert (ring.load, dropped) == (3.5, [])
    waiting = asyncio.create_task(ring.wait_for_space())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await ring.take(1) == [1.0]
    await waiting
    ring.put(2.0)
    ring.put(1.0)
    assert dropped == [2.5]
    assert await ring.take() == [2.0, 1.0]
    assert ring.load == 0.0


async def test_items_without_weight_are_never_dropped_and_keep_their_place() -> None:
    ring: Ring[int] = Ring(2, None, lambda item: 0 if item < 0 else 1)
    for item in (1, -1, 2, -2, 3, 4, -3):
        ring.put(item)
    assert await ring.take() == [-1, -2, 3, 4, -3]
    assert ring.dropped == 2


async def test_so_many_items_are_waited_for_and_fewer_come_at_the_end() -> None:
    ring: Ring[int] = Ring(9)
    ring.put(1)
    taking = asyncio.create_task(ring.take_exactly(2))
    await asyncio.sleep(0)
    assert not taking.done()
    ring.put(2)
    ring.put(3)
    assert await taking == [1, 2]
    ring.close()
    assert await ring.take_exactly(2) == [3]
    with pytest.raises(Closed):
        await ring.take_exactly(1)
