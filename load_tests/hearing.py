"""Command line options and the hear role for the measurements of speech, on either clock."""

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
from streamsvc.evaluation.transcriber_run import hear_worker, local_role

ENGINE = "engines.asr"
MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options --media, --model, --hear, --live."""
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
    """The settings of these options; the language is English.

    Raises:
        ConfigError: there is no such setting.
    """
    hear: dict[str, Any] = dict(pair.split("=", 1) for pair in chosen.hear)
    return config.load(None, hear={"model": NAMES.get(chosen.model, chosen.model), "language": "en", **hear})


@contextlib.contextmanager
def hearing(
    settings: Settings, *, live: bool, engine: str = ENGINE
) -> Iterator[tuple[asyncio.Runner, Role, int | None]]:
    """An event loop, the hear role on it, and the worker's process id.

    live: a real loop and the hear worker process, as under `serve`. Otherwise a virtual clock and the engine
    in this process (id None), whose CPU time advances the clock.

    Raises:
        ModelMissing, WorkerError: the engine does not load.
    """
    if not live:
        role = local_role(settings, engine)  # before there is a loop: loading takes seconds
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            yield runner, role, None
        return
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        worker = runner.run(stack.enter_async_context(hear_worker(settings, engine)))
        try:
            yield runner, worker.role("hear"), worker.pid
        finally:
            runner.run(stack.aclose())
