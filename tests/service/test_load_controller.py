"""One ladder for all live sessions: strain is told to each, and nobody comes in who would make the others late."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.config import Budget
from streamsvc.core.errors import CapacityError
from streamsvc.service import load_controller
from streamsvc.service.load_controller import SETTLED, TICK, LoadController
from streamsvc.service.load_policy import Load


@dataclass
class Fake:
    """A session whose load is set by the test; `told`: the levels and reasons that it heard, without repetitions."""

    now: Load = field(default_factory=Load)
    told: list[tuple[int, str]] = field(default_factory=list)

    def load(self, now: float) -> Load:
        return self.now

    def apply_level(self, level: int, reason: str) -> None:
        if not self.told or self.told[-1] != (level, reason):
            self.told.append((level, reason))


async def looked(made: LoadController, seconds: float) -> None:
    for _ in range(round(seconds / TICK)):
        await clock.sleep(TICK)
        made.look(0.5)


def test_the_strain_of_one_session_is_told_to_all_and_given_back_when_it_is_gone(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        late, fine = Fake(Load(backlog=1.0)), Fake()
        made = LoadController(lambda: [(late, 0.0), (fine, 0.0)], lambda role: True, Budget())
        await looked(made, 3.0)
        assert (
            late.told
            == fine.told
            == [(1, "speech waits for recognition"), (2, "speech waits for recognition")]
        )
        assert metrics.degradation_level._value.get() == 2
        late.now = Load()
        await looked(made, 30.0)
        assert fine.told[-1] == (0, "")
        assert metrics.degradation_level._value.get() == 0

    virtual.run(main())


def test_the_backlog_of_all_sessions_is_told(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        LoadController(
            lambda: [(Fake(Load(backlog=0.5)), 0.0), (Fake(Load(backlog=0.25)), 0.0)],
            lambda role: True,
            Budget(),
        ).look(0.0)
        assert metrics.asr_backlog._value.get() == 0.75

    virtual.run(main())


@pytest.mark.parametrize(("up", "level"), [(False, 0), (True, 1)])
@pytest.mark.parametrize(
    ("load", "role"),
    [(Load(backlog=9.0), "hear"), (Load(see_wait=9.0), "see"), (Load(think_wait=9.0), "think")],
)
def test_what_waits_for_a_worker_that_starts_is_no_strain(
    virtual: asyncio.Runner, load: Load, role: str, up: bool, level: int
) -> None:
    async def main() -> None:
        made = LoadController(lambda: [(Fake(load), 0.0)], lambda name: name != role or up, Budget())
        await looked(made, TICK)
        assert made.ladder.level == level

    virtual.run(main())


def test_switched_off_nothing_is_spent_and_everybody_comes_in(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        late = Fake(Load(backlog=9.0))
        made = LoadController(
            lambda: [(late, -99.0)], lambda role: True, Budget(ladder=False, admission=False)
        )
        made.cpu = 1.0
        await looked(made, 10.0)
        assert late.told == [(0, "")]
        made.admit()

    virtual.run(main())


def test_a_forced_level_stays_whatever_is_observed(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session = Fake()
        made = LoadController(lambda: [(session, 0.0)], lambda role: True, Budget())
        made.force(5)
        await looked(made, 60.0)
        assert session.told == [(5, "forced")]
        made.force(None)
        await looked(made, 60.0)
        assert session.told[-1] == (0, "")
        with pytest.raises(ValueError, match="levels"):
            made.force(8)

    virtual.run(main())


def test_only_sessions_that_have_settled_tell_what_one_more_would_cost(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        began = clock.now()
        made = LoadController(lambda: [(Fake(), began), (Fake(), began)], lambda role: True, Budget())
        made.cpu = 0.8
        made.admit()  # the first seconds of a session tell nothing
        await clock.sleep(SETTLED)
        with pytest.raises(CapacityError, match="late") as refused:
            made.admit()
        assert refused.value.retry_after > 0
        made.cpu = 0.5
        made.admit()

    virtual.run(main())


def test_processor_time_is_the_share_of_all_cores_since_the_last_weighing(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = [10.0]
    monkeypatch.setattr(load_controller, "_spent", lambda: spent[0])
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    async def main() -> None:
        made = LoadController(list, lambda role: True, Budget())
        for _ in range(8):
            spent[0] += load_controller.WEIGH  # one of two cores
            await looked(made, load_controller.WEIGH)
        assert made.cpu == pytest.approx(0.5, abs=0.01)

    virtual.run(main())
    monkeypatch.undo()
    assert load_controller._spent() > 0.1
