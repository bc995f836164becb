"""A session's degradation level changes what its parts may spend, and repeating a level changes nothing."""

from __future__ import annotations

from streamsvc.core.context import DegradationState, Roles
from streamsvc.core.degradation import fidelity
from streamsvc.core.roles import Role
from tests.fakes.role import FakeRole


def test_a_level_is_applied_once_and_given_back() -> None:
    state = DegradationState()
    assert (state.level, state.reason, state.fidelity) == (0, "", fidelity(0))
    assert state.apply(3, "vision is behind")
    assert (state.level, state.reason, state.fidelity) == (3, "vision is behind", fidelity(3))
    assert not state.apply(3, "vision is behind")
    assert state.apply(0, "")
    assert state.fidelity == fidelity(0)


def test_a_model_that_sees_is_told_from_the_one_that_reads() -> None:
    hear, think, vlm = FakeRole(), FakeRole(), FakeRole()
    assert Roles(hear, hear, think).sight is None
    assert Roles(hear, hear, think, vlm=think).sight is None
    apart = Roles(hear, hear, think, vlm=vlm)
    assert apart.sight is vlm
    names: list[str] = []

    def wrap(name: str, role: Role) -> Role:
        names.append(name)
        return role

    assert apart.through(wrap).sight is vlm
    assert names == ["think", "hear", "see", "sight"]
    assert Roles(hear, hear, think, vlm=think).through(wrap).vlm is think
