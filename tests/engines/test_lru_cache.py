"""The least recently used value is evicted first; taking a value frees its place."""

from __future__ import annotations

from engines.lru_cache import LruCache


def test_the_least_recently_used_value_is_evicted_first() -> None:
    cache: LruCache[int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_a_replaced_value_takes_no_more_room() -> None:
    cache: LruCache[int] = LruCache(2)
    for value in range(5):
        cache.put("a", value)
    cache.put("b", 9)
    assert (cache.get("a"), cache.get("b")) == (4, 9)


def test_a_replaced_value_becomes_the_most_recently_used() -> None:
    cache: LruCache[int] = LruCache(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        cache.put(key, value)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, None, 4)


def test_a_taken_value_is_gone() -> None:
    cache: LruCache[int] = LruCache(2)
    cache.put("a", 1)
    assert (cache.take("a"), cache.take("a")) == (1, None)
