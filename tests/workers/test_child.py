"""The worker process serves, batches and streams ops, and fails single requests."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import pytest

from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.workers import lanes
from tests.builders.workers import running


async def test_queued_requests_are_batched() -> None:
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        first = asyncio.create_task(role.call("sleep", {"seconds": 1.0}, deadline_in_s=30))
        await asyncio.sleep(0.3)  # it runs; later requests are queued
        queued = await asyncio.gather(
            *(role.call("sleep", {"seconds": 0.0}, deadline_in_s=30) for _ in range(4))
        )
        assert (await first)["batch"] == 1
        assert [result["batch"] for result in queued] == [4, 4, 4, 4]


async def test_a_stream_yields_as_it_goes_and_can_be_cancelled() -> None:
    async with running() as process:
        role = process.role("test")
        assert [item["n"] async for item in role.stream("count", {"to": 4}, deadline_in_s=30)] == [0, 1, 2, 3]
        stream = role.stream("count", {"to": 10_000_000, "pause": 0.01}, deadline_in_s=30)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            assert (await anext(stream))["n"] == 0
        # The lane is free again: the abandoned count was cancelled in the child.
        assert [item["n"] async for item in role.stream("count", {"to": 2}, deadline_in_s=5)] == [0, 1]


async def test_a_missed_deadline_is_an_error_and_late_work_is_not_started() -> None:
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        blocking = asyncio.create_task(role.call("sleep", {"seconds": 0.5}, deadline_in_s=30))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineMissed):
            await role.call("sleep", {"seconds": 3.0}, deadline_in_s=0.1)
        await blocking
        assert (await role.call("sleep", {"seconds": 0.0}, deadline_in_s=2.0))["batch"] == 1


async def test_a_failing_engine_fails_the_request_without_the_text_of_its_error() -> None:
    async with running() as process:
        with pytest.raises(WorkerError, match="ValueError") as caught:
            await process.role("test").call("fail", {}, deadline_in_s=30)
        assert "secret" not in str(caught.value)
        assert (await process.role("test").call("echo", {"x": 1}, deadline_in_s=5))["x"] == 1


async def test_what_a_library_logs_in_a_worker_is_said_without_its_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with running() as worker:
        await worker.role("test").call("log", {"text": "a secret"}, deadline_in_s=60)
    printed = capfd.readouterr().err
    assert "a library logged" in printed
    assert "secret" not in printed


async def test_an_unknown_op_is_an_error() -> None:
    async with running() as process:
        with pytest.raises(WorkerError, match="no op"):
            await process.role("test").call("fly", {}, deadline_in_s=30)
        with pytest.raises(ValueError, match="serves"):
            process.role("see")


async def test_a_full_queue_refuses_requests() -> None:
    async with running() as process:
        role = process.role("test")
        await role.call("echo", {}, deadline_in_s=30)
        results = await asyncio.gather(
            *(role.call("sleep", {"seconds": 0.05}, deadline_in_s=30) for _ in range(lanes.QUEUED + 40)),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, CapacityError)]
        assert refused
        assert all(isinstance(result, dict | CapacityError) for result in results)


def test_the_child_imports_no_settings_web_server_or_media_library() -> None:
    script = "import sys, streamsvc.workers.child; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"pydantic", "aiortc", "av", "fastapi", "structlog", "prometheus_client"} & set(
        ended.stdout.split()
    )
