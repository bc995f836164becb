"""The commands `streamsvc eval`, `replay`, `bench captions` and `bench vision`."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from streamsvc.core import config
from streamsvc.core.errors import ConfigError
from streamsvc.core.logs import configure_logs
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation import (
    answer_figures,
    caption_bench,
    caption_report,
    evaluate,
    replay,
    report,
    session_run,
)
from streamsvc.evaluation.datasets import DATASETS
from streamsvc.workers.process import ENVIRONMENT

bench = typer.Typer(no_args_is_help=True, help="Measure models and machine on recordings of yours.")
ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="STREAMSVC_CONFIG", help="TOML file with settings.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add `eval`, `replay` and `bench` to the command line."""
    app.command("eval")(evaluate_command)
    app.command("replay")(replay_command)
    app.add_typer(bench, name="bench")


def evaluate_command(  # typer: one parameter an option
    targets: Annotated[
        list[str],
        typer.Argument(help=f"Files or folders of scenarios, or NAME:FOLDER: {', '.join(DATASETS)}."),
    ],
    speed: Annotated[
        str, typer.Option(help='"max": on a virtual clock, with fixed steps; 1: in real time, with ages.')
    ] = "max",
    sample: Annotated[
        int | None, typer.Option(min=1, help="Rows of each published set, evenly drawn; else all.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of the speech, e.g. en.")] = None,
    as_json: AsJson = False,
    rows: Annotated[
        str,
        typer.Option(
            help='With --json, each question with its answer: "develop", without the half that is measured '
            'with, or "all".'
        ),
    ] = "develop",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="*.svg: verdicts by kind, word errors by slice, ages.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Word errors, keyframes, screen text and answers against the truth of scenarios and published sets."""
    _check_speed(speed)
    _check_plot(plot)
    if rows not in ("develop", "all"):
        raise ConfigError(f'--rows is "develop" or "all", not {rows!r}')
    plan = evaluate.planned(targets, live=speed == "1", most=sample, language=language)
    result = evaluate.run(config.load(config_file), plan, _progress())
    if plot is not None and (panels := report.panels(result)):
        drawing: Any = importlib.import_module("engines.plot")  # by dotted name: no static import of engines
        drawn = [drawing.Panel(panel.title, panel.ticks, panel.lines) for panel in panels]
        plot.write_text(drawing.svg(drawn), encoding="utf-8")
    if as_json:
        print(json.dumps(result if rows == "all" else answer_figures.without_measured(result)))
    else:
        print(report.table(result))


def replay_command(
    bundle: Annotated[Path, typer.Argument(help="A recording (serve --record), or the session's folder.")],
    engines: Annotated[
        bool, typer.Option("--engines", help="Real models reply: the closed captions must be the same.")
    ] = False,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Play a recorded session again. Exit status 1: it goes otherwise; the first difference is told."""
    configure_logs(as_json=False, level=logging.WARNING)
    if engines and ENVIRONMENT.items() - os.environ.items():  # libraries read it once, when they are loaded
        arguments = [sys.executable, "-m", "streamsvc", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **ENVIRONMENT})
    result = replay.run(bundle, config.load(config_file), session_run.load_engine if engines else None)
    if as_json:
        print(json.dumps(result.as_json()))
    else:
        print(result.line())
    if result.first:
        raise typer.Exit(1)


@bench.command("captions")
def bench_captions(  # typer: one parameter an option
    recordings: Annotated[list[Path], typer.Argument(help="Media files with sound.")],
    truth: Annotated[
        Path | None,
        typer.Option(help="*.txt or *.json with what is said; else the nearest manifest.json above."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A speech model, e.g. whisper-tiny.en.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Of each recording.")] = 1,
    speed: Annotated[
        str,
        typer.Option(help='1: in real time; "max": on a virtual clock that the models\' CPU time advances.'),
    ] = "1",
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Compare with faster-whisper on the whole file, the same weights."),
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Only the first seconds of each recording.")
    ] = None,
    chunk_ms: Annotated[
        int, typer.Option(min=20, max=100, help="Length of the pieces in which the audio comes.")
    ] = 100,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Word errors, latency, steadiness and cost of live captions."""
    _check_speed(speed)
    if truth is not None and len(recordings) > 1:
        raise ConfigError("--truth belongs to one recording; for several, write a manifest.json beside them")
    settings = config.load(config_file, **({"hear": {"model": model}} if model else {}))
    chunk = chunk_ms * SAMPLE_RATE // 1000
    plan = caption_bench.Plan(tuple(recordings), truth, runs, seconds, chunk, speed == "1", offline)
    rows, compared = caption_bench.captions(settings, plan, "engines.asr", _progress())
    print(
        json.dumps(caption_report.as_json(rows, compared, plan, settings.hear.model))
        if as_json
        else caption_report.table(rows, compared, plan)
    )


@bench.command("vision")
def bench_vision(
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="*.svg: throughput and latency against the batch.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Vision encoder throughput by runtime at batches of 1, 8 and 32; cost of a session's keyframes."""
    _check_plot(plot)
    settings = config.load(config_file)
    folder = settings.models.dir / "models"
    engine: Any = importlib.import_module(
        "engines.bench_vision"
    )  # by dotted name: no static import of engines
    options = {"models": str(folder), **settings.see.model_dump()}
    result = engine.measured(folder, options, _progress())
    if plot is not None:
        plot.write_text(engine.plot(result), encoding="utf-8")
    print(json.dumps(engine.as_json(result)) if as_json else engine.table(result))


def _check_speed(speed: str) -> None:
    if speed not in ("1", "max"):
        raise ConfigError(f'--speed is 1 or "max", not {speed!r}')


def _check_plot(plot: Path | None) -> None:
    if plot is not None and (plot.suffix != ".svg" or not plot.parent.is_dir()):
        raise ConfigError(f"--plot {plot}: a name that ends with .svg, in a folder that is there")


def _progress() -> Callable[[str], None]:
    """Prints one line of progress on stderr."""
    console = Console(stderr=True, highlight=False)
    return lambda line: console.print(line, markup=False, style="dim")
