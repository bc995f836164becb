"""How right, how honest and how late: scenarios and published sets through real sessions, as one table, JSON and a plot.

A scenario (scenario.py) is played in real time by the worker processes, which gives ages, or on a clock that jumps with a fixed time for
each call (rehearsal.py), which gives the same accuracy figures whenever the code, the models and the prompts are the same. Figures are
defined in figures.py, verdicts in grade.py, the sets' own measures there too.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from streamsvc.core.clock import Threadless
from streamsvc.core.config import Settings
from streamsvc.core.errors import StreamsvcError
from streamsvc.evaluation import datasets, figures, grade_answers, session_run
from streamsvc.evaluation.caption_bench import markdown
from streamsvc.evaluation.datasets import SETS, Pictured, Spoken
from streamsvc.evaluation.figures import DECIDED, Table
from streamsvc.evaluation.scenario import Scenario, found
from streamsvc.service.service import Service

Tell = Callable[[str], None]
_TICK = 7  # letters of a name below an axis


@dataclass(frozen=True, slots=True)
class Plan:
    """What to evaluate. `sets`: name and folder of published ones. `live`: in real time. `most`: rows of a set, None: all."""

    scenarios: tuple[Scenario, ...]
    sets: tuple[tuple[str, Path], ...] = ()
    live: bool = False
    most: int | None = None
    language: str | None = None


def planned(
    targets: Sequence[str], *, live: bool = False, most: int | None = None, language: str | None = None
) -> Plan:
    """The plan for targets: paths of scenarios (see scenario.found), and NAME:FOLDER of published sets, where NAME is one of SETS.

    Raises:
        ConfigError: a path holds no scenario.
    """
    paths, sets = [], []
    for target in targets:
        name, _, folder = target.partition(":")
        if name in SETS and folder:
            sets.append((name, Path(folder)))
        else:
            paths.append(Path(target))
    return Plan(tuple(found(paths)), tuple(sets), live, most, language)


def run(settings: Settings, plan: Plan, tell: Tell) -> Table:
    """Evaluate.

    Args:
        settings: of the service.
        plan: what to do.
        tell: takes a line of progress.

    Returns:
        The report, of JSON values: "scenarios" (see figures.report), "all", "sets".

    Raises:
        SourceError: a recording cannot be read. ConfigError: a set is not of its format. ModelMissing, WorkerError: no models.
    """
    served = session_run.working(settings) if plan.live else session_run.steady(settings)
    with asyncio.Runner(loop_factory=None if plan.live else Threadless) as runner:
        told = runner.run(_run(served, plan, tell))
    models = {
        "hear": settings.hear.model,
        "detect": settings.see.detector,
        "tag": settings.see.tagger,
        "think": settings.think.model,
    }
    return {"speed": "1" if plan.live else "max", "models": models, **told}


async def _run(served: AbstractAsyncContextManager[Service], plan: Plan, tell: Tell) -> Table:
    reports: Table = {}
    sets: Table = {}
    async with served as service:
        for scenario in plan.scenarios:
            tell(f"{scenario.name}: {len(scenario.truth.get('qa') or ())} questions")
            reports[scenario.name] = await _scenario(service, scenario, plan)
        for name, folder in plan.sets:
            rows = datasets.rows(name, folder, plan.most)
            if not rows:
                sets[name] = {"not_run": f"{folder} does not hold it"}
                continue
            tell(f"{name}: {len(rows)} rows")
            sets[name] = await _set(service, rows, plan)
    return {"scenarios": reports, "all": pooled(list(reports.values())), "sets": sets}


async def _scenario(service: Service, scenario: Scenario, plan: Plan) -> Table:
    ran = await session_run.play(service, scenario, language=plan.language)
    told = figures.report(scenario.truth, ran.events, ran.asked, scenario.seconds)
    told |= {"seconds": round(ran.seconds, 2), "slices": dict(scenario.slices), "cost": dict(ran.cost)}
    return told | ({"kept": figures.kept(told, service.settings.budget.model_dump())} if plan.live else {})


# --- published sets -----------------------------------------------------------------------------------------------


async def _set(service: Service, rows: Sequence[datasets.Row], plan: Plan) -> Table:
    """The measure that a set was published with, whole and by slice; rows whose media are not there are counted as absent."""
    there = [row for row in rows if (row.audio if isinstance(row, Spoken) else row.image).is_file()]
    told: Table = {"rows": len(there), "absent": len(rows) - len(there)}
    if not there:
        return {"not_run": f"none of the media of its {len(rows)} rows is there"}
    if isinstance(there[0], Spoken):
        spoken = [row for row in there if isinstance(row, Spoken)]
        reports = [
            await _scenario(
                service,
                Scenario(row.id, row.audio, {"transcript": row.text, "speech": [_ANYWHERE]}, row.slices),
                plan,
            )
            for row in spoken
        ]
        return told | {"measure": "WER %", "value": _wer(reports), "slices": by_slice(reports)}
    scores: list[tuple[float, Mapping[str, str]]] = []
    counts: Counter[str] = Counter()
    rule = ""
    for asked in there:
        assert isinstance(asked, Pictured)
        rule = asked.rule
        answer = await session_run.inquire(
            service, asked.question, picture(asked.image, service.settings.limits.image_bytes)
        )
        counts.update(["declined"] if grade_answers.refused(answer) else [])
        scores.append(
            (
                0.0
                if grade_answers.refused(answer)
                else grade_answers.RULES[rule](grade_answers.short(answer["text"]), asked.answers),
                asked.slices,
            )
        )
    slices: dict[str, list[float]] = defaultdict(list)
    for score, of in scores:
        for name, value in of.items():
            slices[f"{name}: {value}"].append(score)
    return told | {
        "measure": f"{rule} %",
        "value": _percent([score for score, _ in scores]),
        "declined": counts["declined"],
        "slices": {
            name: {"rows": len(values), "value": _percent(values)} for name, values in sorted(slices.items())
        },
    }


_ANYWHERE = {"start": 0.0, "end": 1e9}  # seconds: nobody wrote down when it is said


def picture(path: Path, most: int) -> bytes:
    """A picture as it is sent with a question: the file, or a JPEG of it where it is too large or of another format.

    Raises:
        StreamsvcError: it is no picture.
    """
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if len(data) <= most and opened.format in ("JPEG", "PNG"):
                return data
            opened.thumbnail((2048, 2048))
            out = io.BytesIO()
            opened.convert("RGB").save(out, "JPEG", quality=90)
            return out.getvalue()
    except OSError:
        raise StreamsvcError(f"{path} is no picture") from None


def _percent(values: Sequence[float]) -> float:
    return round(100 * sum(values) / len(values), 2)


# --- several as one -----------------------------------------------------------------------------------------------


def _wer(reports: Sequence[Table]) -> float | None:
    heard = [report["speech"] for report in reports if "edits" in report["speech"]]
    words = sum(each["words_spoken"] for each in heard)
    return round(100 * sum(each["edits"] for each in heard) / words, 2) if words else None


def by_slice(reports: Sequence[Table]) -> Table:
    """Word errors by noise, accent and channel, or whatever the slices are called."""
    groups: dict[str, list[Table]] = defaultdict(list)
    for report in reports:
        if "edits" in report["speech"]:
            for name, value in report["slices"].items():
                groups[f"{name}: {value}"].append(report)
    return {
        name: {
            "rows": len(group),
            "words": sum(each["speech"]["words_spoken"] for each in group),
            "value": _wer(group),
        }
        for name, group in sorted(groups.items())
    }


def pooled(reports: Sequence[Table]) -> Table:
    """All scenarios as one: counts summed, latencies joined, the worst p95 of the ages."""
    if not reports:
        return {}
    heard = [report["speech"] for report in reports if "edits" in report["speech"]]
    words = sum(each["words_spoken"] for each in heard)
    rows = [row for report in reports for row in (report["answers"].get("each") or [])]
    halves = sorted({row["half"] for row in rows if row["half"]})
    changes, named = _summed(reports, "keyframes"), _summed(reports, "sights")
    titles = _summed(reports, "screens")
    cers = [row["cer"] for report in reports for row in report["slides"]]
    late: dict[str, list[Table]] = defaultdict(list)
    for report in reports:
        for name, row in report["ages_ms"].items():
            late[name].append(row)
    told: Table = {
        "speech": {
            "wer_percent": _wer(reports),
            "words_spoken": words,
            "coverage": round(
                sum(min(each["words_published"], each["words_spoken"]) for each in heard) / words, 4
            )
            if words
            else None,
            "captions_without_speech": sum(report["speech"]["captions_without_speech"] for report in reports),
            "slices": by_slice(reports),
        },
        "ages_ms": {
            name: {"p50": max(row["p50"] for row in of), "p95": max(row["p95"] for row in of)}
            for name, of in late.items()
        },
        "keyframes": {
            "recall": round(changes["found"] / changes["changes"], 4) if changes["changes"] else None,
            "precision": round(changes["due"] / changes["of_still"], 4) if changes["of_still"] else None,
        },
        "screens": {name: titles[name] for name in ("titles", "found", "in_time")},
        "sights": {name: named[name] for name in ("shown", "named", "by_tag", "by_box")},
        "answers": {
            "by_kind": figures.by_kind(rows),
            "halves": {
                half: figures.by_kind([row for row in rows if row["half"] == half]) for half in halves
            },
            "first_delta_s": figures.spread(
                (row["first_delta_s"] for row in rows if "first_delta_s" in row), 2
            ),
            "done_s": figures.spread((row["done_s"] for row in rows if "done_s" in row), 2),
        },
    }
    told["screens"]["cer_mean"] = round(sum(cers) / len(cers), 4) if cers else None
    kept = [report["kept"] for report in reports if "kept" in report]
    return told | (
        {"kept": {name: all(of[name] for of in kept if name in of) for name in sorted(set().union(*kept))}}
        if kept
        else {}
    )


def _summed(reports: Sequence[Table], part: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update({name: value for name, value in report[part].items() if isinstance(value, int)})
    return total


# --- told ---------------------------------------------------------------------------------------------------------

HEADS = (
    *(
        "scenario",
        "s",
        "WER %",
        "words",
        "stable p50/p95 s",
        "final p50/p95 s",
        "no speech",
        "keyframes",
        "needless",
        "titles",
        "CER %",
    ),
    *("named", "right", "declined", "wrong", "invented", "cited", "first p95 s", "answer p95 s", "budget"),
)


def table(report: Table) -> str:
    """The report for people: a line for each scenario, then questions by kind, word errors by slice, and published sets, in Markdown."""
    parts = []
    live = report["speed"] == "1"
    if report["scenarios"]:
        parts.append(markdown(HEADS, [_line(name, of, live) for name, of in report["scenarios"].items()]))
        answers = report["all"]["answers"]
        for title, kinds in (
            ("", answers["by_kind"]),
            *((f" ({half})", kinds) for half, kinds in answers["halves"].items()),
        ):
            if kinds:
                parts.append(_kinds(f"questions{title}", kinds))
        slices = report["all"]["speech"]["slices"]
        if len(slices) > len(
            {name.partition(":")[0] for name in slices}
        ):  # one value of each tells nothing apart
            parts.append(_slices("speech", slices))
    for name, of in report["sets"].items():
        if "not_run" in of:
            parts.append(f"{name}: not run here, {of['not_run']}.")
            continue
        declined = f", {of['declined']} declined" if "declined" in of else ""
        parts.append(
            f"{name}: {of['measure']} {of['value']} over {of['rows']} rows ({of['absent']} absent{declined})."
        )
        parts += [_slices(name, of["slices"])] if of["slices"] else []
    if report["scenarios"] and not live:
        parts.append(
            "On a clock that jumps, each call of a model takes a fixed time: ages would mean nothing, and are not shown."
        )
    return "\n\n".join(parts)


def _line(name: str, of: Table, live: bool) -> tuple[str, ...]:
    def ages(kind: str) -> str:
        row = of["ages_ms"].get(kind)
        return f"{row['p50'] / 1000:.2f} / {row['p95'] / 1000:.2f}" if row and live else "-"

    def share(part: str, good: str, whole: str) -> str:
        return f"{of[part][good]} of {of[part][whole]}" if of[part].get(whole) else "-"

    speech, answers, screens = of["speech"], of["answers"], of["screens"]
    counts: Counter[str] = Counter()
    for row in (answers or {"by_kind": {}})["by_kind"].values():
        counts.update(row)
    kept = of.get("kept")
    broken = [part for part, good in (kept or {}).items() if not good]
    return (
        name,
        f"{of['seconds']:.0f}",
        f"{speech['wer_percent']:.1f}" if "edits" in speech else "-",
        f"{speech['words_published']} of {speech['words_spoken']}"
        if "edits" in speech
        else f"{speech['words_published']}",
        ages("stable"),
        ages("final"),
        f"{speech['captions_without_speech']}",
        share("keyframes", "found", "changes"),
        f"{of['keyframes']['of_still'] - of['keyframes']['due']}" if of["keyframes"] else "-",
        share("screens", "found", "titles"),
        f"{100 * screens['cer_mean']:.1f}" if screens else "-",
        share("sights", "named", "shown"),
        f"{counts['right']} of {counts['asked']}" if answers else "-",
        *(f"{counts[word]}" if answers else "-" for word in ("declined", "wrong", "hallucinated")),
        f"{counts['cited']} of {counts['citable']}" if answers else "-",
        *(
            f"{answers[part]['p95']:.2f}" if live and answers and answers[part] else "-"
            for part in ("first_delta_s", "done_s")
        ),
        "-" if kept is None else "kept" if not broken else f"not {', '.join(broken)}",
    )


def _kinds(title: str, kinds: Table) -> str:
    heads = (title, "asked", "right", *DECIDED[1:], "not affirmed", "cited of right")
    rows = [
        (
            *(
                name,
                f"{row['asked']}",
                f"{row.get('right', 0)}",
                *(f"{row.get(word, 0)}" for word in DECIDED[1:]),
                f"{row.get('honest', 0)}",
            ),
            f"{row.get('cited', 0)} of {row['citable']}" if row.get("citable") else "-",
        )
        for name, row in kinds.items()
    ]
    return markdown(heads, rows)


def _slices(title: str, slices: Table) -> str:
    rows = [
        (name, f"{row['rows']}", f"{row['words']}" if "words" in row else "-", f"{row['value']}")
        for name, row in slices.items()
    ]
    return markdown((f"{title} by slice", "rows", "words", "value"), rows)


def panels(report: Table) -> list[dict[str, Any]]:
    """The plot, as arguments of `engines.plot.Panel`: verdicts by kind in percent, word errors by slice, and in real time ages.

    Empty: there is nothing to plot.
    """
    plots: list[dict[str, Any]] = []
    kinds = report["all"]["answers"]["by_kind"] if report["all"] else {}
    if kinds:
        lines = {
            word: [100 * row.get(word, 0) / row["asked"] for row in kinds.values()]
            for word in ("right", "declined", "wrong", "hallucinated")
        }
        plots.append(
            {"title": "questions, % by kind", "ticks": [name[:_TICK] for name in kinds], "lines": lines}
        )
    slices = report["all"]["speech"]["slices"] if report["all"] else {}
    if slices:
        ticks = [name.partition(": ")[2][:_TICK] for name in slices]
        plots.append(
            {
                "title": "word errors, %",
                "ticks": ticks,
                "lines": {"right": [row["value"] or 0.0 for row in slices.values()]},
            }
        )
    if report["speed"] == "1" and report["all"]:
        late = report["all"]["ages_ms"]
        lines = {share: [row[share] / 1000 for row in late.values()] for share in ("p50", "p95")}
        plots.append({"title": "age, s", "ticks": [name[:_TICK] for name in late], "lines": lines})
    return plots
