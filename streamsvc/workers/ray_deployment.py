"""Ray Serve: the connection to a cluster, the deployments of models, and calls of their replicas.

The only file that imports Ray (extra "cluster"), in functions, so that nothing else loads it. Each worker
(hear, see, think, sight) is an application with one deployment. Ray reports nothing to its makers, starts no
dashboard and no HTTP proxy of its own.

Affinity: deployments of workers that keep a session's keys and values (AFFINE) choose the replica by a
consistent hash of the session (Ray's ConsistentHashRouter): all nodes choose the same one, and where replicas
come or go only their sessions move. The others choose the less busy one of two.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamsvc.core.errors import CapacityError, ConfigError, StreamsvcError, WorkerError
from streamsvc.workers.framing import error_from
from streamsvc.workers.process import ENVIRONMENT, Job
from streamsvc.workers.ray_messages import Failure, Items, ReplicaState, Request, Result
from streamsvc.workers.ray_replica import ModelReplica

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

LOCAL = "local"
NOWHERE = "http://127.0.0.1:9"  # Ray 2.60 reports to its makers even that it shall report nothing
# Of every process that we start or connect: no usage statistics, no lower priority than other processes.
# The router of a handle runs in the loop of its caller, which saves two changes of threads a call.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": NOWHERE,
    "RAY_worker_niceness": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
AFFINE = {"think", "sight"}
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
CONNECT_SECONDS = 5.0  # that the head of a cluster has to take a connection
LOGS = {"log_level": "WARNING", "enable_access_log": False}
ONGOING = 64  # requests at a replica at once, as its lanes hold
QUEUED = 256  # requests of a node that wait for a replica; more are refused with CapacityError
HEALTH_PERIOD = 1.0  # seconds between health checks of a replica
HEALTH_TIMEOUT = 6.0  # seconds that one may take; three that fail replace the replica
SHUTDOWN_SECONDS = 5.0  # that a replica which is no longer wanted may finish its requests in


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas a deployment has.

    Between `least` and `most`, so that on average `requests` are at each one, waiting or running. Ray
    reserves `cores` and `gpus` for each.
    """

    least: int = 1
    most: int = 1
    requests: float = 2.0
    cores: float = 1.0
    gpus: float = 0.0


def application_name(worker: str) -> str:
    """The name of the application of a worker's models."""
    return f"streamsvc-{worker}"


def is_installed() -> bool:
    """Whether the extra "cluster" is installed."""
    return importlib.util.find_spec("ray") is not None


def connect(address: str) -> None:
    """Connect this process to a Ray cluster, or with "local" start one, which ends with this process.

    Blocks for seconds.

    Raises:
        ConfigError: Ray is not installed.
        WorkerError: no cluster is found there.
    """
    if not is_installed():
        raise ConfigError("workers.transport ray needs the extra: pip install 'streamsvc[cluster]'")
    _check_reachable(address)
    os.environ.update(RAY_ENVIRONMENT)
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # else Ray takes the connection of anybody
    import ray

    local = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, namespace="streamsvc", log_to_driver=False, logging_level="ERROR", **local)
    except Exception as error:  # of many classes, with texts of many lines
        raise WorkerError(f"no Ray cluster is found at {address} ({type(error).__name__})") from None


