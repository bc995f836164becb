"""A replica batches, streams, drops what is cancelled, raises nothing, and is healthy while it computes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.workers import lanes, ray_replica
from streamsvc.workers.process import Job
from streamsvc.workers.ray_messages import Failure, Items, Request, Result
from streamsvc.workers.ray_replica import ModelReplica

ENGINE = {"test": "tests.fakes.worker_engine"}


@contextlib.asynccontextmanager
async def replica(name: str = "test") -> AsyncIterator[ModelReplica]:
    made = ModelReplica(Job(name, ENGINE, {}, 0))
    try:
        yield made
    finally:
        made.close()


def request(op: str, payload: dict[str, Any] | None = None, seconds: float = 30.0) -> Request:
    return Request("test", op, payload or {}, seconds)


async def test_waiting_calls_are_batched() -> None:
    async with replica() as one:
        first = asyncio.create_task(one.call(request("sleep", {"seconds": 0.3})))
        await asyncio.sleep(0.1)
        rest = await asyncio.gather(*(one.call(request("sleep", {"seconds": 0.0})) for _ in range(4)))
        results = [await first, *rest]
        assert [result.batch for result in results if isinstance(result, Result)] == [1, 4, 4, 4, 4]


async def test_a_failure_is_a_value_without_the_text_of_a_foreign_error() -> None:
    async with replica() as one:
        assert await one.call(request("fail")) == Failure("WorkerError", "the engine failed with ValueError")
        assert await one.call(request("fly")) == Failure("WorkerError", "no op test.fly in this worker")
        late = await one.call(request("echo", seconds=-1.0))
        assert late == Failure("DeadlineMissed", "the deadline passed before the work began")
        (told,) = [items async for items in one.stream(request("fly"))]
        assert told.failure == Failure("WorkerError", "no op test.fly in this worker")


async def test_a_full_lane_is_told_with_the_seconds_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "QUEUED", 1)
    async with replica() as one:
        calls = [asyncio.create_task(one.call(request("sleep", {"seconds": 0.2}))) for _ in range(8)]
        failed = [result for result in await asyncio.gather(*calls) if isinstance(result, Failure)]
        assert {(told.kind, told.retry_after) for told in failed} == {("CapacityError", 5.0)}


async def test_a_stream_comes_whole_and_in_order_in_as_many_pieces_as_it_is_read_in() -> None:
    async with replica() as one:
        pieces = [items async for items in one.stream(request("count", {"to": 50}))]
        assert [payload["n"] for items in pieces for payload in items.payloads] == list(range(50))
        assert all(items.failure is None for items in pieces)


async def test_what_waits_unread_comes_at_once_and_too_much_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with replica() as one:
        stream = one.stream(request("count", {"to": 50}))
        first = await anext(stream)
        await asyncio.sleep(0.2)  # all is there
        rest = await anext(stream)
        assert len(first.payloads) + len(rest.payloads) == 50
        monkeypatch.setattr(ray_replica, "UNREAD_ITEMS", 4)
        stream = one.stream(request("count", {"to": 10_000_000, "pause": 0.001}))
        await anext(stream)
        await asyncio.sleep(0.2)
        ended = [items async for items in stream]
        assert ended == [Items((), Failure("CapacityError", "the stream was not read in time", 5.0))]
        assert isinstance(await one.call(request("echo")), Result)


async def test_a_stream_that_is_left_early_frees_its_lane() -> None:
    async with replica() as one:
        stream = one.stream(request("count", {"to": 10_000_000, "pause": 0.01}))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        pieces = [items async for items in one.stream(request("count", {"to": 2}, seconds=5))]
        assert [payload["n"] for items in pieces for payload in items.payloads] == [0, 1]


async def test_a_cancelled_call_that_waits_is_not_begun() -> None:
    async with replica() as one:
        first = asyncio.create_task(one.call(request("sleep", {"seconds": 0.3})))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(one.call(request("sleep", {"seconds": 60.0})))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(await asyncio.wait_for(one.call(request("sleep", {"seconds": 0})), 5), Result)


async def test_the_health_check_computes_where_no_result_came_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica() as one:
        monkeypatch.setattr(ray_replica, "PROBE_SECONDS", 0.1)
        await asyncio.sleep(0.2)
        before = await one.state()
        await one.check_health()
        after = await one.state()
        assert after.result_seconds < 0.1 < before.result_seconds
        assert (after.runtimes, after.pid) == ({"test": "of a test"}, before.pid)
        await one.check_health()  # there is a result: nothing is computed
        assert (await one.state()).result_seconds >= after.result_seconds


async def test_a_probe_that_fails_or_a_batch_that_hangs_is_no_health(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica() as one:
        monkeypatch.setattr(ray_replica, "PROBE_SECONDS", -1.0)  # its deadline has passed
        with pytest.raises(WorkerError, match="the tiny request of test failed: DeadlineMissed"):
            await one.check_health()
    monkeypatch.setattr(lanes, "HANG_SECONDS", 0.05)
    async with replica() as one, replica("sight") as patient:
        for each in (one, patient):
            asyncio.get_running_loop().create_task(each.call(request("sleep", {"seconds": 0.4})))
        await asyncio.sleep(0.2)
        with pytest.raises(WorkerError, match="hangs"):
            await one.check_health()
        await patient.check_health()
        await asyncio.sleep(0.4)


async def test_a_probe_of_what_does_not_compute_here_is_answered() -> None:
    async with replica() as one:
        assert await one.call(Request("remote", "", {}, 1.0)) == Result({}, 1)
        assert isinstance(await one.call(request("")), Result)


def test_an_engine_that_cannot_be_loaded_is_named_without_its_text() -> None:
    with pytest.raises(ModelMissing, match=r"x\.bin"):
        ModelReplica(Job("test", ENGINE, {"missing": True}, 0))
    with pytest.raises(WorkerError, match="the engine failed with ModuleNotFoundError") as caught:
        ModelReplica(Job("test", {"test": "no.such.module"}, {}, 0))
    assert caught.value.__cause__ is None
