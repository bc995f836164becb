"""Background tasks are kept until they end, and cancelled together."""

from __future__ import annotations

import asyncio
import gc

from streamsvc.core.tasks import BackgroundTasks


async def test_a_task_runs_to_its_end_though_nobody_holds_it() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    BackgroundTasks().spawn(work())
    tasks = BackgroundTasks()
    tasks.spawn(work())
    gc.collect()
    async with asyncio.timeout(5):
        await done.wait()


async def test_cancel_waits_until_all_have_ended() -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    tasks = BackgroundTasks()
    for number in range(3):
        tasks.spawn(work(number))
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(ended) == [0, 1, 2]
