"""Bounded queues between tasks: `Ring` drops the oldest item, `Latest` keeps the newest.

Single event loop, one consumer. `put` never blocks; a thread uses `loop.call_soon_threadsafe(queue.put,
item)`. Every dropped item is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The queue is closed and empty."""


class Ring(Generic[T]):
    """A bounded queue that drops its oldest item when full.

    Drops are counted in `dropped` and passed to `on_drop`.

    Args:
        size: capacity; the queue is full when the weights of its items add up to it.
        on_drop: called with each dropped item.
        weigh: weight of an item (seconds, say), evaluated once, at `put`; default 1. Items of weight 0 are
            never dropped, so the producer must bound their number.
    """

    def __init__(
        self,
        size: float,
        on_drop: Callable[[T], None] | None = None,
        weigh: Callable[[T], float] = lambda item: 1,
    ) -> None:
        if size <= 0:
            raise ValueError(f"the size of a ring must be positive, not {size}")
        self.size = size
        self.dropped = 0
        self.load = 0.0  # weight of all queued items
        self._on_drop = on_drop
        self._weigh = weigh
        self._items: deque[tuple[T, float]] = deque()
        self._closed = False
        self._not_empty = asyncio.Event()
        self._not_full = asyncio.Event()
        self._not_full.set()
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether `close` was called; items may still be queued."""
        return self._closed

    def put(self, item: T) -> None:
        """Add an item; ignored after `close`."""
        if self._closed:
            return
        weight = self._weigh(item)
        while weight and self.load >= self.size:
            self._drop()
        self._items.append((item, weight))
        self._empty.clear()
        self.load += weight
        self._not_empty.set()
        if self.load >= self.size:
            self._not_full.clear()

    def _drop(self) -> None:
        """Drop the oldest item with a weight."""
        index = next(index for index, (_, weight) in enumerate(self._items) if weight)
        oldest, weight = self._items[index]
        del self._items[index]
        self.load -= weight
        self.dropped += 1
        if self._on_drop is not None:
            self._on_drop(oldest)

    async def put_when_space(self, item: T) -> None:
        """Add an item once the queue is not full: for sources that can wait, such as files."""
        await self.wait_for_space()
        self.put(item)

    async def wait_for_space(self) -> None:
        """Wait until the queue is not full, or closed."""
        while self.load >= self.size and not self._closed:
            self._not_full.clear()
            await self._not_full.wait()

    async def wait_until_taken(self) -> None:
        """Wait until every item has been taken."""
        while self._items:
            await self._empty.wait()

    async def take(self, most: int | None = None) -> list[T]:
        """Wait for at least one item; return all queued items, at most `most`.

        Raises:
            Closed: the queue is closed and empty.
        """
        while not self._items:
            if self._closed:
                raise Closed
            self._not_empty.clear()
            await self._not_empty.wait()
        count = len(self._items) if most is None else min(most, len(self._items))
        taken = [self._items.popleft() for _ in range(count)]
        self.load = self.load - sum(weight for _, weight in taken) if self._items else 0.0
        if self.load < self.size:
            self._not_full.set()
        if not self._items:
            self._empty.set()
        return [item for item, _ in taken]

    async def take_exactly(self, count: int) -> list[T]:
        """Wait for so many items and return them; fewer where the queue is closed before. Raises Closed."""
        while len(self._items) < count and not self._closed:
            self._not_empty.clear()
            await self._not_empty.wait()
        return await self.take(count)

    async def batches(self, most: int | None = None) -> AsyncIterator[list[T]]:
        """Yield the results of `take` until the queue is closed and empty."""
        with contextlib.suppress(Closed):
            while True:
                yield await self.take(most)

    def close(self) -> None:
        """Ignore new items; `take` returns the queued ones, then raises Closed. Idempotent."""
        self._closed = True
        self._not_empty.set()
        self._not_full.set()


class Latest(Ring[T]):
    """A one-place queue: a newer item replaces the one not yet taken, which counts as dropped."""

    def __init__(self, on_drop: Callable[[T], None] | None = None) -> None:
        super().__init__(1, on_drop)

    async def get(self) -> T:
        """Wait for the newest item.

        Raises:
            Closed: the queue is closed and empty.
        """
        return (await self.take())[0]
