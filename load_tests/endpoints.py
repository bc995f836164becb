"""Answers with a remote model that knows everything, one that invents, and one that does not work.

    python -m load_tests.endpoints [../shared/questions] [--only NAME ...] [--cache DIR] [--json FILE]

Plays the recordings of question sets on a virtual clock in profile `remote`, once with each stand-in of
tests/fakes/answer_endpoint.py as the endpoint and once in profile `embedded`, and grades the answers
(streamsvc/evaluation). "Said": questions that the endpoint answered with more than NONE; "told": those of
them whose answer is its own, stated by the service. Of an endpoint that tells the truth that is what the
checks let through, of one that invents it is what they fail to stop. "Unlike": verdicts that differ from
those of `embedded`. One that is dead, late or sends garbage should have none, and no answer after the
deadline. Recognition and vision are computed once for all runs (`--cache`: kept for the next run of the same
weights and code). FILE has the rows, without the half that is measured with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from load_tests.cached_engines import CachedEngines
from streamsvc.core import config
from streamsvc.core.clock import Threadless
from streamsvc.core.config import Settings
from streamsvc.evaluation import answer_figures, session_run
from streamsvc.evaluation.answer_figures import MEASURED
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.scenario import Scenario, load_scenarios
from streamsvc.evaluation.session_run import Load
from tests.fakes import answer_endpoint
from tests.fakes.answer_endpoint import NONE, AnswerEndpoint, serving

QUESTIONS = Path("../shared/questions")
EMBEDDED = "embedded"
# Session seconds of each 0.1 s that a silent endpoint is waited for: it is as late, and the run is shorter.
SILENCE = 0.5
STAND_INS: Mapping[str, Callable[[], AbstractContextManager[AnswerEndpoint]]] = {
    "truthful": lambda: serving(AnswerEndpoint(answer_endpoint.truthful)),
    "invents names (a)": lambda: serving(AnswerEndpoint(answer_endpoint.inventing_names)),
    "off the lines (b)": lambda: serving(AnswerEndpoint(answer_endpoint.off_the_cited_lines)),
    "other question (c)": lambda: serving(AnswerEndpoint(answer_endpoint.of_another_question)),
    "dead": answer_endpoint.dead,
    "late": lambda: serving(answer_endpoint.late()),
    "garbage": lambda: serving(answer_endpoint.garbage()),
}
SHOWN = ("right", "reached", "precision", "near", "said", "told", "unlike", "unanswered", "done_max_s")
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """The answers with one endpoint. `said`: (recording, question id) -> its reply."""

    name: str
    rows: Rows
    said: Mapping[tuple[str, str], str]


def settings_for(endpoint: AnswerEndpoint | None, defaults: Settings) -> Settings:
    """Settings of profile `remote` with an endpoint; None: of profile `embedded`."""
    if endpoint is None:
        return defaults
    remote = {"url": endpoint.url, "model": "stand-in", "images_per_minute": 10_000}
    return defaults.model_copy(
        update={
            "models": defaults.models.model_copy(update={"profile": "remote"}),
            "remote": config.Remote(**remote),
        }
    )


async def examine(
    name: str,
    endpoint: AnswerEndpoint | None,
    scenarios: Sequence[Scenario],
    defaults: Settings,
    load: Load,
) -> Result:
    """Play all recordings with an endpoint and grade the answers. Requires a `clock.Threadless` loop."""
    rows: Rows = []
    said: dict[tuple[str, str], str] = {}
    async with session_run.fixed_time_service(settings_for(endpoint, defaults), load) as service:
        for scenario in scenarios:
            if endpoint is not None:
                endpoint.questions = list(scenario.truth.get("qa") or ())
                endpoint.said.clear()
            print(f"{name}: {scenario.name}", file=sys.stderr, flush=True)
            run = await session_run.play(service, scenario)
            answers = answer_figures.answers(scenario.truth, run.events, run.asked)
            rows += [{"recording": scenario.name, **row} for row in answers.get("each", ())]
            if endpoint is not None:
                said |= {(scenario.name, number): text for number, text in endpoint.said.items()}
    return Result(name, rows, said)


def told(row: Mapping[str, Any], reply: str | None) -> bool:
    """Whether the service states what the endpoint has replied.

    `reply`: None or NONE: it has told nothing.
    """
    if not reply or reply == NONE or not row["told"]:
        return False
    sentences = re.split(r"\s*(?:\[\d+\])+\s*", reply)
    repeated = any(_plain(part) in _plain(row["answer"]) for part in sentences if part)
    return bool(row.get("by") == "model" or repeated)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def figures(result: Result, embedded: Result | None) -> dict[str, Any]:
    """The figures of one endpoint, percentages but for "near", "unlike" and seconds."""
    rows = result.rows
    total = answer_figures.counts(rows)
    spoken = [row for row in rows if result.said.get((row["recording"], row["id"]), NONE) != NONE]
    own = [row for row in spoken if told(row, result.said[row["recording"], row["id"]])]
    plain = _verdicts(embedded) if embedded else {}
    whole = [row["done_s"] for row in rows if "done_s" in row]
    return {
        **answer_figures.shares(total),
        "near": total.get("told_near_misses", 0),
        "said": len(spoken),
        "told": round(100 * len(own) / len(spoken), 1) if spoken else None,
        "unlike": sum(plain[row["recording"], row["id"]] != row["verdict"] for row in rows)
        if plain
        else None,
        "unanswered": total.get("unanswered", 0) + total.get("failed", 0),
        "done_max_s": max(whole, default=None),
    }


def _verdicts(result: Result) -> dict[tuple[str, str], str]:
    return {(row["recording"], row["id"]): row["verdict"] for row in result.rows}


def table(results: Sequence[Result]) -> str:
    """A Markdown table with a line for each endpoint, and each again for each half."""
    heads = (
        *("endpoint", "right %", "right or pointed %", "of what is told right %", "near misses told"),
        *("said", "of it told %", "unlike embedded", "failed", "latest answer s"),
    )
    lines = []
    for half in (None, *sorted({row["half"] for one in results for row in one.rows if row["half"]})):
        of_half = [
            Result(one.name, [row for row in one.rows if half in (None, row["half"])], one.said)
            for one in results
        ]
        embedded = next((one for one in of_half if one.name == EMBEDDED), None)
        for one in of_half:
            of = figures(one, embedded)
            names = (
                "right",
                "reached",
                "precision",
                "near",
                "said",
                "told",
                "unlike",
                "unanswered",
                "done_max_s",
            )
            cells = ("-" if of[name] is None else f"{of[name]}" for name in names)
            lines.append((one.name if half is None else f"{one.name}, {half}", *cells))
    return markdown_table(heads, lines)


@contextlib.contextmanager
def silence(seconds: float) -> Iterator[None]:
    """Session seconds of an item that only says that the endpoint is silent."""
    before = session_run.SILENCE_SECONDS
    session_run.SILENCE_SECONDS = seconds
    try:
        yield
    finally:
        session_run.SILENCE_SECONDS = before


def run(
    scenarios: Sequence[Scenario], names: Sequence[str], defaults: Settings, load: Load
) -> Iterator[Result]:
    """The results with EMBEDDED and the named stand-ins, one after the other."""
    for name in names:
        opening = STAND_INS[name]() if name != EMBEDDED else contextlib.nullcontext()
        with (
            opening as endpoint,
            silence(SILENCE if name == "late" else session_run.SILENCE_SECONDS),
            asyncio.Runner(loop_factory=Threadless) as runner,
        ):
            yield runner.run(examine(name, endpoint, scenarios, defaults, load))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", nargs="*", type=Path, default=[QUESTIONS], help="(%(default)s)")
    parser.add_argument("--only", nargs="+", choices=[EMBEDDED, *STAND_INS], default=[EMBEDDED, *STAND_INS])
    parser.add_argument("--cache", type=Path, help="folder of the models' results; default: a temporary one")
    parser.add_argument("--json", type=Path, help="where figures and rows go")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results: list[Result] = []
        load = CachedEngines(folder).load
        for result in run(load_scenarios(chosen.questions), chosen.only, config.load(None), load):
            results.append(result)
            print(table([result]), file=sys.stderr, flush=True)
            if chosen.json is not None:
                text = json.dumps([as_json(one) for one in results], indent=1)
                chosen.json.write_text(text, encoding="utf-8")
    print(table(results))


def as_json(result: Result) -> dict[str, Any]:
    """A result with its rows, without the half that is measured with."""
    rows = [
        row | {"reply": result.said.get((row["recording"], row["id"]))}
        for row in result.rows
        if row["half"] != MEASURED
    ]
    return {"endpoint": result.name, "figures": figures(result, None), "rows": rows}


if __name__ == "__main__":
    main()
