"""The settings' models become deployments: all workers, their scale, and serve.yaml names them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamsvc.core import config
from streamsvc.core.errors import ConfigError, ModelMissing
from streamsvc.service import ray_models
from streamsvc.workers import ray_deployment
from streamsvc.workers.process import Job
from streamsvc.workers.ray_deployment import Scale
from tests.builders import ray_cluster

SERVE = Path(__file__).resolve().parents[2] / "deploy" / "ray" / "serve.yaml"
MODEL = {"model": "smollm2-135m-instruct"}


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be told Ray."""
    told: list[Any] = []

    def deploy(jobs: Mapping[str, Job], scales: Mapping[str, Scale]) -> None:
        told.append((dict(jobs), dict(scales)))

    def application(job: Job, scale: Scale) -> str:
        told.append((job, scale))
        return "built"

    monkeypatch.setattr(ray_deployment, "connect", told.append)
    monkeypatch.setattr(ray_deployment, "deploy", deploy)
    monkeypatch.setattr(ray_deployment, "application", application)
    return told


def test_all_workers_are_deployed_with_the_scale_of_the_settings(deployed: list[Any]) -> None:
    workers = {"replicas": 2, "max_replicas": 5, "replica_requests": 3.0, "replica_gpus": 0.5}
    settings = config.load(workers=workers, hear={"device": "cuda"}, think=MODEL)
    assert ray_models.deploy(settings, "10.0.0.1:6379") == ["hear", "see", "think"]
    address, (jobs, scales) = deployed
    assert address == "10.0.0.1:6379"
    assert jobs["hear"].roles == {"hear": "engines.asr"}
    assert jobs["think"].options["model"] == "smollm2-135m-instruct"
    assert scales["hear"] == Scale(2, 5, 3.0, cores=1.0, gpus=0.5)
    assert scales["see"].gpus == 0, "it computes on the CPU"


def test_only_some_workers_can_be_deployed_and_a_wrong_name_is_told(deployed: list[Any]) -> None:
    settings = config.load(think=MODEL)
    assert ray_models.deploy(settings, "auto", ["think"]) == ["think"]
    with pytest.raises(ConfigError, match="no worker ear: these settings have hear, see, think"):
        ray_models.deploy(settings, "auto", ["ear"])


def test_a_local_cluster_needs_the_weights_here_and_reserves_nothing(
    deployed: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = config.load(models={"dir": tmp_path}, think=MODEL)
    with pytest.raises(ModelMissing, match="models pull"):
        ray_models.deploy(settings, "local")
    assert deployed == []
    monkeypatch.setattr(ray_models, "wrong_models", lambda settings, workers: {})
    ray_models.deploy(settings, "local")
    assert {scale.cores for scale in deployed[1][1].values()} == {0.0}


def test_an_application_is_built_of_its_worker_and_its_file(
    deployed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "STREAMSVC_SERVER__HOST", "0.0.0.0"
    )  # of the image, on machines without the service's key
    file = tmp_path / "streamsvc.toml"
    file.write_text('[think]\nmodel = "smollm2-135m-instruct"\n[workers]\nreplicas = 3\n')
    assert ray_models.application({"worker": "hear", "config": str(file)}) == "built"
    job, scale = deployed[0]
    assert (job.name, scale.least) == ("hear", 3)
    with pytest.raises(ConfigError, match="one of hear, see, think, not ''"):
        ray_models.application({"config": str(file)})


def test_serve_yaml_names_every_worker_and_builds_it_by_our_function(deployed: list[Any]) -> None:
    told = yaml.load(SERVE.read_text(), yaml.CSafeLoader)
    names = {one["name"]: one["args"]["worker"] for one in told["applications"]}
    assert names == {ray_deployment.application_name(worker): worker for worker in ("hear", "see", "think")}
    for one in told["applications"]:
        module, _, function = one["import_path"].partition(":")
        assert (module, getattr(ray_models, function)) == (ray_models.__name__, ray_models.application)
        assert one["route_prefix"] is None
        assert ray_models.application(one["args"]) == "built"
    assert told["proxy_location"] == "Disabled"


@pytest.mark.skipif(ray_cluster.missing is not None, reason=str(ray_cluster.missing))
@pytest.mark.slow
@pytest.mark.parametrize(("name", "taken"), [("applications", True), ("application", False)])
def test_serve_yaml_is_what_ray_serve_takes(name: str, taken: bool) -> None:
    told = yaml.load(SERVE.read_text(), yaml.CSafeLoader)
    told[name] = told.pop("applications")
    check = (
        "import json, sys; from ray.serve.schema import ServeDeploySchema;"
        "ServeDeploySchema.model_validate(json.load(sys.stdin))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", check], input=json.dumps(told), capture_output=True, text=True, timeout=100
    )
    assert (ended.returncode == 0) == taken, ended.stderr
