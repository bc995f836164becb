"""The wheel: it holds the tree's files, equal sources give equal bytes, and it serves without the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import httpx
import pytest

import streamsvc

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("streamsvc", "engines", "pyproject.toml", "README.md", "LICENSE")
EPOCH = "1700000000"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def sources() -> list[str]:
    """Paths of all files of the tree that the wheel is made of."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *SOURCES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def build(folder: Path, *, at: int, umask: int) -> Path:
    """Copy the tree into `folder`, with files of another time, and build its wheel as pip does (PEP 517)."""
    tree = folder / "tree"
    for name in sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
        os.utime(tree / name, (at, at))
    ended = subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build(tmp_path_factory.mktemp("wheel"), at=1_600_000_000, umask=0o022)


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    tree = {name for name in sources() if name.startswith(("streamsvc/", "engines/"))}
    assert held == {name for name in tree if not name.endswith("README.md")}
    assert {"streamsvc/web/index.html", "engines/registry.toml", "streamsvc/answers/intents.toml"} <= held


def test_the_wheel_tells_the_version_of_the_source_and_carries_the_licence(wheel: Path) -> None:
    assert wheel.name == f"streamsvc-{streamsvc.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        info = f"streamsvc-{streamsvc.__version__}.dist-info"
        assert opened.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert f"Version: {streamsvc.__version__}\n".encode() in opened.read(f"{info}/METADATA")


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes_at_another_time_in_another_folder(
    wheel: Path, tmp_path: Path
) -> None:
    assert build(tmp_path, at=1_650_000_000, umask=0o022).read_bytes() == wheel.read_bytes()


@pytest.mark.models
def test_the_installed_wheel_serves_the_page_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=100)
    python = str(home / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run(install, check=True, env=clean, timeout=150)
    # What it needs is that of this Python: 0.9 GB are not installed again. A path in a .pth is not looked
    # through for other .pth files, so an editable install of the tree there is not seen.
    (home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "others.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages"))
    )
    where = "import streamsvc, engines; print(streamsvc.__file__, engines.__file__)"
    found = subprocess.run(
        [python, "-c", where],
        cwd=tmp_path,
        env=clean,
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert all(path.startswith(str(home)) for path in found.stdout.split()), found.stdout
    command = [str(home / "bin" / "streamsvc"), "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    with (tmp_path / "log").open("wb") as log:
        serving = subprocess.Popen(command, cwd=tmp_path, env=clean, stdout=subprocess.PIPE, stderr=log)
    try:
        assert serving.stdout is not None
        ready = serving.stdout.readline().decode()
        (address,) = re.findall(r"http://\S+:\d+", ready) or pytest.fail((tmp_path / "log").read_text())
        with httpx.Client(base_url=address, timeout=20) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.get("/readyz").status_code == 200
            page = client.get("/").text
            for path in re.findall(r'(?:src|href)="(/?web/[^"]+)"', page) or pytest.fail(page[:500]):
                assert client.get(path).status_code == 200, path
    finally:
        serving.terminate()
        serving.communicate(timeout=20)


# --- the changelog ---


def test_the_changelog_begins_with_the_version_of_the_source() -> None:
    sections = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    told = [
        re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \((unreleased|\d{4}-\d\d-\d\d)\)", section) for section in sections
    ]
    assert None not in told, sections
    versions = [tuple(int(part) for part in found.groups()[:3]) for found in told if found]
    assert ".".join(map(str, versions[0])) == streamsvc.__version__
    assert versions == sorted(set(versions), reverse=True)
    dates = [found[4] for found in told if found]
    assert "unreleased" not in dates[1:]
    days = [date.fromisoformat(day) for day in dates if day != "unreleased"]
    assert days == sorted(days, reverse=True)
