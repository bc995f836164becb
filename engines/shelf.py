"""Values by key, of a bounded count."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Shelf(Generic[Value]):
    """Values by key, of a bounded count; the one that was not used for longest goes. Any thread may call it.

    `dropped`: how many have gone.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[str, Value] = OrderedDict()
        self.dropped = 0

    def get(self, key: str) -> Value | None:
        """The value, used now; None: it is not there (any more)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def take(self, key: str) -> Value | None:
        """The value, which is not there afterwards."""
        with self._lock:
            return self._values.pop(key, None)

    def put(self, key: str, value: Value) -> None:
        """Keep a value."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
                self.dropped += 1
