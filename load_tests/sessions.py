"""Number of speakers that one hear worker follows: latencies and coverage against the number of sessions.

    python -m load_tests.sessions [--sessions 1 2 4 6 8] [--seconds 60] [--model base]
                                  [--json FILE] [--plot FILE.svg]

Every session plays another part of the recordings of speech/ with known word times, in real time and without
pauses; all share one hear worker, as under `serve`. So this is the cost of speech alone: most streams have
pauses, and pictures come on top. Coverage: words committed of words spoken. Within the budget: p95 of stable
words at most BUDGET seconds after their end (1.2 s of age, plus the time from a word's end to the packet that
proves it), coverage of 99 %, no audio dropped. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from engines.plot import Panel, svg
from load_tests.hearing import add_arguments, hearing, settings_of
from load_tests.hour import Talk, talks
from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, Gap
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import Truth
from streamsvc.evaluation.score_captions import Figures, Reference
from streamsvc.evaluation.transcriber_run import Meter, TranscriberRun, play

BUDGET = 1.4  # seconds
COVERAGE = 0.99  # share of the words
# seconds between the beginnings of two sessions: steps of all at once would be the worst case, and not a
# likely one
STAGGER = 0.13
TAIL = 2.0  # seconds of silence after each, so that its last words settle


@dataclass(frozen=True, slots=True)
class Load:
    """The result of so many sessions at once.

    `lost`: seconds of audio dropped in all. `cpu`: CPU seconds of all processes, per second and session.
    """

    sessions: int
    figures: Figures
    lost: float
    cpu: float

    @property
    def coverage(self) -> float:
        """Words committed / words spoken; above 1 with insertions."""
        return (self.figures["committed"] or 0) / max(1, self.figures["words"] or 0)

    @property
    def within_budget(self) -> bool:
        """Whether all goals of the budget are met."""
        late = self.figures["commit_p95"]
        return late is not None and late <= BUDGET and self.coverage >= COVERAGE and not self.lost


def parts(of: Sequence[Talk], seconds: float) -> list[Talk]:
    """Cut the talks into parts of `seconds`; remainders are left out.

    Raises:
        SystemExit: no talk is that long.
    """
    size = round(seconds * SAMPLE_RATE)
    cut_parts = []
    for samples, truth in of:
        ends = np.asarray(truth.ends)
        for first in range(0, len(samples) - size + 1, size):
            start = first / SAMPLE_RATE
            low, high = np.searchsorted(ends, [start, start + seconds])
            cut = Truth(truth.words[low:high], tuple(float(end) - start for end in ends[low:high]))
            cut_parts.append(
                (
                    np.concatenate(
                        [samples[first : first + size], np.zeros(int(TAIL * SAMPLE_RATE), np.float32)]
                    ),
                    cut,
                )
            )
    if not cut_parts:
        raise SystemExit(f"no recording with word times lasts {seconds:g} s")
    return cut_parts


async def measure(of: Sequence[Talk], hear: Role, settings: Hear, sessions: int, worker: int | None) -> Load:
    """Play so many talks at once; with more sessions than talks, talks repeat.

    `worker`: process id of the hear worker, if any.
    """
    chosen = [of[number % len(of)] for number in range(sessions)]
    meter = Meter(worker)

    async def one(number: int) -> TranscriberRun:
        await clock.sleep(STAGGER * number)
        return await play(chosen[number][0], hear, settings)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(sessions)]
    cost = meter.cost()
    all_heard = [task.result() for task in tasks]
    scores = []
    for (_, truth), heard in zip(chosen, all_heard, strict=True):
        assert truth.ends is not None
        scores.append(
            score_captions.score(
                heard.shown,
                Reference(truth.words, truth.ends),
                [(word.start, word.end) for word in heard.stable],
            )
        )
    lost = sum(
        unit.end - unit.start for heard in all_heard for _, unit in heard.units if isinstance(unit, Gap)
    )
    seconds = sum(len(samples) for samples, _ in chosen) / SAMPLE_RATE
    return Load(
        sessions,
        score_captions.figures(score_captions.pool(scores)),
        round(lost, 2),
        round(cost.cpu / seconds, 3),
    )


# --- report ---------------------------------------------------------------------------------------------

HEADS = (
    "sessions",
    "WER %",
    "coverage %",
    "first p50/p95 s",
    "committed p50/p95/max s",
    "lost s",
    "CPU s/s a session",
    "in budget",
)


def table(loads: Sequence[Load]) -> str:
    """A line for each number of sessions."""
    return markdown_table(HEADS, [_row(load) for load in loads])


def _row(load: Load) -> tuple[str, ...]:
    def cell(*names: str) -> str:
        values = [load.figures[name] for name in names]
        return " / ".join("-" if value is None else f"{value:.2f}" for value in values)

    return (
        f"{load.sessions}",
        f"{100 * (load.figures['wer'] or 0.0):.1f}",
        f"{100 * load.coverage:.1f}",
        cell("first_p50", "first_p95"),
        cell("commit_p50", "commit_p95", "commit_max"),
        f"{load.lost:.1f}",
        f"{load.cpu:.3f}",
        "yes" if load.within_budget else "no",
    )


def plot(loads: Sequence[Load]) -> str:
    """An SVG picture: seconds after a word's end against the number of sessions; the budget is dashed."""
    names = ("commit_p50", "commit_p95", "first_p95")
    lines = {name.replace("_", " "): [load.figures[name] or 0.0 for load in loads] for name in names}
    return svg(
        [
            Panel(
                "seconds after the word's end, against sessions",
                [str(load.sessions) for load in loads],
                lines,
                BUDGET,
            )
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--sessions", type=int, nargs="+", default=[1, 2, 4, 6, 8], metavar="N", help="at once (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of speech in each (%(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--plot", type=Path, help="where an SVG picture goes")
    chosen = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # the table alone goes to stdout
    settings, of = settings_of(chosen), parts(talks(chosen.media.resolve()), chosen.seconds)
    loads = []
    with hearing(settings, live=True) as (runner, role, worker):
        for sessions in chosen.sessions:
            loads.append(runner.run(measure(of, role, settings.hear, sessions, worker)))
            print(", ".join(_row(loads[-1])), file=sys.stderr, flush=True)
    print(table(loads))
    if chosen.json is not None:
        chosen.json.write_text(
            json.dumps(
                [
                    {"sessions": load.sessions, **load.figures, "lost": load.lost, "cpu": load.cpu}
                    for load in loads
                ]
            )
        )
    if chosen.plot is not None:
        chosen.plot.write_text(plot(loads))


if __name__ == "__main__":
    main()
