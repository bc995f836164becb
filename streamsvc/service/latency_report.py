"""The running account of ages and coverage behind `latency.report`."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np

from streamsvc.core import clock, metrics
from streamsvc.core.types import Answer, Delta, Event, Gap, Words
from streamsvc.core.units import Reply, Unit

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
    """Ages by kind over the last events of one session, and the share of its speech that was captioned."""

    def __init__(self) -> None:
        self._ages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._captioned = 0.0  # seconds of speech in closed captions
        self._lost = 0.0  # seconds that will never be captioned

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
            self._captioned += event.body["end"] - event.body["start"]

    def note_unit(self, unit: Unit) -> None:
        """Count what no event's age tells: stable words, lost audio, first and last part of an answer."""
        match unit:
            case Words():
                age = clock.now() - unit.arrived
                metrics.caption_age.labels("stable").observe(age)
                self._ages["stable"].append(age)
            case Gap():
                metrics.caption_gap.inc(unit.end - unit.start)
                self._lost += unit.end - unit.start
            case Reply(part=Delta(), first=True):
                age = clock.now() - unit.arrived
                metrics.answer_first_delta.observe(age)
                self._ages["first_delta"].append(age)
            case Reply(part=Answer()):
                self._ages["answer"].append(clock.now() - unit.arrived)

    def body(self, backlog: float, level: int) -> dict[str, Any]:
        """The body of latency.report; ages in milliseconds.

        Args:
            backlog: frames that wait in the session's rings.
            level: degradation level.
        """
        ages = {kind: _percentiles(list(ages)) for kind, ages in self._ages.items()}
        total = self._captioned + self._lost
        coverage = round(self._captioned / total, 4) if total else None
        return {"ages": ages, "coverage": coverage, "backlog": backlog, "level": level}


def _percentiles(ages: list[float]) -> dict[str, int]:
    p50, p95 = np.percentile(ages, (50, 95))
    return {"p50": round(float(p50) * 1000), "p95": round(float(p95) * 1000), "count": len(ages)}
