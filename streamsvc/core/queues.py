"""The only two hand-offs between tasks: `Latest` (the newest wins) and `Ring` (bounded, drops the oldest, counts).

Both belong to one event loop; a thread hands items over with `loop.call_soon_threadsafe(box.put, item)`.
Neither ever blocks who puts. One taker each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The box was closed and is empty: nothing will come any more."""


class Ring(Generic[T]):
    """A bounded queue. Full: the oldest item is dropped, counted in `dropped` and told to `on_drop`.

    Args:
        size: how much fits: it is full when its items weigh as much, together.
        on_drop: called with each dropped item.
        weigh: the weight of an item, asked once as it is put (seconds, say); without it each weighs 1. What weighs nothing is
            never dropped: whoever puts it sees to it that there is not too much of it.
    """

    def __init__(
        self,
        size: float,
        on_drop: Callable[[T], None] | None = None,
        weigh: Callable[[T], float] = lambda item: 1,
    ) -> None:
        if size <= 0:
            raise ValueError(f"a ring needs room, not {size}")
        self.size = size
        self.dropped = 0
        self.load = 0.0  # weight of what is in it
        self._on_drop, self._weigh = on_drop, weigh
        self._items: deque[tuple[T, float]] = deque()
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether nothing more comes; something may still be in it."""
        return self._closed

    def put(self, item: T) -> None:
        """Add an item; ignored after `close`."""
        if self._closed:
            return
        weight = self._weigh(item)
        while weight and self.load >= self.size:
            self._drop()
        self._items.append((item, weight))
        self.load += weight
        self._filled.set()
        if self.load >= self.size:
            self._room.clear()

    def _drop(self) -> None:
        """Drop the oldest item that weighs something."""
        place = next(place for place, (_, weight) in enumerate(self._items) if weight)
        oldest, weight = self._items[place]
        del self._items[place]
        self.load -= weight
        self.dropped += 1
        if self._on_drop is not None:
            self._on_drop(oldest)

    async def put_when_room(self, item: T) -> None:
        """Add an item once there is room: for sources that can wait (a file read as fast as possible)."""
        await self.room()
        self.put(item)

    async def room(self) -> None:
        """Wait until the ring is not full."""
        while self.load >= self.size and not self._closed:
            self._room.clear()
            await self._room.wait()

    async def take(self, most: int | None = None) -> list[T]:
        """All waiting items (at most `most`), at least one.

        Raises:
            Closed: the ring was closed and is empty.
        """
        while not self._items:
            if self._closed:
                raise Closed
            self._filled.clear()
            await self._filled.wait()
        count = len(self._items) if most is None else min(most, len(self._items))
        taken = [self._items.popleft() for _ in range(count)]
        self.load = self.load - sum(weight for _, weight in taken) if self._items else 0.0
        if self.load < self.size:
            self._room.set()
        return [item for item, _ in taken]

    async def batches(self, most: int | None = None) -> AsyncIterator[list[T]]:
        """What `take` gives, until the ring is closed and empty."""
        with contextlib.suppress(Closed):
            while True:
                yield await self.take(most)

    def close(self) -> None:
        """Let the taker have what is left, then `Closed`. Never fails, may be called twice."""
        self._closed = True
        self._filled.set()
        self._room.set()


class Latest(Ring[T]):
    """A place for one item: a newer one replaces the one not yet taken, which is counted as dropped."""

    def __init__(self, on_drop: Callable[[T], None] | None = None) -> None:
        super().__init__(1, on_drop)

    async def get(self) -> T:
        """The newest item.

        Raises:
            Closed: the box was closed and is empty.
        """
        return (await self.take())[0]
