"""The report of `streamsvc eval` as Markdown tables and as panels of a plot. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamsvc.evaluation import answer_figures
from streamsvc.evaluation.answer_figures import VERDICTS
from streamsvc.evaluation.figures import Report
from streamsvc.evaluation.markdown import markdown_table

TICK_LENGTH = 7  # letters of a name below an axis
HEADS = (
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
    "named",
    "right",
    "pointed",
    "declined",
    "wrong",
    "invented",
    "cited",
    "first p95 s",
    "answer p95 s",
    "budget",
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of the plot, as `engines.plot.Panel` takes it.

    `ticks`: names of the places; `lines`: a value at each.
    """

    title: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[float]]


def table(report: Report) -> str:
    """The report for people.

    A line a scenario, then questions by kind, word errors by slice, and published sets.
    """
    live = report["speed"] == "1"
    parts = _scenarios(report, live) if report["scenarios"] else []
    for name, of_set in report["sets"].items():
        parts += _dataset(name, of_set)
    if report["scenarios"] and not live:
        parts.append(
            "On a virtual clock every call has a fixed duration: ages mean nothing and are not shown."
        )
    return "\n\n".join(parts)


def _scenarios(report: Report, live: bool) -> list[str]:
    rows = [_line(name, scenario, live) for name, scenario in report["scenarios"].items()]
    parts = [markdown_table(HEADS, rows)]
    answers = report["all"]["answers"]
    if answers["total"]:
        parts.append(_shares(report))
    if answers["sources"]:
        parts.append(_groups("by", answers["sources"]))
    if live and answers["done_s"]:
        parts.append(_waits(answers))
    for suffix, tables in (("", answers), *((f" ({half})", of) for half, of in answers["halves"].items())):
        for group in answer_figures.GROUPS:
            if of_group := tables[f"by_{group}"]:
                parts.append(_groups(f"{group}{suffix}", of_group))
    slices = report["all"]["speech"]["slices"]
    if len(slices) > len({name.partition(":")[0] for name in slices}):  # a slice with one value says nothing
        parts.append(_slices("speech", slices))
    return parts


def _dataset(name: str, report: Report) -> list[str]:
    if "not_run" in report:
        return [f"{name}: not run here, {report['not_run']}."]
    declined = f", {report['declined']} declined" if "declined" in report else ""
    line = (
        f"{name}: {report['measure']} {report['value']} over {report['rows']} rows"
        f" ({report['absent']} absent{declined})."
    )
    return [line, _slices(name, report["slices"])] if report["slices"] else [line]


def _line(name: str, report: Report, live: bool) -> tuple[str, ...]:
    return (
        name,
        f"{report['seconds']:.0f}",
        *_speech_cells(report, live),
        *_picture_cells(report),
        *_answer_cells(report["answers"], live),
        _budget_cell(report.get("kept")),
    )


def _speech_cells(report: Report, live: bool) -> tuple[str, ...]:
    def ages(kind: str) -> str:
        row = report["ages_ms"].get(kind)
        return f"{row['p50'] / 1000:.2f} / {row['p95'] / 1000:.2f}" if row and live else "-"

    speech = report["speech"]
    scored = "edits" in speech
    spoken = f" of {speech['words_spoken']}" if scored else ""
    return (
        f"{speech['wer_percent']:.1f}" if scored else "-",
        f"{speech['words_published']}{spoken}",
        ages("stable"),
        ages("final"),
        f"{speech['captions_without_speech']}",
    )


def _picture_cells(report: Report) -> tuple[str, ...]:
    def share(part: str, good: str, whole: str) -> str:
        return f"{report[part][good]} of {report[part][whole]}" if report[part].get(whole) else "-"

    keyframes, screens = report["keyframes"], report["screens"]
    return (
        share("keyframes", "found", "changes"),
        f"{keyframes['of_still'] - keyframes['due']}" if keyframes else "-",
        share("screens", "found", "titles"),
        f"{100 * screens['cer_mean']:.1f}" if screens else "-",
        share("sights", "named", "shown"),
    )


