"""Every implementation of Role has its two methods, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

from streamsvc.core.errors import DeadlineMissed
from streamsvc.core.roles import Role, RoleAround, innermost
from streamsvc.evaluation.replayed_roles import Examples, ReplayedRole
from streamsvc.workers.look_cache import LookCache
from streamsvc.workers.supervisor import Worker
from tests.fakes import worker_engine
from tests.fakes.local_role import LocalRole

FAKE: Role = LocalRole(worker_engine.load({}))
ROLES: dict[str, Role] = {
    "fake": FAKE,
    "cached": LookCache(FAKE),
    "examples": Examples(),
    "replayed": ReplayedRole("test", None, FAKE),  # type: ignore[arg-type]
    "worker": Worker("test", {"test": "tests.fakes.worker_engine"}, {}).role("test"),
}


@pytest.mark.parametrize("method", ["call", "stream"])
@pytest.mark.parametrize("name", ROLES)
def test_an_implementation_takes_the_parameters_of_the_protocol(name: str, method: str) -> None:
    expected = list(inspect.signature(getattr(Role, method)).parameters.values())[1:]
    actual = list(inspect.signature(getattr(ROLES[name], method)).parameters.values())
    assert [(one.name, one.kind, one.default) for one in actual] == [
        (one.name, one.kind, one.default) for one in expected
    ]


async def test_the_fake_role_keeps_the_contract() -> None:
    assert (await FAKE.call("echo", {"x": 1}, deadline_in_s=5))["x"] == 1
    assert [item["n"] async for item in FAKE.stream("count", {"to": 2}, deadline_in_s=5)] == [0, 1]
    with pytest.raises(DeadlineMissed):
        await FAKE.call("sleep", {"seconds": 0.3}, deadline_in_s=0.05)


def test_what_is_learned_of_a_role_holds_for_those_around_it() -> None:
    class Around(RoleAround, LocalRole):
        pass

    assert innermost(Around(Around(FAKE))) is FAKE
    assert innermost(FAKE) is FAKE
