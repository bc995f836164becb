"""Steps are longer while the worker has a queue."""

from __future__ import annotations

from streamsvc.speech.pacing import LONGER_MAX, WAIT_GOAL, StepPacer


def after(waits: list[float]) -> float:
    pacer = StepPacer()
    for waited in waits:
        pacer.note(waited)
    return pacer.longer


def test_steps_are_not_longer_without_a_queue() -> None:
    assert after([]) == after([0.0] * 50) == after([WAIT_GOAL] * 50) == 0.0


def test_steps_become_longer_by_a_share_of_each_wait_up_to_a_maximum() -> None:
    once = after([0.5])
    assert 0.05 < once < 0.5
    assert after([0.5] * 3) > 2.5 * once
    assert after([5.0] * 50) == LONGER_MAX


def test_steps_become_as_short_as_before_once_the_queue_is_gone() -> None:
    assert 0.0 < after([0.5] * 3 + [0.0]) < after([0.5] * 3)
    assert after([5.0] * 50 + [0.0] * 100) == 0.0