def _answer_cells(answers: Report, live: bool) -> tuple[str, ...]:
    if not answers:
        return ("-",) * 8
    total = answers["total"]
    return (
        f"{total.get('right', 0)} of {total['asked']}",
        *(f"{total.get(verdict, 0)}" for verdict in ("pointed", "declined", "wrong", "hallucinated")),
        f"{total.get('cited', 0)} of {total.get('citable', 0)}",
        *(
            f"{answers[part]['p95']:.2f}" if live and answers[part] else "-"
            for part in ("first_part_s", "done_s")
        ),
    )


def _budget_cell(kept: Mapping[str, bool] | None) -> str:
    if kept is None:
        return "-"
    exceeded = [part for part, within in kept.items() if not within]
    return f"not {', '.join(exceeded)}" if exceeded else "kept"


def _shares(report: Report) -> str:
    """What the answers amount to: of all questions, of each half and of each recording."""
    answers = report["all"]["answers"]
    tables = {
        "all": answers["total"],
        **{half: of["total"] for half, of in answers["halves"].items()},
        **{
            name: scenario["answers"]["total"]
            for name, scenario in report["scenarios"].items()
            if scenario["answers"]
        },
    }
    heads = (
        "answers",
        "answerable",
        "right %",
        "right or pointed %",
        "among first three %",
        "told as answer",
        "of these right %",
        "near misses told",
        "failed",
        "points %",
        "cited %",
    )
    return markdown_table(heads, [_share_cells(name, table) for name, table in tables.items()])


def _share_cells(name: str, table: Mapping[str, float]) -> tuple[str, ...]:
    percent = {
        key: "-" if share is None else f"{share:.1f}" for key, share in answer_figures.shares(table).items()
    }
    near = table["asked"] - table.get("answerable", 0)
    return (
        name,
        f"{table.get('answerable', 0)}",
        percent["right"],
        percent["reached"],
        percent["among_first"],
        f"{table.get('told', 0)}",
        percent["precision"],
        f"{table.get('told_near_misses', 0)} of {near}",
        f"{table.get('failed', 0) + table.get('unanswered', 0)}",
        percent["points"],
        percent["cited"],
    )


def _waits(answers: Report) -> str:
    heads = ("seconds from the question", "n", "p50", "p95", "longest")
    rows = [
        (name, f"{of['n']}", *(f"{of[share]:.2f}" for share in ("p50", "p95", "max")))
        for name, of in (
            ("to the first part", answers["first_part_s"]),
            ("to the whole answer", answers["done_s"]),
        )
        if of
    ]
    return markdown_table(heads, rows)


def _groups(title: str, groups: Report) -> str:
    heads = (title, "asked", *VERDICTS, "not affirmed", "cited of right")
    rows = [
        (
            name,
            f"{row['asked']}",
            *(f"{row.get(verdict, 0)}" for verdict in VERDICTS),
            f"{row.get('honest', 0)}",
            f"{row.get('cited', 0)} of {row['citable']}" if row.get("citable") else "-",
        )
        for name, row in groups.items()
    ]
    return markdown_table(heads, rows)


def _slices(title: str, slices: Report) -> str:
    rows = [
        (name, f"{row['rows']}", f"{row['words']}" if "words" in row else "-", f"{row['value']}")
        for name, row in slices.items()
    ]
    return markdown_table((f"{title} by slice", "rows", "words", "value"), rows)


def panels(report: Report) -> list[Panel]:
    """Verdicts by kind in percent, word errors by slice, and in real time ages.

    Empty: there is nothing to plot.
    """
    if not report["all"]:
        return []
    plots = []
    if kinds := report["all"]["answers"]["by_kind"]:
        shares = {
            verdict: [100 * row.get(verdict, 0) / row["asked"] for row in kinds.values()]
            for verdict in VERDICTS[:-1]
        }
        plots.append(Panel("questions, % by kind", [name[:TICK_LENGTH] for name in kinds], shares))
    if slices := report["all"]["speech"]["slices"]:
        ticks = [name.partition(": ")[2][:TICK_LENGTH] for name in slices]
        plots.append(
            Panel("word errors, %", ticks, {"right": [row["value"] or 0.0 for row in slices.values()]})
        )
    if report["speed"] == "1":
        ages = report["all"]["ages_ms"]
        lines = {share: [row[share] / 1000 for row in ages.values()] for share in ("p50", "p95")}
        plots.append(Panel("age, s", [name[:TICK_LENGTH] for name in ages], lines))
    return plots
