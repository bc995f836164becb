"""Watches in plain words: precision, recall and latency, with decoys that must not fire.

    python -m load_tests.watches [--media ../shared/media] [--live] [--json FILE]

Four recordings with watches that come true at known seconds, and decoys that do not. Truth: the scenarios'
word times and slides; of the clips, what was seen by eye in a picture every four seconds. A watch is right if
it fires within LATE seconds after each moment at which it comes true, and at no other time; a refused one
counts as missed. On a virtual clock; with --live in real time, which gives latencies from the frame or sound
to the event. Then run nothing else meanwhile.

The second table has time-aware scores (load_tests/time_aware.py), of the watches whose moments are known and
of the lures: each moment asks for an alert of its own, and what comes later is worth less. On the virtual
clock a call of a model takes a fixed time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from load_tests.cached_engines import CachedEngines
from load_tests.time_aware import HEADS, Moment, Score, Told, cells, score
from streamsvc.core import clock, config
from streamsvc.evaluation import figures, session_run
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.scenario import Scenario
from streamsvc.evaluation.session_run import Load, SessionRun
from streamsvc.timeline.text import terms

MEDIA = Path("../shared/media")
LATE = 4.0  # seconds: the budget of screen text. The clips' watches are judged by whether they fire at all
EARLY = 0.7  # seconds by which word times are uncertain, and more than a keyframe's interval is not
ALWAYS = ((0.0, 1e9),)  # from the first look on

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A watch and its truth: spans in seconds in which firing is right; None: a decoy.

    `each`: it must fire in every span.
    """

    when: str
    spans: Spans
    each: bool = True


def at(*seconds: float) -> Spans:
    """True at these seconds."""
    return tuple((second - EARLY, second + LATE) for second in seconds)


def said(scenario: Scenario, phrase: str) -> Spans:
    """The times at which a phrase is said: ends of the last words of its occurrences."""
    wanted = [term for word in phrase.split() for term in terms(word)]
    words = [(term, word["end"]) for word in scenario.truth["words"] for term in terms(word["w"])]
    ends = [
        words[n + len(wanted) - 1][1]
        for n in range(len(words))
        if [term for term, _ in words[n : n + len(wanted)]] == wanted
    ]
    return at(*ends)


def lecture(scenario: Scenario) -> list[Case]:
    """Cases of the lecture."""
    slides = [part["start"] for part in scenario.truth["intervals"]]
    right = [
        Case("when the slide changes", at(*slides[1:])),
        Case("tell me when a new slide is shown", at(*slides[1:])),
        Case("when 'unbelieving' is on the screen", at(slides[2])),
        Case("when the slide shows a stately palace", at(slides[6])),
        Case("let me know when golden tassels are written on the slide", at(slides[4])),
        Case("when the word summer is on the slide", at(slides[7])),
        Case("someone says gravestones", said(scenario, "gravestones") + said(scenario, "gravestone")),
        Case("when the spirit is mentioned", said(scenario, "spirit")),
        Case("when they talk about customers", said(scenario, "customers")),
        Case("if the word palace is mentioned", said(scenario, "palace")),
        Case("as soon as the speaker mentions the summer", said(scenario, "summer")),
        Case("when somebody says silken curtains", said(scenario, "silken curtains")),
        Case("notify me when the tools are mentioned", said(scenario, "tools")),
        Case("when someone talks about the wooden hut", said(scenario, "wooden hut")),
        Case("whenever the sun is mentioned", said(scenario, "sun")),
        Case("when the speaker says amazement", said(scenario, "amazement")),
    ]
    lures = [
        "when somebody says budget",
        "when the king is mentioned",
        "when 'invoice' is on the screen",
        "when someone talks about winter",
        "when the ocean is mentioned",
        "when the slide shows a total",
        "when somebody says golden rings",
        "when 'the second wish' is on the screen",
        "when they talk about silver curtains",
        "when the word emperor is on the slide",
        "when nobody speaks for ten seconds",
        "when the picture goes black",
        "when a bus appears",
        "when a dog appears",
        "when two people are in the picture",
        "when a car drives by",
    ]
    return right + [Case(when, ()) for when in lures]


