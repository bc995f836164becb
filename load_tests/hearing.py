"""What the measurements of hearing share: the settings on the command line, the hear role on either clock, and offline decoding."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from load_tests.streambench_worker import NAMES
from streamsvc import config
from streamsvc.clock import VirtualLoop
from streamsvc.config import Settings
from streamsvc.recording import Samples
from streamsvc.score import norm
from streamsvc.trial import Timed
from streamsvc.worker import Role, Worker

ENGINE = "engines.asr"
MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what is measured: --media, --model, --hear, --live."""
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder with manifest.json (%(default)s)")
    parser.add_argument("--model", default="tiny.en", help="tiny.en, base, or a name of engines/registry.toml (%(default)s)")
    parser.add_argument("--hear", action="append", default=[], metavar="KEY=VALUE", help="a setting of the group [hear] (repeatable)")
    parser.add_argument("--live", action="store_true", help="in real time, through the hear worker process; run nothing else meanwhile")


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The settings that those options say; the language is English.

    Raises:
        ConfigError: there is no such setting.
    """
    hear: dict[str, Any] = dict(pair.split("=", 1) for pair in chosen.hear)
    return config.load(None, hear={"model": NAMES.get(chosen.model, chosen.model), "language": "en", **hear})


@contextlib.contextmanager
def hearing(settings: Settings, *, live: bool, engine: str = ENGINE) -> Iterator[tuple[asyncio.Runner, Role, int | None]]:
    """A loop, the hear role on it, and the worker's process id.

    live: a real loop and the hear worker process, as under `serve`. Else: a clock that jumps, and the engine in this process (no id),
    whose CPU time moves the clock; so a run costs its CPU time only, and what else the machine does hardly matters.

    Raises:
        ModelMissing, WorkerError: the engine does not load.
    """
    options = {"models": str(settings.models.dir / "models"), **settings.hear.model_dump()}
    if not live:
        role: Any = Timed(importlib.import_module(engine).load({**options, "workers": 1}))  # nobody asks it for a stream
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            yield runner, role, None
        return
    worker = Worker("hear", {"hear": engine}, options)

    async def start() -> asyncio.Task[None]:
        running = asyncio.create_task(worker.run())
        await worker.wait_ready()
        return running

    async def stop(running: asyncio.Task[None]) -> None:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with asyncio.Runner() as runner:
        running = runner.run(start())
        try:
            yield runner, worker.role("hear"), worker.pid
        finally:
            runner.run(stop(running))


def offline(folder: Path) -> Callable[[Samples], list[str]]:
    """faster-whisper on whole recordings, by the weights in a folder: int8, beam 1, one thread, English.

    Returns:
        A function: samples at SAMPLE_RATE, shape (n,) -> the words as `score.norm` gives them.
    """
    from faster_whisper import WhisperModel  # only here: it brings half the world

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def decode(samples: Samples) -> list[str]:
        segments, _ = model.transcribe(samples, language="en", beam_size=1, condition_on_previous_text=False)
        return norm(" ".join(segment.text for segment in segments))

    return decode


def markdown(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table whose columns stand under each other."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in (heads, *rows)]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
