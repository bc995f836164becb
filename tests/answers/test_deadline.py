"""What fits before a deadline: nothing late is begun; a model is asked only where a sentence may come."""

from __future__ import annotations

import pytest

from streamsvc.answers.deadline import FALLBACK_SECONDS, KEYFRAME_WAIT, plan
from streamsvc.core.degradation import Costs


def measured(**seconds: float) -> Costs:
    """Costs of the think role, and of a keyframe ("frame") of the see role."""
    samples = {("see" if unit == "frame" else "think", unit): (cost,) * 3 for unit, cost in seconds.items()}
    return Costs(samples)


def test_an_answer_that_would_be_late_is_not_begun() -> None:
    assert not plan(Costs(), 10.0, 10.04).fits
    assert plan(Costs(), 10.0, 13.0).fits


def test_a_model_is_asked_where_a_sentence_may_come_before_the_fallback() -> None:
    assert plan(measured(first=0.3, token=0.05), 10.0, 13.0).asks_model
    assert not plan(measured(first=0.3, token=0.3), 10.0, 13.0).asks_model  # 12 tokens take 3.6 s
    assert not plan(measured(first=2.7, token=0.01), 10.0, 13.0).asks_model


@pytest.mark.parametrize(("deadline", "before"), [(13.0, FALLBACK_SECONDS), (10.45, 0.2)])
def test_the_fallback_leaves_time_to_publish(deadline: float, before: float) -> None:
    assert plan(Costs(), 10.0, deadline).fallback_at == pytest.approx(deadline - before)


def test_only_a_question_about_now_waits_for_a_picture() -> None:
    costs = measured(frame=0.05)
    assert plan(costs, 10.0, 13.0).keyframe_wait == 0.0
    assert plan(costs, 10.0, 13.0, keyframe=True).keyframe_wait == KEYFRAME_WAIT
    assert 0 < plan(costs, 10.0, 10.3, keyframe=True).keyframe_wait < 0.25
