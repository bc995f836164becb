"""The figures of `streamsvc bench captions` as JSON and as a Markdown table.

No word that was said is in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.caption_bench import Offline, Plan, Row
from streamsvc.evaluation.markdown import markdown_table

MAX_LATE_FEED = 0.1  # seconds; audio fed later than this makes a run doubtful
MIN_PIECES = 10  # the bootstrap bound of fewer pieces is worthless
MAX_OTHER_CPU = 0.2  # CPU seconds a second of other work that are remarked on
HEADS = (
    "recording",
    "s",
    "words",
    "WER %",
    "first p50/p95 s",
    "committed p50/p95/max s",
    "erasure",
    "revised",
    "CPU s/s",
    "PSS hear/all MB",
    "longest gap s",
    "flush s",
    "on non-speech",
    "ends from",
)


def figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """The figures of one run, or of several runs pooled.

    Counts and latencies are joined, costs are per second of audio, of the rest the worst is taken.
    """
    seconds = sum(row.seconds for row in rows)
    hear = [row.cost.hear for row in rows if row.cost.hear is not None]
    return {
        **score_captions.figures(score_captions.pool([row.score for row in rows])),
        "seconds": round(seconds, 2),
        "cpu_per_audio_s": round(sum(row.cost.cpu for row in rows) / seconds, 3),
        "other_cpu_per_audio_s": round(sum(row.cost.other for row in rows) / seconds, 3),
        "pss_hear_mb": round(max(hear) / 1e6) if hear else None,
        "pss_all_mb": round(max(row.cost.all for row in rows) / 1e6),
        "flush_s": round(max(row.flush for row in rows), 2),
        "late_feed_s": round(max(row.late for row in rows), 3),
        "lost_s": round(sum(row.lost for row in rows), 2),
    }


def as_json(rows: Sequence[Row], offline: Offline | None, plan: Plan, model: str) -> dict[str, Any]:
    """The report for programs: each run, and all runs pooled."""
    report: dict[str, Any] = {
        "model": model,
        "speed": "1" if plan.live else "max",
        "chunk_ms": 1000 * plan.chunk / SAMPLE_RATE,
        "runs": [
            {"recording": row.name, "run": row.run, "ends": row.ends_from, **figures([row])} for row in rows
        ],
        "all": figures(rows),
    }
    if offline is not None:
        report["offline"] = {
            "wer": offline.wer,
            "difference": offline.difference.points,
            "upper_95": offline.difference.upper,
            "pieces": offline.difference.pieces,
        }
    return report


def table(rows: Sequence[Row], offline: Offline | None, plan: Plan) -> str:
    """The report for people: a line a run, one for all, and remarks."""
    lines = [
        _line(f"{row.name}{f' ({row.run})' if plan.runs > 1 else ''}", row.ends_from, figures([row]))
        for row in rows
    ]
    if len(rows) > 1:
        lines.append(_line("all", "", figures(rows)))
    return "\n".join([markdown_table(HEADS, lines), *_remarks(rows, offline, plan)])


def _line(name: str, ends_from: str, values: dict[str, float | None]) -> tuple[str, ...]:
    def cell(key: str, digits: int = 0, factor: int = 1) -> str:
        value = values[key]
        return "-" if value is None else f"{factor * value:.{digits}f}"

    return (
        name,
        cell("seconds"),
        cell("words"),
        cell("wer", 1, 100),
        f"{cell('first_p50', 2)} / {cell('first_p95', 2)}",
        f"{cell('commit_p50', 2)} / {cell('commit_p95', 2)} / {cell('commit_max', 2)}",
        cell("erasure", 2),
        cell("commit_erased"),
        cell("cpu_per_audio_s", 3),
        f"{cell('pss_hear_mb')} / {cell('pss_all_mb')}",
        cell("longest_gap_s", 2),
        cell("flush_s", 2),
        cell("non_speech_words"),
        ends_from,
    )


def _remarks(rows: Sequence[Row], offline: Offline | None, plan: Plan) -> list[str]:
    values = figures(rows)
    lines = []
    if not plan.live:
        lines.append(
            "On a virtual clock: the models' CPU time is their duration. "
            "CPU and memory are those of this one process."
        )
    if offline is not None:
        lines += _compared(offline)
    elif plan.offline:
        lines.append("No recording has a truth: nothing to compare with offline decoding.")
    if not all(row.reference.true for row in rows):
        lines.append(
            "Without a truth, an offline decode by the same model is the reference, and there is no WER."
        )
    if (late := values["late_feed_s"] or 0.0) > MAX_LATE_FEED:
        lines.append(f"Doubtful: audio was fed up to {late:.2f} s late: this process lacked CPU time.")
    if plan.live and (other := values["other_cpu_per_audio_s"] or 0.0) > MAX_OTHER_CPU:
        lines.append(f"Other processes used {other:.2f} CPU s/s meanwhile: latencies are on the high side.")
    if values["lost_s"]:
        lines.append(f"{values['lost_s']:.1f} s of audio were dropped.")
    return ["", *lines] if lines else []


def _compared(offline: Offline) -> list[str]:
    gap = offline.difference
    lines = [
        f"Offline faster-whisper, beam 1, the same weights: WER {100 * offline.wer:.1f} %. "
        f"Live minus offline: {100 * gap.points:+.1f} points, upper 95 % bound {100 * gap.upper:+.1f} "
        f"(paired bootstrap, {gap.pieces} pieces of about {score_captions.PIECE} words, "
        f"{score_captions.RESAMPLES} resamples)."
    ]
    if gap.pieces < MIN_PIECES:
        lines.append(
            "Too few pieces for a bound: "
            f"take recordings of {MIN_PIECES * score_captions.PIECE} words or more."
        )
    return lines
