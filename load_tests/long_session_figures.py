"""The figures of load_tests.long_session: memory, disk and answers; their table and limits."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.worker_models import CACHED_OPS
from streamsvc.evaluation.markdown import markdown_table

SETTLED = 10.0  # minutes after which memory must not grow
GROWTH = 2.0  # MB an hour
DISK = 100.0  # MB an hour
LOST = 1  # questions that may be answered worse at the end than at first
SERVING = "serving"  # name of the serving process


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory and disk at one minute of the stream, in MB.

    `serving`: of the serving process. `models`: of the workers by name. `disk`: what the session stored.
    """

    minute: float
    serving: float
    models: Mapping[str, float]
    disk: float

    def part(self, name: str) -> float:
        """Memory of a worker process or of SERVING; 0 before the process has started."""
        return self.serving if name == SERVING else self.models.get(name, 0.0)


def sample(minute: float, workers: Mapping[str, int | None], folder: Path) -> Sample:
    """Sample now. workers: process ids by name; folder: storage of the session."""
    models = {name: anonymous_mb(pid) for name, pid in workers.items() if pid is not None}
    return Sample(round(minute, 2), anonymous_mb(os.getpid()), models, round(stored_bytes(folder) / 1e6, 2))


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process in MB, without mapped files. Linux only."""
    match = re.search(
        r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE
    )
    assert match is not None
    return round(int(match[1]) * 1024 / 1e6, 2)


@dataclass(slots=True)
class Result:
    """The result of a run.

    `weights`: one sample every EVERY seconds. `early`, `late`: see `examine`. `held`: sizes of the timeline.
    `known`: minute at which every recording had been played once.
    """

    minutes: float = 0.0
    weights: list[Sample] = field(default_factory=list)
    early: list[dict[str, Any]] = field(default_factory=list)
    late: list[dict[str, Any]] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    known: float = 0.0


def stored_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def slope(points: Sequence[tuple[float, float]], after: float) -> float | None:
    """Growth of a value an hour: least squares over (minute, value) from minute `after` on.

    None: fewer than three points.
    """
    fitted = np.array([point for point in points if point[0] >= after])
    return None if len(fitted) < 3 else float(np.polyfit(fitted[:, 0] / 60, fitted[:, 1], 1)[0])


def processes(result: Result) -> list[str]:
    """Names of the measured processes: SERVING and the workers."""
    return [SERVING, *result.weights[-1].models] if result.weights else []


def growth(result: Result, name: str, after: float) -> float | None:
    """Growth of a process in MB an hour from minute `after` on; None: too few samples."""
    return slope([(one.minute, one.part(name)) for one in result.weights if one.part(name)], after)


def _grown(result: Result, name: str, after: float) -> str:
    rate = growth(result, name, after)
    return "-" if rate is None else f"{rate:+.1f} MB an hour"


def right(rows: Sequence[Mapping[str, Any]]) -> int:
    """Number of right answers."""
    return sum(row["verdict"] == "right" for row in rows)


def table(result: Result) -> str:
    """A Markdown table of the figures, and the questions whose verdict changed."""
    disk = result.weights[-1].disk / max(result.minutes, 1e-9) * 60 if result.weights else 0.0
    spans = (SETTLED, result.known)
    memory = [
        (
            f"memory of {name}: most; growth after {spans[0]:.0f} / after {spans[1]:.0f} minutes",
            f"{max(one.part(name) for one in result.weights):.0f} MB; "
            + " / ".join(_grown(result, name, after) for after in spans),
            f"{GROWTH:g} MB an hour",
        )
        for name in processes(result)
    ]
    calls = ", ".join(
        f"{op} {result.calls.get(f'{op} recorded', 0)} of {result.calls.get(op, 0)}" for op in CACHED_OPS
    )
    rows = [
        ("minutes of stream", f"{result.minutes:.1f}", ""),
        ("questions right when just heard", f"{right(result.early)} of {len(result.early)}", ""),
        (
            "questions right at the end",
            f"{right(result.late)} of {len(result.late)}",
            f"at most {LOST} fewer",
        ),
        *memory,
        ("disk", f"{disk:.1f} MB an hour", f"{DISK:g} MB an hour"),
        ("kept in the timeline", ", ".join(f"{count} {name}" for name, count in result.held.items()), ""),
        ("calls answered from the cache", calls, ""),
    ]
    before = {row["id"]: row["verdict"] for row in result.early}
    worse = [
        f"- {row['id']}: {before[row['id']]}, then {row['verdict']}"
        for row in result.late
        if row["verdict"] != before[row["id"]]
    ]
    return "\n".join((markdown_table(("what", "measured", "limit"), rows), "", *worse))


def verdict(result: Result) -> list[str]:
    """Limits that were exceeded; [] if none."""
    wrong = []
    if right(result.late) < right(result.early) - LOST:
        wrong.append(
            f"{right(result.early)} questions were answered right when just heard, "
            f"{right(result.late)} at the end"
        )
    for name in processes(result):
        memory = growth(result, name, SETTLED)
        if memory is not None and memory > GROWTH:
            wrong.append(f"the memory of {name} grew by {memory:.1f} MB an hour")
    if result.weights and result.weights[-1].disk / result.minutes * 60 > DISK:
        wrong.append(f"{result.weights[-1].disk:.0f} MB were stored in {result.minutes:.0f} minutes")
    return wrong
