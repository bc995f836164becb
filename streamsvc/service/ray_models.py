"""The models of these settings as deployments of Ray Serve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from streamsvc.core import config
from streamsvc.core.config import Settings
from streamsvc.core.errors import ConfigError, ModelMissing
from streamsvc.service.engine_table import jobs_of, think_model, wrong_models
from streamsvc.workers import ray_deployment
from streamsvc.workers.process import Job
from streamsvc.workers.ray_deployment import LOCAL, Scale

if TYPE_CHECKING:
    from ray.serve import Application


def application(args: Mapping[str, str]) -> Application:
    """One worker's models, as `deploy/ray/serve.yaml` names them: built on the cluster's machines.

    Args:
        args: "worker": hear, see, think or sight; "config": a TOML file of settings, besides the environment.

    Raises:
        ConfigError: these settings have no such worker.
    """
    settings = config.read(Path(args["config"]) if "config" in args else None)
    jobs = jobs_of(settings, think_model(settings))
    worker = args.get("worker", "")
    if worker not in jobs:
        raise ConfigError(f'args of an application: "worker" is one of {", ".join(jobs)}, not {worker!r}')
    return ray_deployment.application(jobs[worker], scale_of(settings, jobs[worker]))


def scale_of(settings: Settings, job: Job) -> Scale:
    """How many replicas a worker's models have, and what Ray reserves for each."""
    workers = settings.workers
    return Scale(
        workers.replicas,
        workers.max_replicas,
        workers.replica_requests,
        workers.replica_cores,
        workers.replica_gpus if job.options.get("device") == "cuda" else 0.0,
    )


def deploy(settings: Settings, address: str, only: Collection[str] = ()) -> list[str]:
    """Deploy the models of these settings, and wait until they serve; returns the workers.

    Blocks for as long as they load. This process stays connected until `ray_deployment.disconnect`.

    Args:
        settings: of the nodes too: the models must be the same.
        address: of the cluster, or "local": one is started here, and nothing of this machine is reserved.
        only: these workers; empty: all.

    Raises:
        ModelMissing: with "local", weights are missing here.
        StreamsvcError: no cluster is there, or the models cannot be loaded.
    """
    jobs = jobs_of(settings, think_model(settings))
    if unknown := sorted(set(only) - set(jobs)):
        raise ConfigError(f"no worker {', '.join(unknown)}: these settings have {', '.join(jobs)}")
    jobs = {name: job for name, job in jobs.items() if not only or name in only}
    scales = {name: scale_of(settings, job) for name, job in jobs.items()}
    if address == LOCAL:
        if wrong := wrong_models(settings, jobs):
            raise ModelMissing(" ".join(wrong.values()))
        scales = {
            name: Scale(scale.least, scale.most, scale.requests, cores=0.0) for name, scale in scales.items()
        }
    ray_deployment.connect(address)
    ray_deployment.deploy(jobs, scales)
    return list(jobs)
