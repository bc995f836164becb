"""A worker is started on demand, restarted when it dies or hangs, and its failures reach the caller."""

from __future__ import annotations

import asyncio
import os
import signal
import weakref

import numpy as np
import pytest

from streamsvc.core import metrics
from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.core.idle_gate import IdleGate
from streamsvc.workers import supervisor
from streamsvc.workers.supervisor import Worker
from tests.builders.workers import running


async def test_a_call_carries_values_and_arrays_both_ways() -> None:
    async with running() as process:
        result = await process.role("test").call(
            "echo", {"text": "hallo", "samples": np.arange(5, dtype=np.float32)}, deadline_in_s=30
        )
        assert result["text"] == "hallo"
        assert result["samples"].tolist() == [0, 1, 2, 3, 4]
        assert result["pid"] == process.pid != os.getpid()


async def test_a_killed_worker_fails_its_requests_and_is_restarted() -> None:
    async with running() as process:
        role = process.role("test")
        before = metrics.worker_restarts.labels("test")._value.get()
        pid = (await role.call("echo", {}, deadline_in_s=30))["pid"]
        request = asyncio.create_task(role.call("sleep", {"seconds": 20}, deadline_in_s=30))
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="died"):
            await request
        assert (await role.call("echo", {}, deadline_in_s=30))["pid"] != pid
        assert metrics.worker_restarts.labels("test")._value.get() == before + 1


async def test_a_worker_that_hangs_is_killed_and_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HANG_SECONDS", 0.5)
    monkeypatch.setattr(supervisor, "PING_SECONDS", 0.1)
    async with running() as process:
        role = process.role("test")
        pid = (await role.call("echo", {}, deadline_in_s=30))["pid"]
        with pytest.raises(WorkerError, match="died"):
            await role.call("sleep", {"seconds": 60}, deadline_in_s=30)
        assert (await role.call("echo", {}, deadline_in_s=30))["pid"] != pid


async def test_a_role_can_be_remembered_without_keeping_its_worker_alive() -> None:
    role = Worker("test", {"test": "tests.fakes.worker_engine"}, {}).role("test")
    remembered = weakref.ref(role)
    assert remembered() is role
    del role
    assert remembered() is None


async def test_a_missing_model_is_named() -> None:
    async with running(missing=True) as process:
        with pytest.raises(ModelMissing, match=r"x\.bin"):
            await process.wait_ready()
        with pytest.raises(WorkerError, match=r"x\.bin"):
            await process.role("test").call("echo", {}, deadline_in_s=0.5)


async def test_a_lazy_worker_starts_at_its_first_call() -> None:
    process = Worker("test", {"test": "tests.fakes.worker_engine"}, {}, lazy=True)
    task = asyncio.create_task(process.run())
    await asyncio.sleep(0.1)
    assert process.pid is None
    assert (await process.role("test").call("echo", {}, deadline_in_s=30))["pid"] == process.pid
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_idle_work_costs_nothing_and_other_work_its_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PING_SECONDS", 0.05)
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        await asyncio.sleep(0.8)  # what loading has cost is forgotten
        async with IdleGate().background(1.0):
            await role.call("burn", {"seconds": 1.0}, deadline_in_s=30)
        idle = process.cost
        await role.call("burn", {"seconds": 1.0}, deadline_in_s=30)
        assert idle < 0.1 < process.cost
