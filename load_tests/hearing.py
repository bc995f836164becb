"""What the measurements of hearing share: the settings on the command line, and the hear role on either clock."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load_tests.streambench_worker import NAMES
from streamsvc.core import config
from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Settings
from streamsvc.core.roles import Role
from streamsvc.evaluation.transcriber_run import local, working

ENGINE = "engines.asr"
MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what is measured: --media, --model, --hear, --live."""
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder with manifest.json (%(default)s)")
    parser.add_argument(
        "--model", default="tiny.en", help="tiny.en, base, or a name of engines/registry.toml (%(default)s)"
    )
    parser.add_argument(
        "--hear",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the group [hear] (repeatable)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="in real time, through the hear worker process; run nothing else meanwhile",
    )


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The settings that those options say; the language is English.

    Raises:
        ConfigError: there is no such setting.
    """
    hear: dict[str, Any] = dict(pair.split("=", 1) for pair in chosen.hear)
    return config.load(None, hear={"model": NAMES.get(chosen.model, chosen.model), "language": "en", **hear})


@contextlib.contextmanager
def hearing(
    settings: Settings, *, live: bool, engine: str = ENGINE
) -> Iterator[tuple[asyncio.Runner, Role, int | None]]:
    """A loop, the hear role on it, and the worker's process id.

    live: a real loop and the hear worker process, as under `serve`. Else: a clock that jumps, and the engine in this process (no id),
    whose CPU time moves the clock; so a run costs its CPU time only, and what else the machine does hardly matters.

    Raises:
        ModelMissing, WorkerError: the engine does not load.
    """
    if not live:
        role = local(settings, engine)  # before there is a loop: loading takes seconds
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            yield runner, role, None
        return
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        worker = runner.run(stack.enter_async_context(working(settings, engine)))
        try:
            yield runner, worker.role("hear"), worker.pid
        finally:
            runner.run(stack.aclose())
