"""Units as event bodies, and the running account of ages that `latency.report` tells."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from streamsvc.core import metrics
from streamsvc.core.config import Budget
from streamsvc.core.types import Answer, Cue, Event, Evidence, Scene, ScreenText, Sight, Translation, Word

_KEPT = 200  # ages per kind behind a percentile
_REPORTED = {
    "caption.partial": "partial",
    "caption.final": "final",
    "caption.translation": "translation",
    "sight.ready": "sight",
    "screen.text": "screen",
    "scene.caption": "scene",
}


class Report:
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
        return {"ages": ages, "coverage": round(self._heard / total, 4) if total else None, "backlog": backlog, "level": self.level}


def bodies(unit: Cue | Translation | Sight | ScreenText | Scene | Answer, url: Callable[[float], str] | None = None) -> dict[str, Any]:
    """The event body of a unit; `url` gives the address of a keyframe."""
    match unit:
        case Cue():
            body = {
                "text": unit.text,
                "words": [_word(word) for word in unit.words],
                "start": round(unit.start, 3),
                "end": round(unit.end, 3),
                "language": unit.language,
            }
            return body if unit.final else body | {"stable": unit.stable}
        case Translation():
            return {"of": unit.of, "text": unit.text, "language": unit.language}
        case Sight():
            return {
                "tags": [{"label": tag.label, "score": round(tag.score, 3)} for tag in unit.tags],
                "boxes": [{"label": box.label, "score": round(box.score, 3), **_place(box)} for box in unit.boxes],
            }
        case ScreenText():
            lines = [{"text": line.text, **_place(line)} for line in unit.lines]
            return {"title": unit.title, "lines": lines, "first_seen": round(unit.first_seen, 3)}
        case Scene():
            span = {"start": round(unit.start, 3), "end": round(unit.end, 3)}
            return {"text": unit.text, **span, "evidence": [evidence(item, url) for item in unit.evidence], "by": unit.by}
        case Answer():
            told = [evidence(item, url) for item in unit.evidence]
            return {"question_id": unit.question_id, "text": unit.text, "supported": unit.supported, "evidence": told}


def evidence(item: Evidence, url: Callable[[float], str] | None) -> dict[str, Any]:
    """One piece of evidence as JSON."""
    body: dict[str, Any] = {"start": round(item.start, 3), "end": round(item.end, 3), "kind": item.kind, "quote": item.quote}
    if url is not None and item.frame is not None:
        body["url"] = url(item.frame)
    return body


def _word(word: Word) -> dict[str, Any]:
    probability = min(1.0, max(0.0, round(word.probability, 3)))
    return {"text": word.text, "start": round(word.start, 3), "end": round(word.end, 3), "probability": probability}


def _place(thing: Any) -> dict[str, float]:
    return {side: round(float(getattr(thing, side)), 4) for side in ("x", "y", "w", "h")}
