"""Models on a real Ray Serve on this machine: calls, streams, affinity, death, no text in its logs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from streamsvc.core.errors import CapacityError, ConfigError, DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.roles import Role
from streamsvc.workers import ray_deployment
from streamsvc.workers.ray_deployment import ReplicaLost, Replicas
from streamsvc.workers.ray_messages import Items, Request
from streamsvc.workers.ray_worker import RayWorker
from tests.builders import ray_cluster
from tests.builders.ray_cluster import ENGINE, Cluster

with_ray = [
    pytest.mark.skipif(ray_cluster.missing is not None, reason=str(ray_cluster.missing)),
    pytest.mark.slow,
    pytest.mark.timeout(300),  # on a busy machine Ray takes minutes to start
]
SECRET = "the user said something"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One cluster for all tests here; afterwards none of its processes is left."""
    with ray_cluster.running_cluster() as running:
        yield running


@contextlib.asynccontextmanager
async def worker_of(cluster: Cluster, name: str) -> AsyncIterator[tuple[RayWorker, Role]]:
    worker = RayWorker(name, {name: ENGINE}, cluster.address)
    task = asyncio.create_task(worker.run())
    try:
        await worker.wait_ready()
        yield worker, worker.role(name)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestOnRay:
    pytestmark = with_ray

    async def test_calls_streams_errors_and_deadlines_are_as_those_of_a_process(
        self, cluster: Cluster
    ) -> None:
        async with worker_of(cluster, "test") as (worker, role):
            samples = np.arange(80_000, dtype=np.float32)  # goes through shared memory
            result = await role.call("echo", {"text": SECRET, "samples": samples}, deadline_in_s=30)
            assert result["text"] == SECRET
            assert np.array_equal(result["samples"], samples)
            items = [item["n"] async for item in role.stream("count", {"to": 100}, deadline_in_s=30)]
            assert items == [*range(100)]
            with pytest.raises(WorkerError, match="the engine failed with ValueError"):
                await role.call("fail", {"text": SECRET}, deadline_in_s=30)
            with pytest.raises(DeadlineMissed):
                await role.call("sleep", {"seconds": 3.0}, deadline_in_s=0.3)
            await role.call("log", {"text": SECRET}, deadline_in_s=30)
            assert worker.fresh
            assert not worker.silent

    async def test_a_stream_that_is_left_frees_its_lane(self, cluster: Cluster) -> None:
        async with worker_of(cluster, "think") as (_, role):
            for _ in range(3):  # of one session, so at one replica, whose lane has one thread
                endless = {"to": 10_000_000, "pause": 0.01, "text": SECRET}
                stream = role.stream("count", endless, deadline_in_s=60, affinity="s")
                async with contextlib.aclosing(stream):  # type: ignore[type-var]
                    await anext(stream)
            again = role.stream("count", {"to": 2}, deadline_in_s=10, affinity="s")
            assert [item["n"] async for item in again] == [0, 1]

    async def test_a_session_stays_at_one_replica_and_sessions_use_all(self, cluster: Cluster) -> None:
        async with worker_of(cluster, "think") as (_, role):
            at: dict[str, set[int]] = {}
            for _ in range(3):
                for name in map(str, range(12)):
                    result = await role.call("echo", {}, deadline_in_s=30, affinity=name)
                    at.setdefault(name, set()).add(result["pid"])
            assert all(len(pids) == 1 for pids in at.values())
            assert len(set.union(*at.values())) == 2

    @pytest.mark.renews_processes
    async def test_a_replica_that_dies_costs_time_and_no_call(self, cluster: Cluster) -> None:
        async with worker_of(cluster, "think") as (_, role):
            pids = {}
            for name in map(str, range(12)):
                pids[name] = (await role.call("echo", {}, deadline_in_s=30, affinity=name))["pid"]
            victim = pids["0"]
            running = asyncio.create_task(
                role.call("sleep", {"seconds": 1.0}, deadline_in_s=60, affinity="0")
            )
            begun = role.stream("count", {"to": 10_000, "pause": 0.01}, deadline_in_s=60, affinity="0")
            await anext(begun)
            os.kill(victim, signal.SIGKILL)
            assert (await running)["pid"] != victim
            with pytest.raises(WorkerError) as lost:
                async for _ in begun:
                    pass
            assert lost.value.retryable
            for name, pid in pids.items():
                now = (await role.call("echo", {}, deadline_in_s=60, affinity=name))["pid"]
                assert now != victim
                assert pid == victim or now == pid, "the sessions of the other replica stay there"

    async def test_no_log_of_ray_holds_what_was_said(self, cluster: Cluster) -> None:
        async with worker_of(cluster, "test") as (_, role):
            with pytest.raises(WorkerError):
                await role.call("fail", {"text": SECRET}, deadline_in_s=30)
        written = cluster.logs()
        assert "a library logged" in written or "worker" in written  # they are the right files
        assert SECRET not in written
        assert "the user said a secret" not in written  # by worker_engine's `fail`

    async def test_what_is_not_deployed_is_named_with_the_command(self, cluster: Cluster) -> None:
        worker = RayWorker("other", {"other": ENGINE}, cluster.address)
        task = asyncio.create_task(worker.run())
        try:
            with pytest.raises(WorkerError, match=r"streamsvc-other is not deployed.*cluster serve-models"):
                await worker.wait_ready()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def test_ray_reports_nothing_and_has_no_dashboard(self, cluster: Cluster) -> None:
        told = {
            process.pid: (" ".join(process.cmdline()), process.environ()) for process in cluster.processes()
        }
        ours = [program for program, _ in told.values() if "tests.builders.ray_cluster" in program]
        rays = [(program, env) for program, env in told.values() if program not in ours]
        assert rays
        for program, env in rays:
            assert env.get("RAY_USAGE_STATS_ENABLED") == "0", program
            assert env.get("RAY_USAGE_STATS_REPORT_URL") == ray_deployment.NOWHERE, program
            assert "dashboard.py" not in program or "--disable-frontend" in program


