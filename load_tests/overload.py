"""Overload: many sessions at once, and what each degradation level saves.

    python -m load_tests.overload [SCENARIO] [--sessions 1 2 4 6] [--seconds 90] [--every 4]
                                  [--json FILE] [--plot FILE.svg]
    python -m load_tests.overload [SCENARIO] --levels [--seconds 40] [--busy]

The first plays a scenario in so many sessions at once, in real time, with admission off, and repeats its
questions in each: ages, coverage and levels, in the plot by SLICE seconds. The second plays it in one session
and forces one level after the other, in turns with level 0, so that other load affects both: CPU of all
processes as a share of level 0's; with --busy on a recording with work for every part (busy.py). Run nothing
else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from engines.plot import Panel, svg
from load_tests import busy
from streamsvc.core import clock
from streamsvc.core.config import Settings, load
from streamsvc.evaluation import figures, session_run
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.resource_meter import ResourceMeter
from streamsvc.evaluation.scenario import Scenario, load_scenarios
from streamsvc.evaluation.session_run import SessionRun
from streamsvc.service import load_policy
from streamsvc.service.service import Service

SCENARIO = Path("../shared/media/scenarios/lecture_stone_cutter.mp4")
SLICE = 10.0  # seconds of one point of the plot
STAGGER = 1.3  # seconds between the beginnings of two sessions
TURNS = 3  # times that a level and level 0 take turns


def asking(scenario: Scenario, seconds: float, every: float) -> Scenario:
    """The scenario with a question every `every` seconds: its own, repeated."""
    known = [question["question"] for question in scenario.truth.get("qa") or ()] or ["What was said last?"]
    times = np.arange(every, seconds, every)
    asked = [
        {"id": f"q{n}", "question": known[n % len(known)], "ask_at_s": float(at)}
        for n, at in enumerate(times)
    ]
    return replace(scenario, truth={**scenario.truth, "qa": asked}, seconds=seconds)


# --- overload -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crowd:
    """The result of so many sessions at once.

    `levels`: one each second. `first`, `whole`: seconds to the first part and to the end of each answer.
    `series`: name -> a value a slice; ages as p95.
    """

    sessions: int
    ages: Mapping[str, Mapping[str, float]]
    coverage: float
    gaps: float
    levels: tuple[float, ...]
    answered: int
    refused: int
    unanswered: int
    first: tuple[float, ...]
    whole: tuple[float, ...]
    cpu: float
    series: Mapping[str, Sequence[float]]

    @property
    def level(self) -> int:
        """The highest."""
        return int(max(self.levels, default=0))


async def crowd(service: Service, scenario: Scenario, count: int) -> Crowd:
    """Play a scenario in so many sessions at once."""
    meter = ResourceMeter()
    levels: list[float] = []
    began = clock.now()

    async def one(number: int) -> SessionRun:
        await clock.sleep(number * STAGGER)
        return await session_run.play(service, scenario)

    async def watch() -> None:
        while True:
            levels.append(service.load_controller.state.level)
            await clock.sleep(1.0)

    watching = asyncio.create_task(watch())
    runs = await asyncio.gather(*(one(number) for number in range(count)))
    watching.cancel()
    seconds = clock.now() - began
    return summary(scenario, runs, levels, meter.figures(seconds)["cpu_s_per_stream_s"])


def summary(scenario: Scenario, runs: Sequence[SessionRun], levels: Sequence[float], cpu: float) -> Crowd:
    """The figures of all runs together. `levels`: one each second."""
    events = [event for run in runs for event in run.events]
    # Each session's own clock: they began within STAGGER of each other.
    slices = int(max(run.seconds for run in runs) / SLICE)
    series: dict[str, list[float]] = {}
    for name, kind in (
        ("captions", "caption.final"),
        ("sights", "sight.ready"),
        ("screen text", "screen.text"),
    ):
        series[name] = [
            _p95([e for e in figures.of_type(events, kind) if n <= e["received"] / SLICE < n + 1])
            for n in range(slices)
        ]
    series["level"] = [max(levels[int(n * SLICE) : int((n + 1) * SLICE)], default=0.0) for n in range(slices)]
    series["coverage"] = [covered(scenario.truth, runs, SLICE * n, SLICE * (n + 1)) for n in range(slices)]
    spoken = [figures.speech(scenario.truth, run.events, run.seconds) for run in runs]
    coverage = float(np.mean([row["coverage"] for row in spoken if row.get("coverage") is not None] or [1.0]))
    done = figures.of_type(events, "answer.done")
    refused = Counter(event["error"]["code"] for event in figures.of_type(events, "error"))
    asked = sum(len(run.asked) for run in runs)
    gaps = sum(event["end"] - event["start"] for event in figures.of_type(events, "caption.gap"))
    answered = sum("error" not in event for event in done)
    late = asked - answered - refused.total()
    first, whole = waits(runs, ("answer.delta", "answer.done")), waits(runs, ("answer.done",))
    return Crowd(
        len(runs),
        figures.ages(events),
        coverage,
        gaps,
        tuple(levels),
        answered,
        refused.total(),
        late,
        first,
        whole,
        cpu,
        series,
    )


def covered(truth: Mapping[str, Any], runs: Sequence[SessionRun], start: float, end: float) -> float:
    """Share of the words spoken between two times that final captions contain.

    At most 1; 1 without speech.
    """
    spoken = sum(start <= word["end"] < end for word in truth.get("words") or ()) * len(runs)
    finals = [final for run in runs for final in figures.of_type(run.events, "caption.final")]
    published = sum(start <= word["end"] < end for final in finals for word in final["words"])
    return min(1.0, published / spoken) if spoken else 1.0


def waits(runs: Sequence[SessionRun], kinds: Sequence[str]) -> tuple[float, ...]:
    """Seconds from each question to its first event of some types; failed questions are left out."""
    seconds = []
    for run in runs:
        seen: dict[str, float] = {}
        for event in run.events:
            if event["type"] in kinds and "error" not in event:
                seen.setdefault(event["question_id"], event["received"])
        seconds += [seen[number] - at for number, at in run.asked.items() if number in seen]
    return tuple(seconds)


def _p95(events: Sequence[Mapping[str, Any]]) -> float:
    return float(np.percentile([event["age_ms"] / 1000 for event in events], 95)) if events else 0.0


def table(crowds: Sequence[Crowd]) -> str:
    """A Markdown table."""
    heads: tuple[str, ...] = (
        "sessions",
        "stable p50 / p95 s",
        "final p50 / p95 s",
        "sight p95 s",
        "coverage %",
        "gaps s",
    )
    heads += (
        "highest level",
        "level at the end",
        "answered / refused / late",
        "first part, answer p95 s",
        "CPU s/s",
    )
    rows = []
    for one in crowds:
        ages = {kind: row for kind, row in one.ages.items() if row}
        cell = {kind: f"{row['p50'] / 1000:.2f} / {row['p95'] / 1000:.2f}" for kind, row in ages.items()}
        rows.append(
            (
                str(one.sessions),
                cell.get("stable", "-"),
                cell.get("final", "-"),
                f"{ages['sight']['p95'] / 1000:.2f}" if "sight" in ages else "-",
                f"{100 * one.coverage:.1f}",
                f"{one.gaps:.1f}",
                str(one.level),
                f"{one.levels[-1]:.0f}" if one.levels else "-",
                f"{one.answered} / {one.refused} / {one.unanswered}",
                f"{np.percentile(one.first, 95):.2f}, {np.percentile(one.whole, 95):.2f}"
                if one.whole
                else "-",
                f"{one.cpu:.2f}",
            )
        )
    return markdown_table(heads, rows)


def plot(crowds: Sequence[Crowd]) -> str:
    """SVG, a panel a number of sessions: p95 ages, level and coverage over time."""
    panels = []
    for one in crowds:
        ticks = [f"{(n + 1) * SLICE:.0f}" if n % 3 == 2 else "" for n in range(len(one.series["level"]))]
        panels.append(
            Panel(
                f"sessions: {one.sessions}; p95 age (s), level and coverage, by second",
                ticks,
                one.series,
                mark=budgeted(),
            )
        )
    return svg(panels)


def budgeted() -> float:
    """Budget of a closed caption, seconds."""
    return Settings().budget.final


# --- levels -------------------------------------------------------------------------------------------------


async def levels(service: Service, scenario: Scenario) -> list[tuple[int, float, float]]:
    """(level, CPU s/s at it, CPU s/s at level 0 in turns with it) for the levels in use."""
    rows = []
    for level in service.load_controller.levels:
        spent: dict[int, list[float]] = {level: [], 0: []}
        for _ in range(TURNS):
            for now in (0, level):
                service.load_controller.force(now)
                meter = ResourceMeter()
                began = clock.now()
                await session_run.play(service, scenario)
                spent[now].append(meter.figures(clock.now() - began)["cpu_s_per_stream_s"])
        service.load_controller.force(None)
        rows.append((level, float(np.mean(spent[level])), float(np.mean(spent[0]))))
        print(f"level {level}: {rows[-1][1]:.3f} CPU s/s, level 0: {rows[-1][2]:.3f}", flush=True)
    return rows


def savings(rows: Sequence[tuple[int, float, float]]) -> str:
    """Markdown table: cost of each level relative to level 0, and its saving on the level below."""
    cells, below = [], 1.0
    for level, cost, full in rows:
        share = cost / full
        cells.append(
            (
                str(level),
                f"{cost:.3f}",
                f"{full:.3f}",
                f"{100 * share:.0f}",
                f"{100 * (1 - share / below):.0f}",
            )
        )
        below = share
    return markdown_table(
        ("level", "CPU s/s", "level 0 in turns", "% of level 0", "% saved of the level below"), cells
    )


async def _main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made_here = (
            busy.made(Path(folder), SCENARIO.parents[1], arguments.seconds)
            if arguments.busy
            else arguments.scenario
        )
        await _measured(arguments, *load_scenarios([made_here]))


async def _measured(arguments: argparse.Namespace, scenario: Scenario) -> None:
    made = load(None)
    room = made.limits.model_copy(update={"sessions": max(arguments.sessions)})
    settings = made.model_copy(
        update={"limits": room, "budget": made.budget.model_copy(update={"admission": False})}
    )
    async with Service(settings, at_once=("hear", "see", "think")) as service:
        await service.ready()
        if arguments.levels:
            rows = await levels(service, asking(scenario, arguments.seconds, arguments.every))
            print(savings(rows))
            return
        crowds = []
        for count in arguments.sessions:
            crowds.append(await crowd(service, asking(scenario, arguments.seconds, arguments.every), count))
            print(table(crowds), flush=True)
            await clock.sleep(load_policy.RECOVERY)
    if arguments.plot:
        arguments.plot.write_text(plot(crowds), encoding="utf-8")
    if arguments.json:
        figures_json = [{name: getattr(one, name) for name in one.__slots__} for one in crowds]
        arguments.json.write_text(json.dumps(figures_json, default=dict), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="?", type=Path, default=SCENARIO)
    parser.add_argument("--sessions", nargs="+", type=int, default=[1, 2, 4, 6])
    parser.add_argument("--seconds", type=float, default=90.0, help="of the recording, in each session")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two questions of a session")
    parser.add_argument("--levels", action="store_true", help="measure what each level saves")
    parser.add_argument("--busy", action="store_true", help="a recording on which every part has work")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
