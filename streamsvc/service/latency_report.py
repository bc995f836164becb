"""The running account of ages and coverage behind `latency.report` and `stats`."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np

from streamsvc.core import clock, metrics
from streamsvc.core.types import Answer, Cue, Delta, Event, Gap, Speech, Translation, Words
from streamsvc.core.units import Reply, Unit
from streamsvc.events.replay import LoggedUnit
from streamsvc.service.coverage import Coverage

_WINDOW = 200  # ages of a kind behind a percentile
# Event type -> kind in `latency.report`, and in the metric streamsvc_caption_age_seconds but for those of
# _NOT_IN_METRIC.
_KINDS = {
    "caption.partial": "partial",
    "caption.final": "final",
    "caption.translation": "translation",
    "sight.ready": "sight",
    "screen.text": "screen",
    "scene.caption": "scene",
}
_NOT_IN_METRIC = {"translation"}


class LatencyReport:
    """Ages by kind over the last events of one session, and the coverage of the speech detected in it."""

    def __init__(self) -> None:
        self._ages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._coverage = Coverage()

    def note_event(self, event: Event, *, aged: bool = True) -> None:
        """Count the age of a published event. `aged` False: the event is about now, and has no age."""
        kind = _KINDS.get(event.type)
        if kind is not None and aged:
            if event.body.get("by") == "model":  # background work, outside the latency budget
                kind = f"{kind}_model"
            if event.age_ms:
                self._ages[kind].append(event.age_ms / 1000)
            if kind not in _NOT_IN_METRIC:
                metrics.caption_age.labels(kind).observe(event.age_ms / 1000)
        if event.type == "caption.final":
            self._coverage.note_caption(event.body["start"], event.body["end"])

    def note_unit(self, unit: Unit) -> None:
        """Count what no event's age tells: speech, stable words, lost audio, parts of answers."""
        match unit:
            case Words():
                age = clock.now() - unit.arrived
                metrics.caption_age.labels("stable").observe(age)
                self._ages["stable"].append(age)
            case Gap():
                metrics.caption_gap.inc(unit.end - unit.start)
                self._coverage.note_gap(unit.start, unit.end)
            case Speech():
                self._coverage.note_speech(unit.at, active=unit.active)
            case Reply(part=Delta(), first=True):
                age = clock.now() - unit.arrived
                metrics.answer_first_delta.observe(age)
                self._ages["first_delta"].append(age)
            case Reply(part=Answer()):
                age = clock.now() - unit.arrived
                metrics.caption_age.labels("answer").observe(age)
                self._ages["answer"].append(age)

    def restore(self, unit: LoggedUnit | Translation) -> None:
        """Count what an earlier run has published: its coverage again, and nothing in the metrics."""
        match unit:
            case Cue(final=True):
                self._coverage.note_caption(unit.start, unit.end)
            case Gap():
                self._coverage.note_gap(unit.start, unit.end)
            case Speech():
                self._coverage.note_speech(unit.at, active=unit.active)

    def body(self, backlog: float, level: int) -> dict[str, Any]:
        """The body of latency.report; ages in milliseconds.

        Args:
            backlog: seconds of audio that wait to be recognised.
            level: degradation level.
        """
        ages = {kind: _percentiles(list(ages)) for kind, ages in self._ages.items()}
        seconds = self._coverage.seconds()
        return {
            "ages": ages,
            "coverage": None if seconds.share is None else round(seconds.share, 4),
            "speech": {
                "captioned_seconds": round(seconds.captioned, 1),
                "missing_seconds": round(seconds.missing, 1),
                "gap_seconds": round(seconds.gaps, 1),
            },
            "backlog": round(backlog, 2),
            "level": level,
        }

    def count_coverage(self, *, ended: bool = False) -> None:
        """Add to the metric what of the coverage is settled; `ended`: all of it."""
        settled = self._coverage.settle(ended=ended)
        metrics.speech.labels("captioned").inc(settled.captioned)
        metrics.speech.labels("missing").inc(settled.missing)
        metrics.speech.labels("gap").inc(settled.gaps)


def _percentiles(ages: list[float]) -> dict[str, int]:
    p50, p95 = np.percentile(ages, (50, 95))
    return {"p50": round(float(p50) * 1000), "p95": round(float(p95) * 1000), "count": len(ages)}
