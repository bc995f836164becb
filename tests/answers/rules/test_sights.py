"""Appearances name only what was surely seen."""

from __future__ import annotations

import numpy as np

from streamsvc.answers.rules.sights import appearances, there_between
from streamsvc.core.types import Box, Sight, Tag
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import sight


def seen(boxes: list[tuple[str, float]], tags: list[tuple[str, float]]) -> Sight:
    told = tuple(Box(label, score, 0, 0, 1, 1) for label, score in boxes)
    return Sight("s", "main", 0.0, 0.0, np.zeros(2, np.float32), tuple(Tag(*t) for t in tags), told)


def test_a_look_that_misses_a_thing_for_a_moment_does_not_end_its_appearance() -> None:
    line = Timeline()
    for at, label in ((0.0, "cat"), (2.0, "cup"), (4.0, "cat"), (6.0, "cup"), (30.0, "cat")):
        line.add(sight(at, label))
    assert [(e.start, e.end) for e in appearances(line, "cat")] == [(0.0, 6.0), (30.0, 30.0)]


def test_what_may_have_been_seen_is_not_denied() -> None:
    line = Timeline()
    line.add(seen([("dog", 0.42)], []))
    assert not there_between(line, "dog", 0.0, 5.0).supported
    assert there_between(line, "zebra", 0.0, 5.0).text.startswith("No")
