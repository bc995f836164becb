"""A worker is started on demand, restarted when it dies or hangs, and its failures reach the caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.errors import CapacityError, ModelMissing, WorkerError
from streamsvc.core.idle_gate import IdleGate
from streamsvc.workers import supervisor
from streamsvc.workers.process import Job, WorkerProcess
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


async def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.02)


async def _replaced(process: Worker, pid: int) -> None:
    """Wait until another process serves."""
    await _until(lambda: process.ready and process.pid != pid)


async def test_a_frozen_worker_is_silent_at_once_and_replaced_within_seconds() -> None:
    async with running() as process:
        role = process.role("test")
        pid = (await role.call("echo", {}, deadline_in_s=30))["pid"]
        assert not process.silent
        os.kill(pid, signal.SIGSTOP)
        await _until(lambda: process.silent, supervisor.SILENT_SECONDS + 5 * supervisor.PING_SECONDS)
        assert process.ready  # it may go on yet
        assert not process.fresh
        await _replaced(process, pid)
        assert (await role.call("echo", {}, deadline_in_s=30))["pid"] != pid
        assert process.fresh


async def test_a_busy_loop_of_our_own_is_not_taken_for_a_frozen_worker() -> None:
    async with running() as process:
        pid = (await process.role("test").call("echo", {}, deadline_in_s=30))["pid"]
        time.sleep(supervisor.FREEZE_SECONDS + 0.5)  # noqa: ASYNC251 - nothing is read meanwhile
        await asyncio.sleep(0.5)
        assert process.pid == pid


def test_a_worker_that_keeps_dying_is_started_ever_more_rarely(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []

    async def start(job: Job, path: Path) -> WorkerProcess:
        starts.append(clock.now())
        raise WorkerError("it died while it loaded its models")

    monkeypatch.setattr(WorkerProcess, "start", start)

    async def main() -> None:
        process = Worker("test", {"test": "tests.fakes.worker_engine"}, {})
        task = asyncio.create_task(process.run())
        await clock.sleep(600)
        assert not process.ready
        assert process.silent
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    virtual.run(main())
    assert sum(at - starts[0] < 60 for at in starts) <= 5
    assert sum(at - starts[0] < 600 for at in starts) > 10


async def test_a_worker_that_gives_no_result_is_not_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "RESULT_SECONDS", 1.0)
    async with running() as process:
        await process.role("test").call("echo", {}, deadline_in_s=30)
        await asyncio.sleep(1.5)
        fresh = process.fresh  # by its probes
        lane = asyncio.create_task(process.role("test").call("sleep", {"seconds": 30}, deadline_in_s=40))
        monkeypatch.setattr(supervisor, "PROBE_SECONDS", 1e9)
        await asyncio.sleep(1.3)
        assert process.ready
        assert (fresh, process.fresh) == (True, False)
        lane.cancel()
        await asyncio.gather(lane, return_exceptions=True)


async def test_a_spare_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SPARE_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "STABLE_SECONDS", 0.0)
    started: list[int] = []
    start = WorkerProcess.start

    async def counted(job: Job, path: Path) -> WorkerProcess:
        started.append((process := await start(job, path)).pid)
        return process

    monkeypatch.setattr(WorkerProcess, "start", counted)
    process = Worker("test", {"test": "tests.fakes.worker_engine"}, {}, spare=True)
    task = asyncio.create_task(process.run())
    try:
        for turn in range(3):  # a spare that has died is not used
            pid = (await process.role("test").call("echo", {}, deadline_in_s=30))["pid"]
            expected = 2 + turn
            await _until(lambda: len(started) >= expected)  # noqa: B023
            assert pid != started[-1]
            if turn == 2:
                os.kill(started[-1], signal.SIGKILL)
                await asyncio.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            spare = started[-1]
            await _replaced(process, pid)
            again = (await process.role("test").call("echo", {}, deadline_in_s=30))["pid"]
            assert (again == spare) == (turn < 2)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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


async def test_a_stream_that_nobody_reads_ends_with_an_error_and_costs_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "_STREAM_ITEMS", 4)
    async with running() as process:
        stream = process.role("test").stream("count", {"to": 10_000_000}, deadline_in_s=30)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            assert (await anext(stream))["n"] == 0
            (replies,) = process._pending.values()
            await _until(lambda: not process._pending)
            assert replies.qsize() <= 4
            with pytest.raises(CapacityError, match="not read in time"):
                async for _ in stream:
                    pass
        assert [
            item["n"] async for item in process.role("test").stream("count", {"to": 2}, deadline_in_s=5)
        ] == [0, 1]
