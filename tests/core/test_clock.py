"""Real and virtual time."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC

import pytest

from streamsvc.core import clock


def test_outside_a_loop_now_is_monotonic_time() -> None:
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


async def test_inside_a_real_loop_now_is_comparable_between_threads() -> None:
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


def test_a_virtual_hour_passes_at_once_and_exactly(virtual: asyncio.Runner) -> None:
    async def main() -> float:
        start = clock.now()
        await clock.sleep(3600)
        return clock.now() - start

    assert virtual.run(main()) == 3600


def test_virtual_sleepers_wake_in_the_order_of_their_times(virtual: asyncio.Runner) -> None:
    woken: list[tuple[float, str]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((clock.now(), name))

    async def main() -> float:
        start = clock.now()
        await asyncio.gather(sleeper("late", 30), sleeper("early", 10), sleeper("middle", 20))
        return start

    start = virtual.run(main())
    assert [(at - start, name) for at, name in woken] == [(10, "early"), (20, "middle"), (30, "late")]


def test_a_virtual_timeout_fires_at_its_time(virtual: asyncio.Runner) -> None:
    async def main() -> float:
        start = clock.now()
        try:
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        except TimeoutError:
            return clock.now() - start
        raise AssertionError("the timeout never came")

    assert virtual.run(main()) == 5


def test_a_negative_sleep_only_yields(virtual: asyncio.Runner) -> None:
    async def main() -> float:
        start = clock.now()
        await clock.sleep(-1)
        return clock.now() - start

    assert virtual.run(main()) == 0


def test_a_jump_advances_the_time(virtual: asyncio.Runner) -> None:
    async def main() -> float:
        start = clock.now()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        loop.jump(12.5)
        return clock.now() - start

    assert virtual.run(main()) == 12.5


def test_wall_clock_times_carry_their_zone() -> None:
    assert clock.utc().tzinfo is UTC


def test_a_threadless_loop_runs_executor_functions_inline() -> None:
    async def main() -> tuple[int, bool, float]:
        start = clock.now()
        here = await asyncio.to_thread(threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return here, here == threading.get_ident(), clock.now() - start

    with asyncio.Runner(loop_factory=clock.Threadless) as runner:
        assert runner.run(main())[1:] == (True, 0.0)
