"""Stages of an age: what the time from the arrival of evidence to its publication went to. Pure.

A unit carries marks, by time: the name of a stage and the monotonic second at which it ended. Each stage
begins where the one before ended, the first at `arrived`; so stages never overlap and add up to the age,
whatever was measured.
"""

from __future__ import annotations

from collections import deque

from streamsvc.core.types import Stages

WAIT = "wait"  # for more media, for a turn, or for a model that was busy
PUBLISH = "publish"  # from the last mark to publication
_MOST = 256  # marks of a work log; even, since work is noted in pairs


def stage_intervals(stages: Stages, arrived: float, published: float) -> list[tuple[str, float, float]]:
    """The stages of one age, by time: name, begin and end in monotonic seconds; each begins at another's end.

    They fill the age; there are none where it is negative. What was marked before `arrived` was other
    evidence's, and counts nothing.

    Args:
        stages: the marks of a unit, by time.
        arrived: monotonic seconds.
        published: monotonic seconds.
    """
    found: list[tuple[str, float, float]] = []
    since = arrived
    for name, ended in (*stages, (PUBLISH, published)):
        until = min(ended, published)
        if until > since:
            found.append((name, since, until))
            since = until
    return found


def seconds_by_stage(stages: Stages, arrived: float, published: float) -> dict[str, float]:
    """Seconds per stage of one age; they add up to `published - arrived`. See `stage_intervals`."""
    found: dict[str, float] = {}
    for name, since, until in stage_intervals(stages, arrived, published):
        found[name] = found.get(name, 0.0) + until - since
    return found


class WorkLog:
    """What a loop did lately, as marks: its work, and the waits between. Bounded: the oldest are dropped."""

    def __init__(self) -> None:
        self._marks: deque[tuple[str, float]] = deque(maxlen=_MOST)

    def add(self, stage: str, began: float, ended: float) -> None:
        """Note one piece of work; arguments in monotonic seconds."""
        self._marks += ((WAIT, began), (stage, ended))

    def since(self, arrived: float) -> Stages:
        """The marks after a monotonic second."""
        return tuple(mark for mark in self._marks if mark[1] > arrived)
