"""A worker on Ray is a worker to all behind it: calls, streams, errors, silence; its bridge is a fake."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.core.idle_gate import IdleGate
from streamsvc.workers import supervisor
from streamsvc.workers.ray_worker import RayWorker
from tests.fakes.ray_replicas import FakeRayWorker

ROLES = {"test": "no.such.engine"}


@contextlib.asynccontextmanager
async def running(worker: RayWorker | None = None) -> AsyncIterator[RayWorker]:
    worker = worker or FakeRayWorker("test", ROLES, "auto")
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.02)


async def test_a_call_carries_values_arrays_affinity_and_what_is_left_of_the_deadline() -> None:
    async with running() as worker:
        await worker.wait_ready()
        role = worker.role("test")
        samples = np.arange(80_000, dtype=np.float32)
        result = await role.call(
            "echo", {"text": "hallo", "samples": samples}, deadline_in_s=20, affinity="s1"
        )
        assert (result["text"], result["affinity"], result["idle"]) == ("hallo", "s1", False)
        assert np.array_equal(result["samples"], samples)
        assert 10 < result["deadline_in_s"] <= 20
        async with IdleGate().background(1.0):
            assert (await role.call("echo", {}, deadline_in_s=20))["idle"]
        assert worker.fresh
        assert worker.cost < 1


async def test_a_stream_comes_in_order_and_leaving_it_cancels_the_work() -> None:
    async with running() as worker:
        role = worker.role("test")
        assert [item["n"] async for item in role.stream("count", {"to": 6}, deadline_in_s=20)] == [*range(6)]
        stream = role.stream("count", {"to": 10_000_000, "pause": 0.01}, deadline_in_s=20)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            assert (await anext(stream))["n"] == 0
        assert [item["n"] async for item in role.stream("count", {"to": 2}, deadline_in_s=20)] == [0, 1]


async def test_errors_reach_the_caller_and_a_foreign_one_without_its_text() -> None:
    async with running() as worker:
        await worker.wait_ready()
        role = worker.role("test")
        with pytest.raises(CapacityError) as full:
            await role.call("refuse", {}, deadline_in_s=20)
        assert full.value.retry_after == 3.0
        with pytest.raises(WorkerError, match="ValueError") as failed:
            await role.call("break", {}, deadline_in_s=20)
        assert "secret" not in str(failed.value)
        with pytest.raises(DeadlineMissed):
            await role.call("sleep", {"seconds": 30}, deadline_in_s=0.2)


async def test_while_no_replica_answers_the_worker_is_silent_and_its_process_lives() -> None:
    async with running() as worker:
        await worker.wait_ready()
        role, pid = worker.role("test"), worker.pid
        assert not worker.silent
        await role.call("away", {"seconds": supervisor.FREEZE_SECONDS + 1.5}, deadline_in_s=20)
        await _until(lambda: worker.silent)
        assert worker.ready
        assert not worker.fresh
        await _until(lambda: not worker.silent)
        assert worker.pid == pid, "a bridge is not killed for what its cluster does"


async def test_the_socket_of_a_bridge_is_of_this_user_alone() -> None:
    async with running() as worker:
        await worker.wait_ready()
        assert worker._writer is not None
        socket = Path(worker._writer.get_extra_info("peername"))
        assert (await asyncio.to_thread(socket.stat)).st_mode & 0o777 == 0o600


async def test_a_bridge_that_dies_fails_its_requests_and_is_started_again() -> None:
    async with running() as worker:
        await worker.wait_ready()
        role, pid = worker.role("test"), worker.pid
        assert pid is not None
        request = asyncio.create_task(role.call("sleep", {"seconds": 20}, deadline_in_s=30))
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="died"):
            await request
        assert (await role.call("echo", {}, deadline_in_s=30))["sent"] == 1


async def test_without_a_cluster_the_reason_is_told() -> None:
    async with running(RayWorker("test", ROLES, "127.0.0.1:1")) as worker:
        with pytest.raises(WorkerError, match=r"no Ray cluster is found at 127\.0\.0\.1:1|cluster. is not"):
            await worker.wait_ready()