# In a process of its own: importing Ray starts threads.
TELL_DEPLOYMENT = """
import json, sys
from streamsvc.workers import ray_deployment
from streamsvc.workers.process import Job
from streamsvc.workers.ray_deployment import NOWHERE, Scale

name = sys.argv[1]
job = Job(name, {name: "tests.fakes.worker_engine"}, {}, 0)
made = ray_deployment.application(job, Scale(2, 5, 3.0, cores=2.0, gpus=0.5))._bound_deployment
config, options = made._deployment_config, made.ray_actor_options
scaling = config.autoscaling_config
print(json.dumps({
    "scale": [scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests],
    "reserved": [options["num_cpus"], options["num_gpus"]],
    "statistics": options["runtime_env"]["env_vars"]["RAY_USAGE_STATS_ENABLED"],
    "queued": config.max_queued_requests,
    "health": [config.health_check_period_s, config.health_check_timeout_s],
    "router": str(config.request_router_config.request_router_class),
}))
"""


@pytest.mark.skipif(ray_cluster.missing is not None, reason=str(ray_cluster.missing))
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "router"), [("think", "ConsistentHashRouter"), ("hear", "PowerOfTwoChoicesRequestRouter")]
)
def test_a_deployment_has_its_scale_and_affinity_where_keys_and_values_are_kept(
    name: str, router: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TELL_DEPLOYMENT, name], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told.pop("router").endswith(router)
    assert told == {
        "scale": [2, 5, 3.0],
        "reserved": [2.0, 0.5],
        "statistics": "0",
        "queued": ray_deployment.QUEUED,
        "health": [ray_deployment.HEALTH_PERIOD, ray_deployment.HEALTH_TIMEOUT],
    }


class RayError(Exception):
    """Stands for all errors of Ray."""


class ActorDiedError(RayError): ...


class BackPressureError(RayError): ...


class Response:
    """The response of a replica: raises, or never comes."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.cancelled = 0
        self._error = error

    def __await__(self) -> Generator[Any, None, None]:
        return self._answer().__await__()

    async def _answer(self) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()

    async def __aiter__(self) -> AsyncIterator[Items]:
        yield Items(())
        await self

    def cancel(self) -> None:
        self.cancelled += 1


class Handle:
    """The handle of a deployment whose replicas give one response."""

    def __init__(self, response: Response) -> None:
        self.asked: list[dict[str, object]] = []
        self._response = response

    def options(self, **options: object) -> Handle:
        self.asked.append(options)
        return self

    def remote(self, *arguments: object) -> Response:
        return self._response


def replicas_of(monkeypatch: pytest.MonkeyPatch, handle: Handle) -> Replicas:
    """Replicas behind stand-ins of Ray's modules: importing Ray starts threads."""
    errors = {
        "RayError": RayError,
        "ActorDiedError": ActorDiedError,
        "ActorUnavailableError": ActorDiedError,
        "RayServeException": RayError,
        "BackPressureError": BackPressureError,
        "get_app_handle": lambda name: handle,
    }
    modules = {
        name: ModuleType(name) for name in ("ray", "ray.exceptions", "ray.serve", "ray.serve.exceptions")
    }
    for name, module in modules.items():
        vars(module).update(errors)
        monkeypatch.setitem(sys.modules, name, module)
    vars(modules["ray"])["serve"] = modules["ray.serve"]
    return Replicas("think")


@pytest.mark.parametrize(
    ("error", "told", "message"),
    [
        (RayError(SECRET), WorkerError, "Ray failed a request of think with RayError"),
        (ActorDiedError(SECRET), ReplicaLost, "a replica of think died"),
        (asyncio.CancelledError(SECRET), ReplicaLost, "a replica of think ended"),
        (BackPressureError(SECRET), CapacityError, "256 requests wait for a replica of think"),
    ],
)
async def test_what_ray_raises_is_told_without_its_text(
    error: BaseException, told: type[StreamsvcError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = replicas_of(monkeypatch, Handle(Response(error)))
    with pytest.raises(told) as failed:
        await replicas.call(Request("think", "echo", {}, 1.0), "s1")
    assert type(failed.value) is told
    assert failed.value.message == message


async def test_what_is_given_up_is_cancelled_at_ray_and_affinity_goes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    response = Response()
    handle = Handle(response)
    replicas = replicas_of(monkeypatch, handle)
    asked = Request("think", "count", {}, 1.0)
    call = asyncio.create_task(replicas.call(asked, "s1"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert response.cancelled == 1
    async with contextlib.aclosing(replicas.stream(asked, "s2")) as stream:
        assert await anext(stream) == Items(())
    assert response.cancelled == 2
    assert [options["session_id"] for options in handle.asked] == ["s1", "s2"]


def test_a_connection_needs_the_token_of_the_cluster_and_its_error_is_told_without_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment: dict[str, str] = {}

    def init(**options: object) -> None:
        environment.update(os.environ)
        raise RayError(SECRET)

    replicas_of(monkeypatch, Handle(Response()))
    vars(sys.modules["ray"])["init"] = init
    monkeypatch.setattr(ray_deployment, "is_installed", lambda: True)
    monkeypatch.setattr(os, "environ", {name: os.environ[name] for name in os.environ if "RAY_" not in name})
    with pytest.raises(WorkerError, match=r"no Ray cluster is found at auto \(RayError\)"):
        ray_deployment.connect("auto")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"streamsvc\[cluster\]"):
        ray_deployment.connect("auto")
