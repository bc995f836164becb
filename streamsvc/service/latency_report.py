"""The running account of ages and coverage behind `latency.report`."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np

from streamsvc.core import metrics
from streamsvc.core.config import Budget
from streamsvc.core.types import Event

_KEPT = 200  # ages per kind behind a percentile
_REPORTED = {
    "caption.partial": "partial",
    "caption.final": "final",
    "caption.translation": "translation",
    "sight.ready": "sight",
    "screen.text": "screen",
    "scene.caption": "scene",
}


class LatencyReport:
    """Ages by kind over the last events, and how much of the audio was captioned."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.level = 0  # of the ladder of fidelity; 0: none is spent
        self._ages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._heard = 0.0  # seconds of speech in closed captions
        self._lost = 0.0  # seconds that will never be captioned

    def note(self, event: Event) -> None:
        """Count one published event."""
        if event.type in _REPORTED and event.age_ms:
            by = "_model" if event.body.get("by") == "model" else ""  # in its own time, and not in the budget
            self._ages[_REPORTED[event.type] + by].append(event.age_ms / 1000)
        if event.type == "caption.final":
            self._heard += event.body["end"] - event.body["start"]

    def age(self, kind: str, seconds: float) -> None:
        """Count an age that no event carries."""
        self._ages[kind].append(seconds)

    def stable(self, seconds: float) -> None:
        """Count the age of newly stable words."""
        metrics.caption_age.labels("stable").observe(seconds)
        self.age("stable", seconds)

    def gap(self, seconds: float) -> None:
        """Count audio that will never be captioned."""
        metrics.caption_gap.inc(seconds)
        self._lost += seconds

    def body(self, backlog: float) -> dict[str, Any]:
        """The body of latency.report; ages in milliseconds."""
        ages = {
            kind: {
                "p50": round(float(np.percentile(list(ages), 50)) * 1000),
                "p95": round(float(np.percentile(list(ages), 95)) * 1000),
                "count": len(ages),
            }
            for kind, ages in self._ages.items()
        }
        total = self._heard + self._lost
        return {
            "ages": ages,
            "coverage": round(self._heard / total, 4) if total else None,
            "backlog": backlog,
            "level": self.level,
        }
