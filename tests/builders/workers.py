"""A running worker process with the engine of the tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from streamsvc.workers.supervisor import Worker


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Worker]:
    process = Worker("test", {"test": "tests.fakes.worker_engine"}, options)
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
