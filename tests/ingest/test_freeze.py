"""Video that has stopped is told within four seconds; a picture that stands still is asked for seldom."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from streamsvc.ingest.freeze import ANSWER_SECONDS, ASK_SECONDS, FreezeDetector

TICK = 0.1


def run(
    tested: FreezeDetector, seconds: float, video: Callable[[float], float], start: float = 0.0
) -> tuple[list[float], list[tuple[float, bool]]]:
    """The seconds of requests, and of changes of `frozen`. video: when the last packet came."""
    asked: list[float] = []
    changes: list[tuple[float, bool]] = []
    for number in range(round(seconds / TICK)):
        now = start + number * TICK
        news = tested.tick(now, video(now))
        if news == "ask":
            asked.append(round(now, 1))
        elif news:
            changes.append((round(now, 1), tested.frozen))
            assert tested.frozen is (news == "frozen")
    return asked, changes


def test_a_camera_that_was_taken_away_is_told_after_two_requests_and_told_again_when_it_returns() -> None:
    asked, changes = run(FreezeDetector(), 40.0, lambda now: now if now < 20.0 or now > 30.0 else 20.0)
    assert [round(at - 20.0, 1) for at in asked] == [1.5, 2.5]
    (stopped, one), (back, other) = changes
    assert (one, other) == (True, False)
    assert 20.0 + ASK_SECONDS[0] + ANSWER_SECONDS <= stopped <= 24.0
    assert 30.0 <= back <= 30.3


def test_a_still_picture_that_answers_is_not_frozen_and_is_asked_for_ever_more_seldom() -> None:
    answered = [0.0]
    tested = FreezeDetector()
    asked, changes = [], []
    for number in range(3000):
        now = number * TICK
        if tested.tick(now, answered[-1]) == "ask":
            asked.append(now)
            answered.append(now + 0.2)
        changes.append(tested.frozen)
    assert not any(changes)
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(asked)]
    assert waits == sorted(waits)
    assert len(asked) <= 300 / ASK_SECONDS[1] + 6


def test_after_video_that_flowed_for_long_silence_is_asked_about_soon_again() -> None:
    tested = FreezeDetector()
    answered = [0.0]
    for number in range(600):
        if tested.tick(number * TICK, answered[-1]) == "ask":
            answered.append(number * TICK + 0.2)
    asked, _ = run(tested, 30.0, lambda now: min(now, 75.0), start=60.0)
    assert asked[0] == 76.5
