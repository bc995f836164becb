"""Load controller: one level for all live sessions, and admission by what our own work costs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamsvc.core import clock, config, metrics
from streamsvc.core.config import Budget
from streamsvc.core.errors import CapacityError
from streamsvc.service import capacity, load_controller
from streamsvc.service.load_controller import TICK, WARMUP, LoadController, levels_of
from streamsvc.service.load_policy import FAILOVER, LIMITS, OTHERS, OUTAGES, Load, LoadState


@dataclass
class FakeSession:
    """A session whose load the test sets. `levels`: the levels and reasons applied, without repetitions."""

    now: Load = field(default_factory=Load)
    live_video: bool = False
    levels: list[tuple[int, str]] = field(default_factory=list)
    outages: list[str] = field(default_factory=list)

    def load(self, now: float) -> Load:
        return self.now

    def tell_outage(self, reason: str) -> None:
        if not self.outages or self.outages[-1] != reason:
            self.outages.append(reason)

    def apply_level(self, level: int, reason: str) -> None:
        if not self.levels or self.levels[-1][0] != level:
            self.levels.append((level, reason))


async def ticks(controller: LoadController, seconds: float) -> None:
    for _ in range(round(seconds / TICK)):
        await clock.sleep(TICK)
        controller.tick()


def test_overload_of_one_session_degrades_all_until_it_ends(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        late, fine = FakeSession(Load(backlog=1.0)), FakeSession()
        controller = LoadController(lambda: [(late, 0.0), (fine, 0.0)], lambda role: True, Budget())
        await ticks(controller, 3.0)
        assert late.levels == [(level, LIMITS["backlog"].reason) for level in (1, 2)]
        assert fine.levels == [(level, OTHERS) for level in (1, 2)]
        assert metrics.degradation_level._value.get() == 2
        late.now = Load()
        await ticks(controller, 30.0)
        assert fine.levels[-1] == (0, "")
        assert metrics.degradation_level._value.get() == 0

    virtual.run(main())


def test_the_backlog_metric_is_the_sum_of_all_sessions(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        LoadController(
            lambda: [(FakeSession(Load(backlog=0.5)), 0.0), (FakeSession(Load(backlog=0.25)), 0.0)],
            lambda role: True,
            Budget(),
        ).tick()
        assert metrics.asr_backlog._value.get() == 0.75

    virtual.run(main())


@pytest.mark.parametrize(("up", "level"), [(False, 0), (True, 1)])
@pytest.mark.parametrize(
    ("load", "role"),
    [(Load(backlog=9.0), "hear"), (Load(see_wait=9.0), "see"), (Load(think_wait=9.0), "think")],
)
def test_waits_for_a_worker_that_is_starting_do_not_count(
    virtual: asyncio.Runner, load: Load, role: str, up: bool, level: int
) -> None:
    async def main() -> None:
        controller = LoadController(
            lambda: [(FakeSession(load), 0.0)], lambda name: name != role or up, Budget()
        )
        await ticks(controller, TICK)
        assert controller.state.level == level

    virtual.run(main())


def test_with_both_settings_off_nothing_degrades_and_all_are_admitted(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        late = FakeSession(Load(backlog=9.0))
        controller = LoadController(
            lambda: [(late, -99.0)],
            lambda role: True,
            Budget(ladder=False, admission=False),
            others_cost=lambda: 99.0,
        )
        await ticks(controller, 10.0)
        assert late.levels == [(0, "")]
        controller.admit()
        assert controller.room().free["audio"] == capacity.UNBOUNDED

    virtual.run(main())


def test_a_forced_level_holds_under_any_load(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session = FakeSession()
        controller = LoadController(lambda: [(session, 0.0)], lambda role: True, Budget())
        controller.force(5)
        await ticks(controller, 60.0)
        assert session.levels == [(5, "forced")]
        controller.force(None)
        await ticks(controller, 60.0)
        assert session.levels[-1] == (0, "")
        with pytest.raises(ValueError, match="levels"):
            controller.force(8)

    virtual.run(main())


def test_only_warm_sessions_count_for_the_cost_of_one_more(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_controller, "machine_cores", lambda: 2)
    cores = [1.6]

    async def main() -> None:
        began = clock.now()
        sessions = [(FakeSession(), began), (FakeSession(), began)]
        controller = LoadController(
            lambda: sessions, lambda role: True, Budget(), others_cost=lambda: cores[0]
        )
        controller.admit()  # the first seconds of a session are not representative
        await ticks(controller, WARMUP + load_controller.COST_INTERVAL)
        with pytest.raises(CapacityError, match="late") as refused:
            controller.admit()
        assert refused.value.retry_after > 0
        cores[0] = 0.4
        await ticks(controller, load_controller.COST_INTERVAL)
        with pytest.raises(CapacityError):
            controller.admit()  # they may only be silent for a moment
        await ticks(controller, 60.0)
        controller.admit()

    virtual.run(main())


def test_nothing_that_other_programs_do_raises_a_level_or_refuses_a_session(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda *_, **__: 100.0)

    async def main() -> None:
        session = FakeSession()
        controller = LoadController(lambda: [(session, 0.0)], lambda role: True, Budget())
        running = asyncio.create_task(controller.run())
        await clock.sleep(20.0)
        session.now = Load(backlog=1.0)
        await clock.sleep(TICK)
        session.now = Load()
        await clock.sleep(20.0)
        told = [(0, ""), (1, LIMITS["backlog"].reason), (0, "")]
        assert session.levels == told, "it is lowered on a busy machine"
        controller.admit()
        running.cancel()

    virtual.run(main())


@pytest.mark.parametrize("ours", [True, False])
def test_a_late_event_loop_refuses_only_where_our_own_work_makes_it_late(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    spent = [0.0]
    monkeypatch.setattr("time.process_time", lambda: spent[0])
    plain = clock.sleep

    async def late(seconds: float) -> None:
        await plain(seconds + 0.08)
        spent[0] += 0.08 if ours else 0.001

    async def main() -> None:
        controller = LoadController(lambda: [(FakeSession(), 0.0)], lambda role: True, Budget())
        monkeypatch.setattr("streamsvc.core.clock.sleep", late)
        running = asyncio.create_task(controller.run())
        await plain(12.0)
        assert controller.room().bound_by == ("lag" if ours else "cpu")
        if ours:
            with pytest.raises(CapacityError):
                controller.admit("audio")
        else:
            controller.admit("audio")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    virtual.run(main())


def test_what_a_session_costs_is_not_learnt_from_its_beginning(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_controller, "machine_cores", lambda: 2)
    spent = [1.8]

    async def main() -> None:
        sessions = [(FakeSession(), clock.now())]
        controller = LoadController(
            lambda: sessions, lambda role: True, Budget(), others_cost=lambda: spent[0]
        )
        await ticks(controller, WARMUP - 2.0)
        spent[0] = 0.1
        await ticks(controller, 6.0)
        assert controller.room().free["audio"] >= 10, "models were loaded"

    virtual.run(main())


def test_sessions_that_are_being_answered_count_as_if_they_were_live(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        controller = LoadController(list, lambda role: True, Budget())
        alone = controller.room().free["audio_video"]
        assert controller.room(["audio_video"]).free["audio_video"] == alone - 1
        with pytest.raises(CapacityError):
            controller.admit("audio_video", ["audio_video"] * 1000)

    virtual.run(main())


def test_above_level_0_there_is_room_for_nobody_and_it_says_what_waits(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        live = [(FakeSession(Load(see_wait=9.0)), 0.0)]
        controller = LoadController(lambda: live, lambda role: True, Budget())
        await ticks(controller, 3.0)
        assert controller.room() == capacity.Room({"audio": 0, "audio_video": 0}, "see_wait")
        live.clear()
        assert controller.room().free["audio_video"] >= 1, "nobody is left to be late"

    virtual.run(main())


def test_once_nobody_is_live_the_level_is_0_and_nothing_is_remembered(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        live = [(FakeSession(Load(backlog=9.0)), 0.0)]
        controller = LoadController(lambda: live, lambda role: True, Budget())
        await ticks(controller, 20.0)
        assert controller.state.level == 7
        live.clear()
        controller.tick()
        assert controller.state == LoadState()
        assert metrics.degradation_level._value.get() == 0

    virtual.run(main())


def test_the_cost_of_this_process_is_its_cpu_time(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = [10.0]
    monkeypatch.setattr("time.process_time", lambda: spent[0])
    monkeypatch.setattr(load_controller, "machine_cores", lambda: 2)

    async def main() -> None:
        controller = LoadController(list, lambda role: True, Budget(), others_cost=lambda: 0.4)
        for _ in range(8):
            await ticks(controller, load_controller.COST_INTERVAL)
            spent[0] += load_controller.COST_INTERVAL / 2  # half a core
        assert controller.cost.cpu == pytest.approx(0.5 + 0.4, abs=0.01)

    virtual.run(main())


def test_a_change_of_level_is_logged_once_in_plain_words_and_described(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        late = FakeSession(Load(backlog=1.0))
        controller = LoadController(lambda: [(late, 0.0)], lambda role: True, Budget(), (2, 4, 6, 7))
        assert controller.describe()["level"] == 0
        with capture_logs() as logged:
            await ticks(controller, 3.0)
            told = controller.describe()
            late.now = Load()
            await ticks(controller, 60.0)
        levels = [line for line in logged if line["event"] == "degradation level changed"]
        assert [(line["before"], line["now"]) for line in levels] == [(0, 2), (2, 4), (4, 2), (2, 0)]
        assert levels[1]["message"] == told["message"]
        assert told["message"].startswith("Captions are late: this machine is busy. For now, captions come")
        assert levels[-1]["reason"] == "recovered"

    virtual.run(main())


def test_the_levels_in_use_follow_the_settings() -> None:
    assert levels_of(config.load(None)) == (2, 3, 4, 5, 6, 7)
    assert levels_of(config.load(None, see={"ocr": False}, think={"model": "none"})) == (2, 4, 6, 7)
    assert levels_of(config.load(None, think={"sees": "smolvlm-500m"})) == (1, 2, 3, 4, 5, 6, 7)
    gpu: dict[str, Any] = {"models": {"profile": "gpu"}}
    assert levels_of(config.load(None, **gpu, think={"model": "m", "scenes": True}))[0] == 1
    assert levels_of(config.load(None, **gpu, think={"model": "m"}))[0] == 2


def test_a_worker_that_does_not_answer_is_told_at_once(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session = FakeSession()
        silent: list[str] = []
        controller = LoadController(lambda: [(session, 0.0)], lambda role: True, Budget())
        running = asyncio.create_task(controller.run(lambda: silent))
        await clock.sleep(1.0)
        silent.append("hear")
        await clock.sleep(0.15)
        assert session.outages == ["", OUTAGES["hear"]]
        silent.clear()
        await clock.sleep(0.15)
        assert session.outages == ["", OUTAGES["hear"], ""]
        silent.append("redis")
        await clock.sleep(0.15)
        assert session.outages[-1] == FAILOVER
        silent.append("see")
        await clock.sleep(0.15)
        assert session.outages[-1] == OUTAGES["see"], "what is late is more urgent"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    virtual.run(main())
