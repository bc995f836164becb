"""A worker answers, batches, misses deadlines, dies and comes back; the asker is always told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core import metrics
from streamsvc.core.errors import CapacityError, DeadlineMissed, ModelMissing, WorkerError
from streamsvc.workers import child, framing, supervisor
from streamsvc.workers.framing import pack, unpack
from streamsvc.workers.supervisor import Worker
from tests.fakes import worker_engine
from tests.fakes.local_role import LocalRole


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Worker]:
    process = Worker("test", {"test": "tests.fakes.worker_engine"}, options)
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@given(st.lists(st.integers(0, 255)), st.dictionaries(st.text(), st.text()))
def test_a_frame_comes_out_as_it_went_in(numbers: list[int], plain: dict[str, str]) -> None:
    payload: dict[str, Any] = {f"plain{key}": value for key, value in plain.items()} | {
        "a": np.array(numbers, np.uint8),
        "b": np.ones((2, 3), np.float32),
    }
    frame = pack({"id": 7, "kind": "call"}, payload)
    head, blob = framing.sizes(frame[:8])
    header, back = unpack(frame[8 : 8 + head], frame[8 + head : 8 + head + blob])
    assert header == {"id": 7, "kind": "call"}
    assert back.keys() == payload.keys()
    assert all(np.array_equal(back[key], payload[key]) for key in payload)


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(WorkerError, match="over the limit"):
        framing.sizes(b"\xff" * 8)


async def test_a_call_carries_values_and_arrays_there_and_back() -> None:
    async with running() as process:
        result = await process.role("test").call(
            "echo", {"text": "hallo", "samples": np.arange(5, dtype=np.float32)}, deadline_in_s=30
        )
        assert result["text"] == "hallo"
        assert result["samples"].tolist() == [0, 1, 2, 3, 4]
        assert result["pid"] == process.pid != os.getpid()


async def test_requests_that_wait_are_batched() -> None:
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        held = asyncio.create_task(role.call("sleep", {"seconds": 1.0}, deadline_in_s=30))
        await asyncio.sleep(0.3)  # it runs: what comes now waits behind it
        waiting = await asyncio.gather(
            *(role.call("sleep", {"seconds": 0.0}, deadline_in_s=30) for _ in range(4))
        )
        assert (await held)["batch"] == 1
        assert [result["batch"] for result in waiting] == [4, 4, 4, 4]


async def test_a_stream_yields_as_it_goes_and_can_be_left() -> None:
    async with running() as process:
        role = process.role("test")
        assert [item["n"] async for item in role.stream("count", {"to": 4}, deadline_in_s=30)] == [0, 1, 2, 3]
        stream = role.stream("count", {"to": 10_000_000, "pause": 0.01}, deadline_in_s=30)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            assert (await anext(stream))["n"] == 0
        # The lane is free again: the abandoned count was cancelled in the child.
        assert [item["n"] async for item in role.stream("count", {"to": 2}, deadline_in_s=5)] == [0, 1]


async def test_a_deadline_that_passes_is_told_and_late_work_is_not_begun() -> None:
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        blocking = asyncio.create_task(role.call("sleep", {"seconds": 0.5}, deadline_in_s=30))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineMissed):
            await role.call("sleep", {"seconds": 3.0}, deadline_in_s=0.1)
        await blocking
        assert (await role.call("sleep", {"seconds": 0.0}, deadline_in_s=2.0))["batch"] == 1


async def test_a_failing_engine_fails_the_request_and_keeps_the_text_to_itself() -> None:
    async with running() as process:
        with pytest.raises(WorkerError, match="ValueError") as caught:
            await process.role("test").call("fail", {}, deadline_in_s=30)
        assert "secret" not in str(caught.value)
        assert (await process.role("test").call("echo", {"x": 1}, deadline_in_s=5))["x"] == 1


async def test_an_op_that_is_not_there_is_an_error() -> None:
    async with running() as process:
        with pytest.raises(WorkerError, match="no op"):
            await process.role("test").call("fly", {}, deadline_in_s=30)
        with pytest.raises(ValueError, match="serves"):
            process.role("see")


async def test_a_full_queue_refuses() -> None:
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        results = await asyncio.gather(
            *(role.call("sleep", {"seconds": 0.05}, deadline_in_s=30) for _ in range(child._WAITING + 40)),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, CapacityError)]
        assert refused
        assert all(isinstance(result, dict | CapacityError) for result in results)


async def test_a_killed_worker_fails_what_was_asked_and_comes_back() -> None:
    async with running() as process:
        role = process.role("test")
        before = metrics.worker_restarts.labels("test")._value.get()
        pid = (await role.call("echo", {}, deadline_in_s=30))["pid"]
        asked = asyncio.create_task(role.call("sleep", {"seconds": 20}, deadline_in_s=30))
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="died"):
            await asked
        assert (await role.call("echo", {}, deadline_in_s=30))["pid"] != pid
        assert metrics.worker_restarts.labels("test")._value.get() == before + 1


async def test_a_worker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HANG_SECONDS", 0.5)
    monkeypatch.setattr(supervisor, "PING_SECONDS", 0.1)
    async with running() as process:
        role = process.role("test")
        pid = (await role.call("echo", {}, deadline_in_s=30))["pid"]
        with pytest.raises(WorkerError, match="died"):
            await role.call("sleep", {"seconds": 60}, deadline_in_s=30)
        assert (await role.call("echo", {}, deadline_in_s=30))["pid"] != pid


async def test_a_missing_model_is_told_by_name() -> None:
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


async def test_the_stand_in_keeps_the_same_contract() -> None:
    local = LocalRole(worker_engine.load({}))
    assert (await local.call("echo", {"x": 1}, deadline_in_s=5))["x"] == 1
    assert [item["n"] async for item in local.stream("count", {"to": 2}, deadline_in_s=5)] == [0, 1]
    with pytest.raises(DeadlineMissed):
        await local.call("sleep", {"seconds": 0.3}, deadline_in_s=0.05)
