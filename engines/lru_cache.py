"""A thread-safe LRU cache: cachetools' LRUCache, which is not thread-safe, under a lock."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from cachetools import LRUCache

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """At most `capacity` values by key; when full, the least recently used value is evicted. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._lock = threading.Lock()
        self._values: LRUCache[str, Value] = LRUCache(capacity)

    def get(self, key: str) -> Value | None:
        """The value, which becomes the most recently used; None if absent."""
        with self._lock:
            return self._values.get(key)

    def take(self, key: str) -> Value | None:
        """Remove and return the value; None if absent."""
        with self._lock:
            return self._values.pop(key, None)

    def put(self, key: str, value: Value) -> None:
        """Add or replace a value, which becomes the most recently used."""
        with self._lock:
            self._values[key] = value
