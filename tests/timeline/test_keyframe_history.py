"""Keyframes last until the next one; equal old ones are merged before any is dropped."""

from __future__ import annotations

from itertools import pairwise

from streamsvc.timeline.keyframe_history import KeyframeHistory, Shown
from tests.builders.units import sight


def test_a_keyframe_is_shown_until_the_next_one() -> None:
    history = KeyframeHistory(10)
    history.add_sight(sight(0.0))
    history.add(Shown(2.0, None, None, "scene"))
    history.add_sight(sight(2.0, "dog"))
    assert [(entry.start, entry.end) for entry in history.entries] == [(0.0, 2.0), (2.0, None)]
    assert history.entries[1].reason == "scene"


def test_a_late_sight_goes_to_its_keyframe_and_a_late_keyframe_is_ignored() -> None:
    history = KeyframeHistory(10)
    for at in (0.0, 2.0, 4.0):
        history.add(Shown(at, None, None))
    history.add(Shown(3.0, None, None))
    history.add_sight(sight(2.0, "dog"))
    assert [(entry.start, entry.end, entry.sight is not None) for entry in history.entries] == [
        (0.0, 2.0, False),
        (2.0, 4.0, True),
        (4.0, None, False),
    ]


def test_over_the_limit_the_oldest_is_dropped_and_counted() -> None:
    history = KeyframeHistory(3)
    for at in range(10):
        history.add_sight(sight(float(at)))
    assert [entry.start for entry in history.entries] == [7.0, 8.0, 9.0]
    assert history.dropped == 7


def test_equal_old_neighbours_are_merged_before_any_is_dropped() -> None:
    history = KeyframeHistory(20)
    for at in range(200):
        history.add_sight(sight(float(at), "cat" if at < 100 else "dog"))
    assert len(history.entries) <= 20
    assert (history.entries[0].start, history.dropped) == (0.0, 0)
    cats = [
        entry for entry in history.entries if entry.sight is not None and entry.sight.boxes[0].label == "cat"
    ]
    assert (cats[0].start, cats[-1].end) == (0.0, 100.0)
    assert all(earlier.end == later.start for earlier, later in pairwise(history.entries))
    changing = KeyframeHistory(20)
    for at in range(200):
        changing.add_sight(sight(float(at), ("cat", "dog")[at % 2]))
    assert len(changing.entries) == 20
    assert changing.dropped == 180


def test_the_embedding_of_a_sight_is_not_kept() -> None:
    history = KeyframeHistory(10)
    history.add_sight(sight(1.0))
    stored = history.entries[0].sight
    assert stored is not None
    assert stored.boxes == sight(1.0).boxes
    assert stored.embedding.size == 0
