"""The two hand-offs: nothing waits who puts, nothing is lost uncounted."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core import clock
from streamsvc.core.queues import Closed, Latest, Ring


async def test_a_ring_gives_what_was_put_in_order() -> None:
    ring: Ring[int] = Ring(4)
    for item in (1, 2, 3):
        ring.put(item)
    assert len(ring) == 3
    assert await ring.take() == [1, 2, 3]
    assert (len(ring), ring.dropped, ring.closed) == (0, 0, False)
    ring.close()
    assert ring.closed


async def test_a_full_ring_drops_the_oldest_counts_it_and_tells() -> None:
    told: list[int] = []
    ring: Ring[int] = Ring(2, told.append)
    for item in range(5):
        ring.put(item)
    assert await ring.take() == [3, 4]
    assert (ring.dropped, told) == (3, [0, 1, 2])


async def test_take_gives_at_most_as_many_as_asked_for_and_keeps_the_rest() -> None:
    ring: Ring[int] = Ring(8)
    for item in range(5):
        ring.put(item)
    assert await ring.take(2) == [0, 1]
    assert await ring.take(2) == [2, 3]
    assert await ring.take(2) == [4]


async def test_a_taker_waits_until_something_is_put() -> None:
    ring: Ring[str] = Ring(2)
    taking = asyncio.create_task(ring.take())
    await asyncio.sleep(0)
    assert not taking.done()
    ring.put("here")
    assert await taking == ["here"]


async def test_a_closed_ring_hands_out_the_rest_and_then_says_so() -> None:
    ring: Ring[int] = Ring(2)
    ring.put(1)
    ring.close()
    ring.close()
    ring.put(2)
    assert await ring.take() == [1]
    with pytest.raises(Closed):
        await ring.take()


async def test_closing_wakes_a_waiting_taker() -> None:
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
                await ring.put_when_room(item)
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


async def test_closing_frees_a_source_that_waits_for_room() -> None:
    ring: Ring[int] = Ring(1)
    ring.put(1)
    waiting = asyncio.create_task(ring.put_when_room(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    ring.close()
    await waiting
    assert await ring.take() == [1]


async def test_the_latest_box_holds_only_the_newest() -> None:
    replaced: list[str] = []
    box: Latest[str] = Latest(replaced.append)
    for item in ("a", "b", "c"):
        box.put(item)
    assert await box.get() == "c"
    assert (box.dropped, replaced) == (2, ["a", "b"])
    box.close()
    with pytest.raises(Closed):
        await box.get()


@pytest.mark.parametrize("size", [0, -1])
def test_a_ring_without_room_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        Ring(size)


@given(size=st.integers(1, 8), steps=st.lists(st.one_of(st.just("put"), st.integers(1, 4)), max_size=60))
def test_whatever_happens_nothing_is_lost_uncounted_or_turned_round(
    size: int, steps: list[str | int]
) -> None:
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


async def test_a_ring_may_be_measured_by_the_weight_of_what_is_in_it() -> None:
    told: list[float] = []
    ring: Ring[float] = Ring(3.0, told.append, lambda item: item)
    ring.put(1.0)
    ring.put(2.5)  # it was not full: what comes last may go over
    assert (ring.load, told) == (3.5, [])
    waiting = asyncio.create_task(ring.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await ring.take(1) == [1.0]
    await waiting
    ring.put(2.0)
    ring.put(1.0)
    assert told == [2.5]
    assert await ring.take() == [2.0, 1.0]
    assert ring.load == 0.0


async def test_what_weighs_nothing_is_never_dropped_and_keeps_its_place() -> None:
    ring: Ring[int] = Ring(2, None, lambda item: 0 if item < 0 else 1)
    for item in (1, -1, 2, -2, 3, 4, -3):
        ring.put(item)
    assert await ring.take() == [-1, -2, 3, 4, -3]
    assert ring.dropped == 2
