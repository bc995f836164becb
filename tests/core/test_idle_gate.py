"""What nobody waits for is done between questions, and gives way to them at once."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core import clock
from streamsvc.core.idle_gate import IdleGate, idle_class


async def work(gate: IdleGate, seconds: float, patience: float = 5.0) -> float:
    """Do something for some seconds in a gate; when it was done."""
    async with gate.background(patience):
        await clock.sleep(seconds)
        return clock.now()


def test_it_begins_when_no_question_is_at_work_any_more(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate, began = IdleGate(), clock.now()
        with gate.question():
            working = asyncio.create_task(work(gate, 1.0))
            await clock.sleep(2.0)
            with gate.question():  # two at once
                await clock.sleep(1.0)
            await clock.sleep(1.0)
            assert not working.done()
        assert await working - began == pytest.approx(5.0)

    virtual.run(main())


def test_a_question_that_comes_as_another_goes_keeps_it_from_beginning(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate = IdleGate()
        with gate.question():
            working = asyncio.create_task(work(gate, 0.0))
            await asyncio.sleep(0)
        with gate.question():  # before who waits has been woken
            await clock.sleep(1.0)
            assert not working.done()
        await working

    virtual.run(main())


def test_whoever_asks_ends_it_at_once_for_all_that_are_at_work(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate, began = IdleGate(), clock.now()
        working = [asyncio.create_task(work(gate, 9.0)) for _ in range(2)]
        await clock.sleep(1.0)
        with gate.question(), gate.question():
            ended = await asyncio.gather(*working, return_exceptions=True)
            assert clock.now() - began == pytest.approx(1.0)
        assert [type(error) for error in ended] == [TimeoutError, TimeoutError]
        await work(gate, 0.0)

    virtual.run(main())


def test_it_is_not_waited_for_for_ever(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate, began = IdleGate(), clock.now()
        with gate.question():
            with pytest.raises(TimeoutError):
                await work(gate, 0.0, patience=5.0)
            assert clock.now() - began == pytest.approx(5.0)

    virtual.run(main())


def test_what_runs_in_the_background_is_idle_class_and_nothing_beside_it(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate = IdleGate()
        inside = []

        async def background() -> None:
            async with gate.background(1.0):
                await clock.sleep(1.0)
                inside.append(idle_class())
            inside.append(idle_class())

        working = asyncio.create_task(background())
        await clock.sleep(0.5)
        assert not idle_class(), "another task"
        await working
        interrupted = asyncio.create_task(work(gate, 9.0))
        await clock.sleep(0.5)
        with gate.question():
            await asyncio.gather(interrupted, return_exceptions=True)
            assert not idle_class()
        assert inside == [True, False]

    virtual.run(main())
