"""A task that is told to end has so many seconds."""

from __future__ import annotations

import asyncio

from streamsvc.core import clock
from streamsvc.service.end_limit import EndLimit


def test_a_task_that_does_not_end_is_cancelled_after_the_first_limit(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        limit = EndLimit("s")

        async def hang() -> None:
            limit.begin()
            await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await asyncio.sleep(0)
        begun = clock.now()
        limit.start(5.0)
        limit.start(500.0)
        await asyncio.wait([task])
        assert task.cancelled()
        assert clock.now() - begun == 5.0

    virtual.run(main())


def test_one_that_ends_by_itself_is_left_alone(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        for before in (True, False):
            limit = EndLimit("s")
            limit.begin()
            if before:
                limit.start(5.0)
            limit.stop()
            limit.start(5.0)
            await clock.sleep(10.0)

    virtual.run(main())
