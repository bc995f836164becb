"""The reports of several scenarios (figures.report) pooled into one. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from streamsvc.evaluation import answer_figures
from streamsvc.evaluation.figures import Report


def pooled(reports: Sequence[Report]) -> Report:
    """All scenarios as one; {} without reports.

    Counts are summed and latencies joined; of the ages the worst percentiles are taken.
    """
    if not reports:
        return {}
    pool: Report = {
        "speech": _speech(reports),
        "ages_ms": _worst_ages(reports),
        **_pictures(reports),
        "answers": _answers(reports),
    }
    budgets = [report["kept"] for report in reports if "kept" in report]
    if budgets:
        names = sorted(set().union(*budgets))
        pool["kept"] = {name: all(budget[name] for budget in budgets if name in budget) for name in names}
    return pool


def wer(reports: Sequence[Report]) -> float | None:
    """Word error rate over all words, in percent; None: no report has a transcript."""
    scored = _scored(reports)
    words = sum(speech["words_spoken"] for speech in scored)
    return round(100 * sum(speech["edits"] for speech in scored) / words, 2) if words else None


def by_slice(reports: Sequence[Report]) -> Report:
    """Word error rate by slice: noise, accent, channel, or the slices of a published set."""
    groups: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        if "edits" in report["speech"]:
            for name, value in report["slices"].items():
                groups[f"{name}: {value}"].append(report)
    return {
        name: {
            "rows": len(group),
            "words": sum(report["speech"]["words_spoken"] for report in group),
            "value": wer(group),
        }
        for name, group in sorted(groups.items())
    }


def _scored(reports: Sequence[Report]) -> list[Report]:
    """The speech figures that have a reference."""
    return [report["speech"] for report in reports if "edits" in report["speech"]]


def _speech(reports: Sequence[Report]) -> Report:
    scored = _scored(reports)
    words = sum(speech["words_spoken"] for speech in scored)
    published = sum(min(speech["words_published"], speech["words_spoken"]) for speech in scored)
    return {
        "wer_percent": wer(reports),
        "words_spoken": words,
        "coverage": round(published / words, 4) if words else None,
        "captions_without_speech": sum(report["speech"]["captions_without_speech"] for report in reports),
        "slices": by_slice(reports),
    }


def _worst_ages(reports: Sequence[Report]) -> Report:
    rows: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        for name, row in report["ages_ms"].items():
            rows[name].append(row)
    return {
        name: {"p50": max(row["p50"] for row in group), "p95": max(row["p95"] for row in group)}
        for name, group in rows.items()
    }


def _pictures(reports: Sequence[Report]) -> Report:
    changes = _summed(reports, "keyframes")
    titles = _summed(reports, "screens")
    named = _summed(reports, "sights")
    cers = [row["cer"] for report in reports for row in report["slides"]]
    return {
        "keyframes": {
            "recall": round(changes["found"] / changes["changes"], 4) if changes["changes"] else None,
            "precision": round(changes["due"] / changes["of_still"], 4) if changes["of_still"] else None,
        },
        "screens": {
            **{name: titles[name] for name in ("titles", "found", "in_time")},
            "cer_mean": round(sum(cers) / len(cers), 4) if cers else None,
        },
        "sights": {name: named[name] for name in ("shown", "named", "by_tag", "by_box")},
    }


def _answers(reports: Sequence[Report]) -> Report:
    return answer_figures.figures_of(
        [row for report in reports for row in (report["answers"].get("each") or [])]
    )


def _summed(reports: Sequence[Report], part: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update({name: value for name, value in report[part].items() if isinstance(value, int)})
    return total
