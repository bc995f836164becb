"""Watches in the words of users: which conditions are understood, and fire at what they are meant for.

    python -m load_tests.natural_watches [--half develop|measure|all] [--endpoint NAME ...] [--show]
                                         [--json FILE]

The conditions, and for each a stream of steps (what is seen, read and said), are
tests/fixtures/watches_natural.json, written before the code of watches was read. The steps are handed to a
session as units (load_tests/unit_streams.py), without vision or speech models, so that what is measured is
whether the condition is understood. A watch is right if it fires at each step at which it must and at no
other; a lure must not fire at all. The measure half is never shown one by one.

With --endpoint a model in profile `remote` confirms alerts and decides what rules cannot: stand-ins
(tests/fakes/watch_endpoint.py) that take 0.2 to 1 s and tell the truth, invent, or say yes to everything, one
that never answers, one that is dead and one that sends garbage. "rules": there is none, profile `embedded`.

Time-aware scores are of load_tests/time_aware.py: each step at which a watch must fire is a moment, told as
late after its media as the alert's age says; a second alert of a step is needless.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from load_tests.endpoints import settings_for, silence
from load_tests.time_aware import HEADS, Moment, Score, Told, cells, score
from load_tests.unit_streams import Played, play, spans_of
from streamsvc.core import config
from streamsvc.core.clock import Threadless
from streamsvc.evaluation import session_run
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.session_run import Load
from tests.fakes import answer_endpoint, watch_endpoint
from tests.fakes.answer_endpoint import AnswerEndpoint, Say, serving

CASES = Path("tests/fixtures/watches_natural.json")
RULES = "rules"
LATE = 4.0  # seconds after its media in which an alert is of use, as in load_tests.watches
QUICK, SLOW = 0.2, 1.0  # seconds of an answer of a stand-in
# The stand-in's seconds are this part of those of the session, to be done sooner.
HASTE = 0.25


def _answering(say: Say) -> AbstractContextManager[AnswerEndpoint]:
    return serving(AnswerEndpoint(watch_endpoint.slowly(say, HASTE * QUICK, HASTE * SLOW)))


STAND_INS: Mapping[str, Callable[[], AbstractContextManager[AnswerEndpoint]]] = {
    "truthful": lambda: _answering(watch_endpoint.truthful),
    "inventing": lambda: _answering(watch_endpoint.inventing),
    "affirming": lambda: _answering(watch_endpoint.affirming),
    "late": lambda: serving(answer_endpoint.late()),
    "dead": answer_endpoint.dead,
    "garbage": lambda: serving(answer_endpoint.garbage()),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One condition: the steps at which it fired; None: it was refused.

    `ages`: seconds of each alert. `deciders`: of each alert.
    """

    when: str
    kind: str
    half: str
    lure: bool
    due: frozenset[int]
    fired: frozenset[int] | None
    ages: tuple[float, ...]
    deciders: tuple[str, ...]
    timed: Score

    @property
    def right(self) -> bool:
        """Whether it fired where it must, and nowhere else."""
        return (self.fired or frozenset()) == self.due and (self.lure or self.fired is not None)


def outcome(case: Mapping[str, Any], played: Played) -> Outcome:
    """What a condition made of its stream."""
    due = frozenset(() if case["lure"] else case["fires"])
    alerts = played.alerts or ()
    steps = [played.step_of(alert["at"]) for alert in alerts]
    ages = [alert["age_ms"] / 1000 for alert in alerts]
    starts = [start for start, _ in played.spans]
    timed = score(
        [Moment(starts[step], starts[step] + LATE) for step in sorted(due)],
        [Told(starts[step], starts[step] + age) for step, age in zip(steps, ages, strict=True)],
    )
    fired = None if played.alerts is None else frozenset(steps)
    deciders = tuple(alert["decided_by"] for alert in alerts)
    return Outcome(
        case["when"], case["kind"], case["split"], case["lure"], due, fired, tuple(ages), deciders, timed
    )


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Sums of some outcomes."""
    true = [one for one in outcomes if not one.lure]
    lures = [one for one in outcomes if one.lure]
    deciders = Counter(decider for one in outcomes for decider in one.deciders)
    ages = [age for one in outcomes for age in one.ages]
    return {
        "conditions": len(true),
        "right": sum(one.right for one in true),
        "refused": sum(one.fired is None for one in true),
        "lures": len(lures),
        "lures fired": sum(bool(one.fired) for one in lures),
        **dict(zip(HEADS, cells(sum((one.timed for one in outcomes), Score())), strict=True)),
        "age of all alerts p95 s": round(float(np.percentile(ages, 95)), 2) if ages else "-",
        "by rules / model / rules, model late": " / ".join(
            str(deciders[name]) for name in ("rules", "model", "rules_late")
        ),
    }


async def run(
    cases: Sequence[Mapping[str, Any]], endpoint: AnswerEndpoint | None, load: Load = session_run.load_engine
) -> list[Outcome]:
    """The outcomes of some conditions. Requires a `clock.Threadless` loop."""
    settings = settings_for(endpoint, config.load(None))
    outcomes = []
    async with session_run.fixed_time_service(settings, load) as service:
        for case in cases:
            if endpoint is not None:
                spans = spans_of(case["stream"])
                holds = [] if case["lure"] else [spans[step] for step in case["fires"]]
                endpoint.questions = [watch_endpoint.condition(case["when"], holds)]
            outcomes.append(outcome(case, await play(service, case["when"], case["stream"])))
    return outcomes


def tried(
    name: str, cases: Sequence[Mapping[str, Any]], load: Load = session_run.load_engine
) -> list[Outcome]:
    """The outcomes of some conditions with a stand-in, or by RULES."""
    opening = STAND_INS[name]() if name != RULES else contextlib.nullcontext()
    seconds = session_run.SILENCE_SECONDS / HASTE
    with opening as endpoint, silence(seconds), asyncio.Runner(loop_factory=Threadless) as runner:
        return runner.run(run(cases, endpoint, load))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--half", choices=("develop", "measure", "all"), default="all")
    parser.add_argument("--endpoint", nargs="+", choices=(RULES, *STAND_INS), default=[RULES])
    parser.add_argument("--show", action="store_true", help="name what is wrong, of the develop half alone")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    cases = json.loads(CASES.read_text(encoding="utf-8"))["watches"]
    cases = [case for case in cases if chosen.half in ("all", case["split"])]
    rows: dict[str, dict[str, Any]] = {}
    for name in chosen.endpoint:
        outcomes = tried(name, cases)
        for half in ("develop", "measure"):
            if some := [one for one in outcomes if one.half == half]:
                rows[f"{name}, {half}"] = figures(some)
        if chosen.half == "all":
            rows[f"{name}, all"] = figures(outcomes)
        print(f"{name}: done", file=sys.stderr, flush=True)
        for one in outcomes if chosen.show else ():
            if one.half == "develop" and not one.right:
                told = (
                    "refused"
                    if one.fired is None
                    else f"fired at {sorted(one.fired)}, due at {sorted(one.due)}"
                )
                print(f"{name}: {'lure: ' if one.lure else ''}{one.when}: {told}")
    heads = ("", *next(iter(rows.values())))
    print(markdown_table(heads, [(name, *map(str, row.values())) for name, row in rows.items()]))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
