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
        size: how many items fit.
        on_drop: called with each dropped item.
    """

    def __init__(self, size: int, on_drop: Callable[[T], None] | None = None) -> None:
        if size < 1:
            raise ValueError(f"a ring needs room for at least 1 item, not {size}")
        self.size = size
        self.dropped = 0
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item; ignored after `close`."""
        if self._closed:
            return
        if len(self._items) >= self.size:
            oldest = self._items.popleft()
            self.dropped += 1
            if self._on_drop is not None:
                self._on_drop(oldest)
        self._items.append(item)
        self._filled.set()
        if len(self._items) >= self.size:
            self._room.clear()

    async def put_when_room(self, item: T) -> None:
        """Add an item once there is room: for sources that can wait (a file read as fast as possible)."""
        await self.room()
        self.put(item)

    async def room(self) -> None:
        """Wait until one more item fits."""
        while len(self._items) >= self.size and not self._closed:
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
        self._room.set()
        return taken

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
