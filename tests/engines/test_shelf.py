"""A shelf holds so many values, and lets go of the one that was not used for longest."""

from __future__ import annotations

from engines.shelf import Shelf


def test_the_value_unused_for_longest_goes_first_and_is_counted() -> None:
    shelf: Shelf[int] = Shelf(2)
    shelf.put("a", 1)
    shelf.put("b", 2)
    assert shelf.get("a") == 1
    shelf.put("c", 3)
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c"), shelf.dropped) == (1, None, 3, 1)


def test_a_value_that_is_put_again_takes_no_more_room() -> None:
    shelf: Shelf[int] = Shelf(2)
    for value in range(5):
        shelf.put("a", value)
    shelf.put("b", 9)
    assert (shelf.get("a"), shelf.get("b"), shelf.dropped) == (4, 9, 0)


def test_a_value_that_is_taken_is_gone_and_is_not_counted_as_dropped() -> None:
    shelf: Shelf[int] = Shelf(2)
    shelf.put("a", 1)
    assert (shelf.take("a"), shelf.take("a"), shelf.dropped) == (1, None, 0)
