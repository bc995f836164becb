"""A model decides alerts: at most one check a second, questions first, and what is late the rules decide."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from streamsvc.answers.watch_conditions import Able
from streamsvc.answers.watch_evaluation import Alert
from streamsvc.answers.watch_model import AGE, PACE, Candidate, WatchModel
from streamsvc.answers.watch_model import LINES as LINES_SHOWN
from streamsvc.core import clock
from streamsvc.core.context import Roles
from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence
from streamsvc.timeline.lines import new_line
from streamsvc.timeline.window import Window
from tests.fakes.host import context
from tests.fakes.role import FakeRole

LINES = tuple(
    replace(new_line("picture" if n == 3 else "speech", float(n), n + 0.5, f"line {n}", None), number=n)
    for n in range(1, 13)
)


@dataclass
class Reads:
    """A window of lines, whose picture has a key."""

    lines: tuple[Any, ...] = LINES

    async def window(self, now: float) -> tuple[str, Window]:
        return "s 0", replace(Window(), lines=self.lines)

    def request(self, key: str, window: Window) -> Payload:
        raise NotImplementedError


@dataclass
class Bench:
    """A model with a script, and what was decided."""

    think: FakeRole
    decided: list[tuple[str, bool | None, float]] = field(default_factory=list)

    def start(self, *, sees: bool = True, reads: bool = True, lines: tuple[Any, ...] = LINES) -> WatchModel:
        think = self.think
        roles = Roles(think, think, think, vlm=think if sees else None, reads=reads)
        self.roles = roles
        return WatchModel(context(roles=roles), Reads(lines), self.decide)

    def decide(self, candidate: Candidate, holds: bool | None) -> None:
        self.decided.append((candidate.watch_id, holds, clock.now()))


def says(holds: Any, seconds: float = 0.1) -> FakeRole:
    return FakeRole(streams={"generate": [seconds, json.dumps({"holds": holds})]})


def candidate(watch: str = "w", *, sees: bool = False, by_rules: bool = True, ago: float = 0.0) -> Candidate:
    alert = Alert(
        "A cat is shown.", 5.0, clock.now() - ago, (Evidence(5.0, 5.0, "sight", "a cat"),), "object"
    )
    return Candidate(watch, "when a cat appears", alert, (), sees, by_rules)


async def while_running(model: WatchModel, seconds: float, *actions: Callable[[], object]) -> None:
    task = asyncio.create_task(model.run())
    for action in actions:
        action()
    await clock.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("holds", [True, False])
def test_the_model_decides_by_the_newest_lines(virtual: asyncio.Runner, holds: bool) -> None:
    async def main() -> None:
        bench = Bench(says(holds))
        model = bench.start()
        await while_running(model, 1.0, lambda: model.put(candidate()))
        assert [(watch, told) for watch, told, _ in bench.decided] == [("w", holds)]
        (asked,) = [call.payload for call in bench.think.calls]
        assert "line 12" in str(asked["items"])
        assert "line 4" not in str(asked["items"])
        assert "when a cat appears" in asked["question"]
        assert asked["aside"]

    virtual.run(main())


@pytest.mark.parametrize(("end", "shown"), [(20.0, True), (12.5, False)], ids=["open", "told already"])
def test_what_is_said_in_an_open_caption_stands_after_the_lines(
    virtual: asyncio.Runner, end: float, shown: bool
) -> None:
    async def main() -> None:
        bench = Bench(says(True))
        model = bench.start()
        said = Evidence(11.0, end, "speech", "the bridge\nis closed.")
        alert = Alert("It.", end, clock.now(), (said,), "model")
        await while_running(
            model, 1.0, lambda: model.put(Candidate("w", "it", alert, (), sees=False, by_rules=False))
        )
        (asked,) = [call.payload for call in bench.think.calls]
        texts = [item["text"] for item in asked["items"]]
        assert texts[-1] == ("[13] 0:12 said: the bridge is closed." if shown else "[12] 0:12 said: line 12")
        assert len(texts) == LINES_SHOWN

    virtual.run(main())


def test_there_is_one_check_a_second(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        bench = Bench(says(True))
        model = bench.start()
        await while_running(model, 3.0, *(lambda w=w: model.put(candidate(w)) for w in ("a", "b")))
        first, second = (call.at for call in bench.think.calls)
        assert second - first >= PACE
        assert [watch for watch, *_ in bench.decided] == ["a", "b"]

    virtual.run(main())


@pytest.mark.parametrize(
    "think",
    [
        says(True, seconds=10.0),
        FakeRole(streams={"generate": [WorkerError("dead")]}),
        FakeRole(streams={"generate": ["maybe"]}),
        FakeRole(streams={"generate": ['{"answer": true}']}),
        FakeRole(streams={"generate": ["[" * 100_000]}),
        says("perhaps"),
    ],
    ids=["late", "dead", "no JSON", "other JSON", "deep JSON", "no answer"],
)
def test_where_the_model_does_not_tell_in_time_the_rules_decide(
    virtual: asyncio.Runner, think: FakeRole
) -> None:
    async def main() -> None:
        bench = Bench(think)
        model = bench.start()
        began = clock.now()
        await while_running(model, 5.0, lambda: model.put(candidate()))
        ((_, holds, at),) = bench.decided
        assert holds is None
        assert at - began <= AGE + 0.01

    virtual.run(main())


def test_each_watch_has_its_turn_and_alerts_of_the_rules_go_first(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        bench = Bench(says(True))
        model = bench.start()
        task = asyncio.create_task(model.run())
        for _ in range(12):
            for watch in "abcd":
                model.put(candidate(watch, by_rules=False))
            await clock.sleep(0.5)
        model.put(candidate("r"))
        await clock.sleep(2.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        told = [watch for watch, holds, _ in bench.decided if holds]
        assert {"a", "b", "c", "d"} <= set(told[:5])
        assert "r" in told

    virtual.run(main())


def test_at_the_end_the_rules_decide_what_waits_and_what_is_being_asked(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        bench = Bench(says(True, seconds=1.0))
        model = bench.start()
        puts = [lambda w=w: model.put(candidate(w)) for w in ("a", "b", "removed")]
        await while_running(model, 0.2, *puts, lambda: model.forget("removed"))
        assert [(watch, holds) for watch, holds, _ in bench.decided] == [("a", None), ("b", None)]

    virtual.run(main())


def test_a_question_goes_first(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        bench = Bench(says(True))
        model = bench.start()
        with bench.roles.idle.question():
            await while_running(model, AGE + 0.5, lambda: model.put(candidate()))
        assert bench.think.calls == []
        assert [holds for _, holds, _ in bench.decided] == [None]

    virtual.run(main())


def test_one_candidate_waits_per_watch(virtual: asyncio.Runner) -> None:
    """A newer one takes the place of one that only the model can find, and never of one by the rules."""

    async def main() -> None:
        bench = Bench(says(True))
        model = bench.start()
        old, new = candidate(by_rules=False, ago=1.0), candidate(by_rules=False)
        rules = candidate("r")
        puts = [lambda c=c: model.put(c) for c in (old, new, rules, candidate("r", by_rules=False))]
        kept: list[Candidate] = []
        model._decide = lambda decided, holds: kept.append(decided)
        await while_running(model, 4.0, *puts)
        assert kept == [new, rules] or kept == [rules, new]

    virtual.run(main())


def test_a_condition_of_pictures_needs_one(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        bench = Bench(says(True))
        model = bench.start()
        await while_running(model, 1.0, lambda: model.put(candidate(sees=True)))
        assert [holds for _, holds, _ in bench.decided] == [None]
        assert bench.think.calls == [], "none of the newest lines has a picture"
        shown = (*LINES[:-1], replace(LINES[-1], picture="key"))
        seeing = Bench(says(True))
        model = seeing.start(lines=shown)
        await while_running(model, 1.0, lambda: model.put(candidate(sees=True)))
        assert [holds for _, holds, _ in seeing.decided] == [True]
        blind = Bench(says(True))
        model = blind.start(lines=shown)
        await while_running(model, 1.0, lambda: model.put(candidate()))
        assert "key" not in str(blind.think.calls[0].payload["items"]), (
            "who asks of words is not sent pictures"
        )

    virtual.run(main())


def test_what_the_model_can_tell_is_known() -> None:
    async def main() -> None:
        think = says(True)
        assert WatchModel(
            context(roles=Roles(think, think, think, vlm=think, reads=True)), None, print
        ).able == (Able())
        assert Bench(think).start(sees=False).able == Able(reads=True)
        assert Bench(think).start(reads=False).able == Able(sees=True)

    asyncio.run(main())
