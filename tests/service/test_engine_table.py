"""Each profile has an engine for each role, and each engine is a module of ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.config import load
from streamsvc.service.engine_table import (
    ENGINES,
    NICENESS,
    ThinkModel,
    engines_of,
    machine_cores,
    think_model,
    vision_runtime,
    wrong_models,
)


@pytest.mark.parametrize("profile", ["embedded", "gpu", "remote"])
def test_every_profile_names_an_existing_engine_for_every_role(profile: str) -> None:
    workers = ENGINES[profile]
    assert {role for roles in workers.values() for role in roles} == {"hear", "see", "think", "embed"}
    assert all(importlib.util.find_spec(engine) for roles in workers.values() for engine in roles.values())
    assert {*workers, "sight"} == set(NICENESS)


def test_a_model_that_sees_has_a_worker_of_its_own_which_gives_way_to_all_others(tmp_path: Path) -> None:
    settings = load(models={"dir": tmp_path}, think={"sees": "smolvlm-500m"})
    assert engines_of(settings) == {**ENGINES["embedded"], "sight": {"sight": "engines.sight"}}
    assert importlib.util.find_spec("engines.sight")
    assert max(NICENESS, key=lambda worker: NICENESS[worker]) == "sight"
    assert list(wrong_models(settings, ("sight",))) == ["smolvlm-500m"]
    assert engines_of(load()) == ENGINES["embedded"]
    remote = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    elsewhere = load(models={"profile": "remote"}, remote=remote, think={"sees": "smolvlm-500m"})
    assert engines_of(elsewhere) == ENGINES["remote"]


def test_speech_has_the_highest_priority() -> None:
    assert min(NICENESS, key=lambda worker: NICENESS[worker]) == "hear"


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ({}, ThinkModel("smollm2-135m-instruct", reads=False, sees=False)),
        ({"think": {"model": "qwen3-1.7b"}}, ThinkModel("qwen3-1.7b", reads=True, sees=False)),
        ({"think": {"model": "my-own"}}, ThinkModel("my-own", reads=True, sees=False)),
        (
            {"models": {"profile": "gpu"}, "think": {"model": "qwen2-vl"}},
            ThinkModel("qwen2-vl", reads=True, sees=True),
        ),
        (
            {"models": {"profile": "remote"}, "remote": {"url": "http://127.0.0.1:1/v1", "model": "m"}},
            ThinkModel("m", reads=True, sees=True),
        ),
    ],
)
def test_the_settings_tell_whether_the_model_reads_and_sees(
    tmp_path: Path, groups: dict[str, Any], found: ThinkModel
) -> None:
    settings = load(**{**groups, "models": {"dir": tmp_path, **groups.get("models", {})}})
    assert think_model(settings) == found


def test_the_models_that_the_settings_need_are_checked_and_no_others(tmp_path: Path) -> None:
    groups: dict[str, Any] = {"models": {"dir": tmp_path}}
    see = ["efficientnet-lite3", "ssd-mobilenet-v2-coco", "e5-small-v2", "ms-marco-minilm-l12-v2"]
    assert list(wrong_models(load(**groups))) == ["whisper-tiny.en", *see, "smollm2-135m-instruct"]
    chosen = load(**groups, hear={"model": "whisper-base"}, think={"model": "my-own"})
    assert list(wrong_models(chosen)) == ["whisper-base", *see]
    assert list(wrong_models(chosen, ("hear",))) == ["whisper-base"]
    remote = {"url": "http://127.0.0.1:1/v1", "model": "whisper-tiny.en"}
    chosen = load(models={"dir": tmp_path, "profile": "remote"}, remote=remote)
    assert wrong_models(chosen, ("think",)) == {}


def test_the_vision_runtime_is_not_known_before_it_is_measured(tmp_path: Path) -> None:
    assert vision_runtime(load(models={"dir": tmp_path})) == ""


@pytest.mark.models
def test_the_vision_runtime_is_the_one_that_serves() -> None:
    importlib.import_module("engines.prepare").prepare(load().models.dir / "models")
    assert vision_runtime(load()).startswith(("tensorrt", "openvino", "onnxruntime"))


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert machine_cores() == 1