def photos(scenario: Scenario) -> list[Case]:
    """Cases of the photos with speech."""
    shown = {part["label"]: part["start"] for part in reversed(scenario.truth["intervals"])}
    ends = {part["label"]: part["end"] for part in scenario.truth["intervals"]}
    right = [
        Case("when a cat appears", at(shown["cat"])),
        Case("as soon as a kitten or cat is visible", at(shown["cat"])),
        Case("when the cat is gone", at(ends["cat"])),
        Case("when there is a cup", at(shown["coffee"], 104.0)),
        Case("when a motorcycle comes into view", at(shown["motorcycle"])),
        Case("let me know when the picture goes black", at(shown["black"])),
        Case("when a car drives by", at(shown["road"])),
        Case("somebody says country", said(scenario, "country")),
        Case("when heaven is mentioned", said(scenario, "heaven")),
        Case("when they talk about beer", said(scenario, "beer")),
        Case("when the winter of despair is mentioned", said(scenario, "winter despair")),
        Case("if anyone mentions tacos", said(scenario, "tacos")),
    ]
    lures = [
        "when a dog appears",
        "when a train arrives",
        "when a pizza is shown",
        "when a boat comes into view",
        "when someone says weather",
        "when they talk about wine",
        "when an elephant appears",
        "when the summer of hope is mentioned",
        "when 'slide 2' is on the screen",
    ]
    return right + [Case(when, ()) for when in lures]


def street(scenario: Scenario) -> list[Case]:
    """Cases of a clip: people who walk across a yard all the time, parked cars behind them."""
    right = [
        Case("when somebody appears", ALWAYS, each=False),
        Case("tell me when a pedestrian enters the picture", ALWAYS, each=False),
        Case("when there are more than two people", ALWAYS, each=False),
        Case("alert me when at least three people are in view", ALWAYS, each=False),
        Case("when a second person appears", ALWAYS, each=False),
        Case("when a person is visible", ALWAYS, each=False),
    ]
    lures = [
        "a dog appears",
        "a bus appears",
        "a bicycle passes by",
        "a cat is visible",
        "a boat appears",
        "a horse comes into view",
        "a train arrives",
    ]
    lures += [
        "somebody says hello",
        "the picture goes black",
        "'exit' is on the screen",
        "a laptop is shown",
        "more than twenty people are there",
    ]
    return right + [Case(f"when {when}", ()) for when in lures[:11]]


def room(scenario: Scenario) -> list[Case]:
    """Cases of a clip: four people at tables."""
    right = [
        Case("when a person appears", ALWAYS, each=False),
        Case("when there is more than one person in the room", ALWAYS, each=False),
        Case("when a chair is visible", ALWAYS, each=False),
    ]
    return right + [
        Case(f"when {when}", ())
        for when in ("a dog appears", "a bus appears", "a car drives by", "the picture goes black")
    ]


