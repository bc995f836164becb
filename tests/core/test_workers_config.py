"""Settings of where the models run are checked."""

from __future__ import annotations

import pytest

from streamsvc.core import config
from streamsvc.core.config import Workers
from streamsvc.core.errors import ConfigError


def test_the_models_run_in_processes_unless_asked_for() -> None:
    assert config.load().workers == Workers(transport="process", address="auto", replicas=1)


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_replicas is less than replicas"):
        config.load(workers={"replicas": 3, "max_replicas": 2})


def test_on_ray_the_model_that_answers_is_named() -> None:
    with pytest.raises(ConfigError, match=r'workers.transport "ray" needs think.model'):
        config.load(workers={"transport": "ray"})
    named = config.load(workers={"transport": "ray"}, think={"model": "smollm2-135m-instruct"})
    assert named.workers.transport == "ray"
    remote = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    assert config.load(workers={"transport": "ray"}, models={"profile": "remote"}, remote=remote)
