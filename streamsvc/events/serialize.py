"""Units as events: type, body and times of the event that a unit is published as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamsvc.core.errors import Cancelled, CapacityError, DeadlineMissed, StreamsvcError
from streamsvc.core.types import (
    Answer,
    Box,
    Cue,
    Delta,
    Evidence,
    Gap,
    Keyframe,
    Reason,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Stages,
    TextLine,
    Translation,
    Word,
)
from streamsvc.core.units import AlertFired, Flushed, Reply, SceneDelta, Unit

# What an error of a question means to its asker; other errors have no reason but their own.
_REASONS: tuple[tuple[type[StreamsvcError], Reason], ...] = (
    (CapacityError, "busy"),
    (DeadlineMissed, "late"),
    (Cancelled, "cancelled"),
)
FrameUrl = Callable[[float], str]  # session seconds of a keyframe -> where its thumbnail can be loaded


@dataclass(frozen=True, slots=True)
class EventDraft:
    """What of an event the unit decides.

    `at`: session seconds; None: now. `arrived`: monotonic seconds; None: no age.
    """

    type: str
    body: dict[str, Any]
    at: float | None = None
    arrived: float | None = None
    stages: Stages = ()
    audience: str | None = None  # the one subscriber that may see it; None: all


def event_draft(unit: Unit, url: FrameUrl) -> EventDraft:
    """The event that a unit is published as.

    Args:
        unit: of any kind but Words, which become cues first.
        url: the address of a keyframe.

    Raises:
        TypeError: units of this kind are not published.
    """
    body: dict[str, Any]
    match unit:
        case Cue():
            kind = "caption.final" if unit.final else "caption.partial"
            return EventDraft(kind, cue_body(unit), unit.start, unit.arrived, unit.stages)
        case Translation():
            body = {"of": unit.of, "text": unit.text, "language": unit.language}
            return EventDraft("caption.translation", body, unit.start, unit.arrived, unit.stages)
        case Speech():
            kind = "speech.started" if unit.active else "speech.stopped"
            return EventDraft(kind, {}, unit.at, unit.arrived, unit.stages)
        case Gap():
            return EventDraft("caption.gap", {**_span(unit), "reason": unit.reason}, unit.at)
        case Flushed():
            return EventDraft("session.flushed", {}, audience=unit.audience)
        case Keyframe():
            body = {"reason": unit.reason, "url": url(unit.at)}
            return EventDraft("keyframe.sampled", body, unit.at, unit.arrived, unit.stages)
        case Sight():
            return EventDraft("sight.ready", sight_body(unit), unit.at, unit.arrived, unit.stages)
        case ScreenText():
            lines = [
                {"text": line.text, "score": _share(line.score), **_rectangle(line)} for line in unit.lines
            ]
            body = {
                "of": unit.of,
                "title": unit.title,
                "lines": lines,
                "first_seen": round(unit.first_seen, 3),
            }
            return EventDraft("screen.text", body, unit.at, unit.arrived, unit.stages)
        case Scene():
            body = {"text": unit.text, **_span(unit), "evidence": _all(unit.evidence, url), "by": unit.by}
            body |= {"scene_id": unit.scene_id} if unit.scene_id else {}
            return EventDraft("scene.caption", body, unit.at, unit.arrived, unit.stages)
        case SceneDelta():
            body = {"scene_id": unit.scene_id, "index": unit.index, "text": unit.text}
            body |= {"start": round(unit.start, 3)} | ({"withdrawn": True} if unit.withdrawn else {})
            return EventDraft("scene.delta", body, unit.at, unit.arrived, unit.stages)
        case Reply():
            return _reply(unit, url)
        case AlertFired():
            body = {"watch_id": unit.watch_id, "text": unit.text, "evidence": _all(unit.evidence, url)}
            body["decided_by"] = unit.decided_by
            return EventDraft("alert.fired", body, unit.at, unit.arrived, unit.stages)
        case _:
            raise TypeError(f"units of kind {type(unit).__name__} are not published")


def _reply(unit: Reply, url: FrameUrl) -> EventDraft:
    body: dict[str, Any] = {"question_id": unit.question_id}
    match unit.part:
        case Delta():
            body["text"] = unit.part.text
        case Answer():
            body |= _answer(unit.part, url)
        case StreamsvcError():
            body |= {"text": "", "outcome": "declined", "supported": False, "evidence": []}
            body |= _reason(next((why for kind, why in _REASONS if isinstance(unit.part, kind)), ""))
            body["error"] = unit.part.body()["error"]
    kind = "answer.delta" if isinstance(unit.part, Delta) else "answer.done"
    return EventDraft(kind, body, unit.at, unit.arrived, unit.stages, unit.audience)


def _answer(answer: Answer, url: FrameUrl) -> dict[str, Any]:
    """The body of answer.done, but for the question's id: only a stated answer is ever supported."""
    body = {
        "text": answer.text,
        "outcome": answer.outcome,
        "supported": answer.supported and answer.outcome == "answer",
        "evidence": _all(answer.evidence, url),
        "by": answer.by,
    }
    return body | _reason(answer.reason if answer.outcome == "declined" else "")


def _reason(reason: Reason) -> dict[str, str]:
    return {"reason": reason} if reason else {}


def cue_body(cue: Cue) -> dict[str, Any]:
    """The body of caption.final or caption.partial."""
    body = {
        "text": cue.text,
        "words": [_word(word) for word in cue.words],
        **_span(cue),
        "language": cue.language,
    }
    return body if cue.final else body | {"stable": cue.stable}


def sight_body(sight: Sight) -> dict[str, Any]:
    """The body of sight.ready."""
    body: dict[str, Any] = {
        "of": sight.of,
        "tags": [{"label": tag.label, "score": round(tag.score, 3)} for tag in sight.tags],
        "boxes": [
            {"label": box.label, "score": round(box.score, 3), **_rectangle(box), **_colours(box.colours)}
            for box in sight.boxes
        ],
        **_colours(sight.colours),
        **_colours(sight.background, "background"),
    }
    if sight.same_as is not None:
        body["same_as"] = round(sight.same_as, 3)
    return body | {"blank": True} if sight.blank else body


def _colours(names: tuple[str, ...], key: str = "colours") -> dict[str, list[str]]:
    return {key: list(names)} if names else {}


def _all(evidence: tuple[Evidence, ...], url: FrameUrl) -> list[dict[str, Any]]:
    return [_evidence(item, url) for item in evidence]


def _evidence(item: Evidence, url: FrameUrl) -> dict[str, Any]:
    body: dict[str, Any] = {**_span(item), "kind": item.kind, "quote": item.quote}
    if item.frame is not None:
        body["url"] = url(item.frame)
    return body


def _span(unit: Cue | Gap | Scene | Evidence) -> dict[str, float]:
    return {"start": round(unit.start, 3), "end": round(unit.end, 3)}


def _word(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "probability": _share(word.probability),
    }


def _share(value: float) -> float:
    return min(1.0, max(0.0, round(value, 3)))


def _rectangle(item: Box | TextLine) -> dict[str, float]:
    return {"x": round(item.x, 4), "y": round(item.y, 4), "w": round(item.w, 4), "h": round(item.h, 4)}
