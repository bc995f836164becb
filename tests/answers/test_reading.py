"""The model reads the window while nobody asks; a fold, a question and a failure never cost a question."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from engines.remote import Limits, Remote
from engines.remote_chat import Chat, Endpoint
from streamsvc.answers import reading
from streamsvc.answers.reading import Reading
from streamsvc.core import clock, config, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.degradation import Fidelity
from streamsvc.core.errors import InvalidRequest, WorkerError
from streamsvc.core.options import SessionOptions, VisionOptions
from streamsvc.core.roles import Payload
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.window import Window
from tests.builders.session import Models
from tests.builders.units import sight
from tests.engines.chat_server import Fake, serving, stream
from tests.fakes.host import context
from tests.fakes.role import FakeRole
from tests.fakes.vlm_role import keyframe, read, said

SENTENCE = "The ferry leaves the island at seven and brings the bread of the baker."


@dataclass
class Engine(FakeRole):
    """A think role that keeps what it has read: a token is four characters, and a call reads 64 of them.

    `takes`: seconds a call. `fails`: exceptions of the next calls.
    """

    takes: float = 0.1
    fails: list[Exception] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)  # key -> tokens read

    def __post_init__(self) -> None:
        super().__post_init__()
        self.results = {"extend": self._extend, "drop": self._drop}
        self.delay = lambda op, payload: self.takes if op == "extend" else 0.0

    def _extend(self, payload: Payload) -> Payload | Exception:
        if self.fails:
            return self.fails.pop(0)
        tokens = sum(math.ceil(len(item["text"]) / 4) for item in payload["items"])
        done = min(tokens, self.kept.get(payload["session"], 0) + 64)
        self.kept[payload["session"]] = done
        return {"left": tokens - done, "tokens": tokens}

    def _drop(self, payload: Payload) -> Payload:
        self.kept.pop(payload["session"], None)
        return {}


@dataclass
class Case:
    engine: Engine
    context: SessionContext
    timeline: Timeline
    reading: Reading

    def say(self, at: float, text: str = SENTENCE) -> None:
        self.put(said(at, text))

    def put(self, unit: Any) -> None:
        """What dispatch does with a unit."""
        self.timeline.add(unit)
        self.reading.take(unit)

    async def window(self) -> tuple[str, Window]:
        return await self.reading.window(self.timeline.latest)

    def lengths(self, key: str) -> list[int]:
        """How many lines each call of `extend` was given."""
        return [len(asked["items"]) for asked in self.engine.payloads("extend") if asked["session"] == key]


def made(engine: Engine, *, profile: str = "embedded", adapter: str | None = None, **more: Any) -> Case:
    groups: dict[str, Any] = {"models": {"profile": profile}}
    if profile == "remote":
        groups["remote"] = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    if profile == "gpu":
        groups["think"] = {"model": "tiny"}
    roles = replace(Models().roles(), think=engine)
    options = SessionOptions(vision=VisionOptions(adapter=adapter))
    host = context(roles=roles, settings=config.load(None, **groups), options=options)
    timeline = Timeline()
    return Case(engine, host, timeline, Reading(host, engine, timeline, **more))


@contextlib.asynccontextmanager
async def running(engine: Engine | None = None, **more: Any) -> AsyncIterator[Case]:
    """A session whose model reads along."""
    case = made(engine or Engine(), **more)
    task = asyncio.create_task(case.reading.run())
    try:
        yield case
    finally:
        case.reading.close()
        await asyncio.wait_for(task, 60)


def skipped() -> float:
    return float(metrics.deadline_missed.labels("reading", "skipped")._value.get())


# --- reading ---


def test_new_lines_are_read_in_small_calls_until_nothing_is_left(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running() as case:
            for n in range(10):
                case.say(10.0 * n)
            await clock.sleep(1.0)
            assert case.engine.count("extend") >= 4
            assert case.engine.completed[-1].payload["items"] == case.reading._current.window.payload()
            calls = case.engine.count("extend")
            await clock.sleep(5.0)
            assert case.engine.count("extend") == calls, "nothing is left"
            case.say(100.0)
            await clock.sleep(0.5)
            payloads = case.engine.payloads("extend")
            assert len(payloads[-1]["items"]) == 11
            assert all(
                longer["items"][: len(shorter["items"])] == shorter["items"]
                for shorter, longer in itertools.pairwise(payloads)
            )
            assert {asked["instruction"] for asked in payloads} == {reading.INSTRUCTION}
            assert {call.affinity for call in case.engine.calls} == {"s"}
            key, window = await case.window()
            assert (key, window.lines) == ("s 0", case.reading._current.window.lines)
            assert case.reading.request(key, window) == payloads[-1]

    virtual.run(main())


def test_a_question_stops_the_reading_at_once_and_until_it_is_answered(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running(Engine(takes=0.25)) as case:
            for n in range(60):
                case.say(10.0 * n)
            await clock.sleep(1.1)
            assert case.engine.in_flight["extend"] == 1, "in the middle of a call"
            with case.context.roles.idle.question():
                asked = clock.now()
                await clock.sleep(0.29)
                assert case.engine.in_flight["extend"] == 0, "given up within 0.3 s"
                before = case.engine.count("extend")
                await clock.sleep(9.0)
                assert case.engine.count("extend") == before
                assert all(call.at <= asked for call in case.engine.calls)
            await clock.sleep(1.0)
            assert case.engine.count("extend") > before, "it goes on where it was"

    virtual.run(main())


def test_nothing_is_read_at_a_level_that_stops_reading(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running() as case:
            case.context.degradation.fidelity = replace(Fidelity(), reading=False)
            case.say(0.0)
            await clock.sleep(30.0)
            assert case.engine.calls == []
            assert len((await case.window())[1].lines) == 1, "it can be asked all the same"
            case.context.degradation.fidelity = Fidelity()
            await clock.sleep(3.0)
            assert case.engine.count("extend") == 1

    virtual.run(main())


def test_a_failure_costs_the_reading_alone_and_is_tried_again_less_and_less_often(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        before = skipped()
        async with running(Engine(fails=[WorkerError("it died")] * 5)) as case:
            case.say(0.0)
            await clock.sleep(40.0)
            times = [call.at for call in case.engine.calls]
            pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
            assert pauses == [1, 2, 4, 8, 16]
            assert skipped() - before == 5
            assert (await case.window())[1].lines
            case.engine.fails = [InvalidRequest("no such op")]
            case.say(50.0)
            await clock.sleep(29.0)
            count = case.engine.count("extend")
            await clock.sleep(3.0)
            assert case.engine.count("extend") == count + 1, "what cannot succeed is tried seldom"

    virtual.run(main())


def test_what_a_session_has_read_can_be_forgotten(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running() as case:
            case.say(1.0)
            case.say(9.0)
            await clock.sleep(5.0)
            assert list(case.engine.kept) == ["s 0"]
            await case.reading.forget()
            assert case.engine.kept == {}

    virtual.run(main())


def test_an_adapter_is_told_and_keyframes_are_read_as_they_are_encoded(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        pictures: dict[float, str] = {}
        async with running(profile="gpu", adapter="medical", pictures=pictures) as case:
            case.put(keyframe(1.0))
            case.say(2.0)
            pictures[1.0] = "k"  # encoded after the last unit
            await clock.sleep(3.0)
            case.say(6.0)
            await clock.sleep(1.0)
            asked = case.engine.payloads("extend")[-1]
            assert asked["adapter"] == "medical"
            assert [item.get("picture") for item in asked["items"]] == [None, "k", None]

    virtual.run(main())


# --- folds ---


def fill(case: Case, until: int, start: int = 0) -> int:
    """Say sentences until a generation is begun; returns how many there were."""
    for n in range(start, 1000):
        case.say(10.0 * n)
        newest = case.reading._next or case.reading._current
        if newest.window.generation >= until:
            return n + 1
    raise AssertionError("no fold")


def test_a_fold_is_read_under_the_next_key_while_questions_use_the_old_window(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with running() as case:
            count = 0
            while case.reading._next is None:
                case.say(10.0 * count)
                count += 1
                await clock.sleep(0.3)
            assert 3300 <= case.reading._current.window.tokens <= 3700
            await clock.sleep(0.5)
            assert "s 1" in case.engine.kept, "it is read at once"
            key, before = await case.window()
            assert key == "s 0"
            assert before.generation == 0
            case.say(10.0 * count)
            key, old = await case.window()
            assert (key, len(old.lines)) == ("s 0", len(before.lines) + 1), "the old one still grows"
            await clock.sleep(10.0)
            key, new = await case.window()
            assert (key, new.generation) == ("s 1", 1)
            assert new.lines[-1] == old.lines[-1], "a line has one number in both"
            assert new.tokens < 0.85 * old.tokens
            assert [line.kind for line in new.lines if line not in old.lines] == ["note"]
            assert case.engine.kept.keys() == {"s 1"}, "the old key is dropped"
            read = [asked for asked in case.engine.payloads("extend") if asked["session"] == "s 1"]
            assert len(read) > 30, "in small calls"

    virtual.run(main())


def test_while_somebody_asks_no_fold_takes_its_place_and_no_key_is_dropped(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running() as case:
            count = fill(case, 1)
            await clock.sleep(2.0)
            with case.context.roles.idle.question():
                key, window = await case.window()
                await clock.sleep(60.0)
                assert await case.window() == (key, window)
                assert key == "s 0"
                for n in range(count, count + 60):
                    case.say(10.0 * n)
                assert case.reading._current.window.tokens <= reading.CEILING, "within the engine's context"
                assert case.engine.count("drop") == 0
            await clock.sleep(30.0)
            assert (await case.window())[0] != "s 0"
            assert len(case.engine.kept) == 1

    virtual.run(main())


def test_a_fold_that_fills_up_before_it_is_read_is_folded_again(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running(Engine(takes=2.0)) as case:
            fill(case, 1)
            await clock.sleep(3.0)
            fill(case, 2, 400)
            first = case.reading._next
            assert first is not None
            assert first.window.generation == 3
            await clock.sleep(200.0)
            key, window = await case.window()
            assert (key, set(case.engine.kept)) == ("s 3", {"s 3"})
            numbers = [line.number for line in window.lines]
            assert len(set(numbers)) == len(numbers)

    virtual.run(main())


# --- what a question may use ---


def test_a_question_is_given_no_more_unread_lines_than_it_can_wait_for(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running() as case:
            for _ in range(3):
                case.context.roles.cost_tracker.record("think", "prompt", 5.0, 500)  # 50 tokens in 0.5 s
            for n in range(20):
                case.say(10.0 * n)
            with case.context.roles.idle.question():
                _, first = await case.window()
                assert 1 <= len(first.lines) <= 3
                assert first.tokens <= reading.EXTEND_TOKENS
                _, second = await case.window()
                assert second.lines[: len(first.lines)] == first.lines
            await clock.sleep(30.0)
            assert len((await case.window())[1].lines) == 20

    virtual.run(main())


def test_the_estimate_of_tokens_follows_what_the_engine_counts(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running() as case:
            for n in range(30):
                case.say(10.0 * n)
            estimate = (await case.window())[1].tokens
            await clock.sleep(5.0)
            case.say(400.0)
            _, window = await case.window()
            counted = sum(math.ceil(len(line.rendered) / 4) for line in window.lines)
            assert abs(window.tokens - counted) < 0.04 * counted < abs(estimate - counted)

    virtual.run(main())


def test_a_settled_sentence_is_in_the_window_of_a_question_though_no_unit_came_since(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        case = made(Engine())
        case.say(1.0, "and then the bread")
        assert not (await case.reading.window(2.0))[1].lines
        assert [line.text for line in (await case.reading.window(9.0))[1].lines] == ["and then the bread"]

    virtual.run(main())


# --- remote ---


def test_an_endpoint_is_told_nothing_ahead_and_a_fold_is_used_at_once(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running(profile="remote") as case:
            fill(case, 1)
            await clock.sleep(10.0)
            assert case.engine.calls == []
            key, window = await case.window()
            assert (key, window.generation) == ("s 1", 1)

    virtual.run(main())


def test_the_head_of_an_endpoints_prompt_stays_the_same_from_question_to_question() -> None:
    async def heads() -> list[Payload]:
        case = made(Engine(), profile="remote")
        requests = []
        for n in range(2):
            case.say(10.0 * n)
            case.put(read(10.0 * n - 2.0, f"Slide {n}"))  # known late: it is older than what was said
            requests.append(case.reading.request(*await case.window()) | {"question": f"What of {n}?"})
        return requests

    requests = asyncio.run(heads())
    with (
        serving(Fake([stream("yes")] * 2)) as fake,
        contextlib.closing(Chat(Endpoint(fake.url))) as chat,
    ):
        engine = Remote(chat, "seer", "reader", Limits()).engine({})
        for request in requests:
            list(engine.ops["generate"].run(request))  # type: ignore[arg-type]
        first, second = (asked["messages"] for asked in fake.asked)
    assert first[0] == second[0] == {"role": "system", "content": reading.INSTRUCTION}
    head, question = first[1]["content"].split("Question: ")
    assert question == "What of 0?"
    assert head.count("\n") == 2
    assert second[1]["content"].startswith(head)
    assert second[1]["content"].count("\n") == 4


def test_reading_ends_when_it_is_closed_also_in_the_middle_of_a_pause(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        case = made(Engine(fails=[WorkerError("it died")] * 9))
        case.say(0.0)
        task = asyncio.create_task(case.reading.run())
        await clock.sleep(20.0)
        began = clock.now()
        case.reading.close()
        case.reading.close()
        await task
        assert clock.now() - began < 0.1
        assert (await case.window())[1].lines

    virtual.run(main())


# --- a model that sees, beside the one that reads ---


def test_a_model_that_sees_reads_pictures_alone_and_rests_at_the_first_level(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        keys = {10.0: "a"}
        async with running(pictures=keys, sight=True) as case:
            case.context.degradation.apply(1, "test")
            case.say(1.0)
            case.put(keyframe(10.0))
            case.put(sight(10.0, "cat"))
            case.say(20.0)
            await clock.sleep(5.0)
            assert not case.engine.payloads("extend"), "the load controller's first step stops it"
            case.context.degradation.apply(0, "")
            await clock.sleep(5.0)
            (asked,) = case.engine.payloads("extend")
            assert [item["picture"] for item in asked["items"]] == ["a"]
            assert [line.kind for line in (await case.window())[1].lines] == ["picture"]

    virtual.run(main())


def test_what_a_model_that_sees_costs_is_no_cost_of_the_one_that_reads(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with running(pictures={10.0: "a"}, sight=True) as case:
            case.put(keyframe(10.0))
            case.put(sight(10.0, "cat"))
            case.say(20.0)
            await clock.sleep(5.0)
            samples = case.context.roles.cost_tracker.costs.samples
            assert ("sight", "prompt") in samples
            assert ("think", "prompt") not in samples

    virtual.run(main())
