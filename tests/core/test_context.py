"""A session's degradation level changes what its parts may spend, and repeating a level changes nothing."""

from __future__ import annotations

from streamsvc.core.context import DegradationState
from streamsvc.core.degradation import fidelity


def test_a_level_is_applied_once_and_given_back() -> None:
    state = DegradationState()
    assert (state.level, state.reason, state.fidelity) == (0, "", fidelity(0))
    assert state.apply(3, "vision is behind")
    assert (state.level, state.reason, state.fidelity) == (3, "vision is behind", fidelity(3))
    assert not state.apply(3, "vision is behind")
    assert state.apply(0, "")
    assert state.fidelity == fidelity(0)
