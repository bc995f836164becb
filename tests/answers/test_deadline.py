"""An answer is planned by measured costs, and ends before its deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.answers import deadline
from streamsvc.answers.deadline import plan
from streamsvc.core.degradation import Costs


@given(
    st.floats(-1.0, 5.0),
    st.integers(0, 4096),
    st.booleans(),
    st.floats(0.0001, 0.01),
    st.floats(0.001, 0.2),
    st.floats(0.01, 1.0),
)
def test_a_plan_ends_before_the_deadline(
    left: float, window: int, keyframe: bool, read: float, write: float, frame: float
) -> None:
    costs = Costs(
        {("think", "prompt"): (read,) * 3, ("think", "token"): (write,) * 3, ("see", "frame"): (frame,) * 3}
    )
    planned = plan(costs, 100.0, 100.0 + left, window=window, keyframe=keyframe)
    frame_cost = frame if planned.keyframe_wait else 0.0
    spent = planned.keyframe_wait + frame_cost + planned.window_tokens * read + planned.phrase_tokens * write
    assert not planned.fits or spent <= left + 1e-6
    assert planned.keyframe_wait <= deadline.KEYFRAME_WAIT
    assert planned.window_tokens <= window
    assert planned.fits or planned.phrase_tokens == 0


def test_an_answer_that_cannot_be_in_time_is_not_started() -> None:
    planned = plan(Costs(), 10.0, 10.01, window=400)
    assert not planned.fits
    assert planned.left_out == ("answer",)


def test_a_short_deadline_leaves_out_the_phrase() -> None:
    planned = plan(Costs(), 10.0, 10.2, window=400)
    assert planned.fits
    assert planned.left_out == ("phrase",)


def test_a_shortened_window_is_reported() -> None:
    planned = plan(Costs(), 10.0, 10.5, window=400)
    assert 64 <= planned.window_tokens < 400
    assert planned.left_out == ("window",)


def test_a_usual_deadline_leaves_nothing_out() -> None:
    planned = plan(Costs(), 10.0, 13.0, window=400, keyframe=True)
    assert planned.left_out == ()
    assert (planned.keyframe_wait, planned.window_tokens, planned.phrase_tokens) == (0.3, 400, 48)