def _check_reachable(address: str) -> None:
    """Raise WorkerError where nothing listens: Ray would wait for minutes, and say so again and again."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # Ray finds the cluster of this machine by itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise WorkerError(f"no Ray cluster is found at {address} ({type(error).__name__})") from None


def address() -> str:
    """Where the connected cluster is, as `workers.address` takes it."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def disconnect() -> None:
    """End the connection, if there is one; a cluster that was started with "local" ends too."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


def application(job: Job, scale: Scale) -> Application:
    """The Ray Serve application of a worker's models."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, RequestRouterConfig

    environment = {**ENVIRONMENT, **RAY_ENVIRONMENT, "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}
    deployment = serve.deployment(
        ModelReplica,
        name=job.name,
        max_ongoing_requests=ONGOING,
        max_queued_requests=QUEUED,
        autoscaling_config=AutoscalingConfig(
            min_replicas=scale.least,
            max_replicas=scale.most,
            target_ongoing_requests=scale.requests,
            upscale_delay_s=5.0,
            downscale_delay_s=300.0,
            look_back_period_s=15.0,
        ),
        ray_actor_options={
            "num_cpus": scale.cores,
            "num_gpus": scale.gpus,
            "runtime_env": {"env_vars": environment},
        },
        health_check_period_s=HEALTH_PERIOD,
        health_check_timeout_s=HEALTH_TIMEOUT,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=SHUTDOWN_SECONDS,
        logging_config=LOGS,
        request_router_config=RequestRouterConfig(
            **({"request_router_class": ROUTER} if job.name in AFFINE else {})
        ),
    )
    return deployment.bind(job)


def deploy(jobs: Mapping[str, Job], scale: Mapping[str, Scale]) -> None:
    """Deploy the models of all workers, and wait until each has its least number of replicas.

    They stay when this process ends. Replicas that run already are replaced one after the other.

    Raises:
        WorkerError: a model cannot be loaded; its replicas' logs say why.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=LOGS)
    try:
        serve.run_many(
            [
                serve.RunTarget(application(job, scale[name]), name=application_name(name), route_prefix=None)
                for name, job in jobs.items()
            ]
        )
    except Exception as error:  # RuntimeError, whose text holds the traceback of a replica
        raise WorkerError(
            f"the models cannot be deployed ({type(error).__name__}); see `serve status`"
        ) from None


class ReplicaLost(WorkerError):
    """A replica died, or cannot be reached, before it had told all of a result."""


class Replicas:
    """The replicas of one worker's models, of which each request gets one. Made in the event loop that calls.

    Raises:
        WorkerError: the models are not deployed.
    """

    def __init__(self, worker: str) -> None:
        from ray import serve

        try:
            handle = serve.get_app_handle(application_name(worker))
        except Exception as error:  # RayServeException, and what the controller's end raises
            raise WorkerError(
                f"{application_name(worker)} is not deployed ({type(error).__name__}):"
                " run `streamsvc cluster serve-models`"
            ) from None
        self._worker = worker
        self._handle: DeploymentHandle[ModelReplica] = handle

    async def call(self, request: Request, affinity: str) -> Result:
        """Run one op at a replica. Cancelling it cancels the work.

        Raises:
            StreamsvcError: what the replica says, CapacityError, or ReplicaLost.
        """
        result = await self._answer("call", affinity, request)
        if isinstance(result, Failure):
            raise _error(result)
        assert isinstance(result, Result)
        return result

    async def stream(self, request: Request, affinity: str) -> AsyncGenerator[Items, None]:
        """Run one op that yields at a replica. Raises as `call`; closing it early cancels the work."""
        response: Any = self._handle.options(method_name="stream", stream=True, session_id=affinity).remote(
            request
        )
        ended = False
        try:
            with _as_ours(self._worker):
                async for items in response:
                    yield items
                    if items.failure is not None:
                        raise _error(items.failure)
            ended = True
        finally:
            if not ended:
                _cancel(response)

    async def state(self) -> ReplicaState:
        """What one of the replicas tells of itself. Raises StreamsvcError."""
        state = await self._answer("state", "")
        assert isinstance(state, ReplicaState)
        return state

    async def _answer(self, method: str, affinity: str, *arguments: object) -> object:
        response: Any = self._handle.options(method_name=method, session_id=affinity).remote(*arguments)
        try:
            with _as_ours(self._worker):
                return await response
        except BaseException:
            _cancel(response)
            raise


def _cancel(response: Any) -> None:
    with contextlib.suppress(Exception):  # it has ended, well or not
        response.cancel()


def _error(failed: Failure) -> StreamsvcError:
    return error_from({"class": failed.kind, "message": failed.message, "retry_after": failed.retry_after})


@contextlib.contextmanager
def _as_ours(worker: str) -> Iterator[None]:
    """Raise what Ray raises as ours, without its text, which holds tracebacks."""
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
    from ray.serve.exceptions import BackPressureError, RayServeException

    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ReplicaLost(f"a replica of {worker} ended") from None  # it was Ray that cancelled the request
    except (ActorDiedError, ActorUnavailableError):
        raise ReplicaLost(f"a replica of {worker} died") from None
    except BackPressureError:
        raise CapacityError(f"{QUEUED} requests wait for a replica of {worker}") from None
    except (RayError, RayServeException) as error:
        raise WorkerError(f"Ray failed a request of {worker} with {type(error).__name__}") from None
