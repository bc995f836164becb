"""Units as event event_body, and the running account of ages that `latency.report` tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamsvc.core.types import Answer, Cue, Evidence, Scene, ScreenText, Sight, Translation, Word


def event_body(
    unit: Cue | Translation | Sight | ScreenText | Scene | Answer, url: Callable[[float], str] | None = None
) -> dict[str, Any]:
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
                "boxes": [
                    {"label": box.label, "score": round(box.score, 3), **_place(box)} for box in unit.boxes
                ],
            }
        case ScreenText():
            lines = [{"text": line.text, **_place(line)} for line in unit.lines]
            return {"title": unit.title, "lines": lines, "first_seen": round(unit.first_seen, 3)}
        case Scene():
            span = {"start": round(unit.start, 3), "end": round(unit.end, 3)}
            return {
                "text": unit.text,
                **span,
                "evidence": [evidence(item, url) for item in unit.evidence],
                "by": unit.by,
            }
        case Answer():
            told = [evidence(item, url) for item in unit.evidence]
            return {
                "question_id": unit.question_id,
                "text": unit.text,
                "supported": unit.supported,
                "evidence": told,
            }


def evidence(item: Evidence, url: Callable[[float], str] | None) -> dict[str, Any]:
    """One piece of evidence as JSON."""
    body: dict[str, Any] = {
        "start": round(item.start, 3),
        "end": round(item.end, 3),
        "kind": item.kind,
        "quote": item.quote,
    }
    if url is not None and item.frame is not None:
        body["url"] = url(item.frame)
    return body


def _word(word: Word) -> dict[str, Any]:
    probability = min(1.0, max(0.0, round(word.probability, 3)))
    return {
        "text": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "probability": probability,
    }


def _place(thing: Any) -> dict[str, float]:
    return {side: round(float(getattr(thing, side)), 4) for side in ("x", "y", "w", "h")}
