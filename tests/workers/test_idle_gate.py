"""Background work runs between questions and is cancelled when one arrives."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core import clock
from streamsvc.workers.idle_gate import IdleGate


async def work(gate: IdleGate, seconds: float, patience: float = 5.0) -> float:
    """Run background work for some seconds; returns when it was done."""
    async with gate.while_idle(patience):
        await clock.sleep(seconds)
        return clock.now()


def test_background_work_starts_when_no_question_is_in_flight(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate, began = IdleGate(), clock.now()
        with gate.question_in_flight():
            working = asyncio.create_task(work(gate, 1.0))
            await clock.sleep(2.0)
            with gate.question_in_flight():  # two at once
                await clock.sleep(1.0)
            await clock.sleep(1.0)
            assert not working.done()
        assert await working - began == pytest.approx(5.0)

    virtual.run(main())


def test_a_question_that_arrives_as_another_ends_keeps_the_work_waiting(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate = IdleGate()
        with gate.question_in_flight():
            working = asyncio.create_task(work(gate, 0.0))
            await asyncio.sleep(0)
        with gate.question_in_flight():  # before the waiter has been woken
            await clock.sleep(1.0)
            assert not working.done()
        await working

    virtual.run(main())


def test_a_question_cancels_all_running_work_at_once(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate, began = IdleGate(), clock.now()
        working = [asyncio.create_task(work(gate, 9.0)) for _ in range(2)]
        await clock.sleep(1.0)
        with gate.question_in_flight(), gate.question_in_flight():
            ended = await asyncio.gather(*working, return_exceptions=True)
            assert clock.now() - began == pytest.approx(1.0)
        assert [type(error) for error in ended] == [TimeoutError, TimeoutError]
        await work(gate, 0.0)

    virtual.run(main())


def test_the_wait_is_bounded(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        gate, began = IdleGate(), clock.now()
        with gate.question_in_flight():
            with pytest.raises(TimeoutError):
                await work(gate, 0.0, patience=5.0)
            assert clock.now() - began == pytest.approx(5.0)

    virtual.run(main())