CASES = {
    "scenarios/lecture_stone_cutter.mp4": lecture,
    "scenarios/scenes_photos.mp4": photos,
    "video/vtest_pedestrians.mp4": street,
    "video/classroom.mp4": room,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one watch: moments due, moments hit, false alerts, and seconds of delay of each alert.

    `timed`: its time-aware score, empty where its moments are not known.
    """

    when: str
    lure: bool
    due: int
    told: int
    wrong: int
    ages: tuple[float, ...]
    timed: Score


def judged(case: Case, alerts: Sequence[Mapping[str, Any]]) -> Outcome:
    """Compare the alerts of a watch with its truth."""
    times = [alert["at"] for alert in alerts]
    hits = [any(start <= time <= end for time in times) for start, end in case.spans]
    due, fired = (len(hits), sum(hits)) if case.each else (1, int(any(hits)))
    wrong = sum(not any(start <= time <= end for start, end in case.spans) for time in times)
    moments = [Moment(start + EARLY, end) for start, end in case.spans]
    announced = [Told(alert["at"], alert["received"]) for alert in alerts]
    return Outcome(
        case.when,
        not case.spans,
        due if case.spans else 0,
        fired,
        wrong,
        tuple(alert["age_ms"] / 1000 for alert in alerts),
        score(moments, announced, EARLY) if case.each else Score(),
    )


def summary(outcomes: Sequence[Outcome], live: bool) -> str:
    """A Markdown table, and the failures by name."""
    rows = []
    timed = []
    for name, some in (
        ("come true", [o for o in outcomes if not o.lure]),
        ("lures", [o for o in outcomes if o.lure]),
        ("all", outcomes),
    ):
        timed.append((name, *cells(sum((o.timed for o in some), Score()))))
        due, fired, wrong = (
            sum(getattr(outcome, field) for outcome in some) for field in ("due", "told", "wrong")
        )
        ages = [age for outcome in some for age in outcome.ages]
        late = f"{np.percentile(ages, 50):.2f} / {np.percentile(ages, 95):.2f}" if ages and live else "-"
        precision = f"{100 * fired / max(1, fired + wrong):.0f}" if fired + wrong else "-"
        told = (f"{fired} of {due}", f"{100 * fired / due:.0f}") if due else ("-", "-")
        rows.append((name, str(len(some)), *told, str(wrong), precision, late))
    heads = ("watches", "n", "moments told", "recall %", "wrong alerts", "precision %", "latency p50 / p95 s")
    missed = [
        f"missed: {outcome.when} ({outcome.told} of {outcome.due})"
        for outcome in outcomes
        if outcome.told < outcome.due
    ]
    missed += [f"wrong: {outcome.when} ({outcome.wrong})" for outcome in outcomes if outcome.wrong]
    tables = (markdown_table(heads, rows), "", markdown_table(("watches", *HEADS), timed))
    return "\n".join((*tables, "", *missed))


async def watched(scenario: Scenario, cases: Sequence[Case], load: Load, *, live: bool) -> list[Outcome]:
    """Play a recording with its watches. `load`: of engines, where it is not live."""
    made = config.load(None)
    settings = made.model_copy(update={"limits": made.limits.model_copy(update={"watches": len(cases)})})
    async with (
        session_run.worker_service(settings)
        if live
        else session_run.fixed_time_service(settings, load) as service
    ):
        run: SessionRun = await session_run.play(service, scenario, watches=[case.when for case in cases])
    numbers = dict(zip((case.when for case in cases), run.watches, strict=True))
    alerts = figures.of_type(run.events, "alert.fired")
    return [
        judged(case, [alert for alert in alerts if alert["watch_id"] == numbers.get(case.when)])
        for case in cases
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--live", action="store_true", help="in real time, with latencies")
    parser.add_argument("--cache", type=Path, help="folder of the models' results; default: none are kept")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    load = session_run.load_engine
    if chosen.cache is not None:
        chosen.cache.mkdir(parents=True, exist_ok=True)
        load = CachedEngines(chosen.cache).load
    outcomes: list[Outcome] = []
    for name, cases in CASES.items():
        media = chosen.media / name
        truth = (
            json.loads(media.with_suffix(".json").read_text(encoding="utf-8"))
            if media.with_suffix(".json").is_file()
            else {}
        )
        scenario = Scenario(media.stem, media, {**truth, "qa": []}, {})
        with asyncio.Runner(loop_factory=None if chosen.live else clock.Threadless) as runner:
            outcomes += runner.run(watched(scenario, cases(scenario), load, live=chosen.live))
        print(f"{name}: {len(outcomes)} watches so far", flush=True)
    print(summary(outcomes, chosen.live))
    if chosen.json:
        rows = [asdict(outcome) for outcome in outcomes]
        chosen.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
