"""JSON Schema of all events, served at `/v1/schema`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from streamsvc.core.types import By, DeclineReason, Outcome

Schema = dict[str, Any]

VERSION = 1

_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = required | (optional or {})
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_WORD = _object({"text": _TEXT, "start": _NUMBER, "end": _NUMBER, "probability": _SHARE})
_BOX = {"x": _NUMBER, "y": _NUMBER, "w": _NUMBER, "h": _NUMBER}  # fractions of the picture
_COLOURS = {**_list(_TEXT), "description": "measured; one, or two that share it; absent where it is mixed"}
_RETURNED = {"type": "number", "description": "second of the first picture of a scene that has come back"}
_EVIDENCE = _object(
    {
        "start": _NUMBER,
        "end": _NUMBER,
        "kind": {"enum": ["speech", "screen", "sight", "timeline", "image"]},
        "quote": _TEXT,
    },
    {"url": _TEXT},
)
_ERROR = _object({"type": _TEXT, "code": _TEXT, "message": _TEXT, "retryable": {"type": "boolean"}})
_AGES = _object({"p50": _NUMBER, "p95": _NUMBER, "count": _COUNT})
_REASON = {"reason": _TEXT}
_SPAN = {"start": _NUMBER, "end": _NUMBER}
_CAPTION = {"text": _TEXT, "words": _list(_WORD), **_SPAN, "language": _TEXT}

_SPEECH = _object(
    {
        "captioned_seconds": {"type": "number", "description": "detected speech under closed captions"},
        "missing_seconds": {"type": "number", "description": "detected speech without captions or gap"},
        "gap_seconds": {"type": "number", "description": "audio told as lost by caption.gap"},
    }
)
_LEVEL_IN_WORDS = {
    "message": {"type": "string", "description": "what is late and why, what is reduced, what still works"},
    "reduced": _list(_TEXT),
}

# type -> (durable, required fields of the body, optional ones)
EVENTS: dict[str, tuple[bool, dict[str, Schema], dict[str, Schema]]] = {
    "session.created": (True, {"started_utc": _TEXT, "tracks": _list(_TEXT)}, {}),
    "session.updated": (True, {"tracks": _list(_TEXT), "started_utc": _TEXT}, _REASON),
    "session.stalled": (True, _REASON, {}),
    "session.resumed": (True, _REASON, {}),
    "session.degraded": (True, {"level": _COUNT, **_REASON}, _LEVEL_IN_WORDS),
    # To the subscriber that asked: all audio before it is decoded, and its captions are final.
    "session.flushed": (True, {}, {}),
    "session.going_away": (True, _REASON, {"time_left_ms": _NUMBER}),
    "session.closed": (True, _REASON, {"error": _ERROR}),
    "speech.started": (True, {}, {}),
    "speech.stopped": (True, {}, {}),
    "caption.partial": (False, {**_CAPTION, "stable": _COUNT}, {}),
    "caption.final": (True, _CAPTION, {}),
    "caption.translation": (True, {"of": _TEXT, "text": _TEXT, "language": _TEXT}, {}),
    "caption.speaker": (True, {"of": _TEXT, "label": _TEXT}, {}),
    "caption.gap": (True, {**_SPAN, **_REASON}, {}),
    "keyframe.sampled": (True, {**_REASON, "url": _TEXT}, {}),
    "sight.ready": (
        True,
        {
            "of": _TEXT,
            "tags": _list(_object({"label": _TEXT, "score": _SHARE})),
            "boxes": _list(_object({"label": _TEXT, "score": _SHARE, **_BOX}, {"colours": _COLOURS})),
        },
        {"blank": {"type": "boolean"}, "colours": _COLOURS, "background": _COLOURS, "same_as": _RETURNED},
    ),
    "screen.text": (
        True,
        {
            "of": _TEXT,
            "title": _nullable(_TEXT),
            "lines": _list(_object({"text": _TEXT, **_BOX}, {"score": _SHARE})),
            "first_seen": _NUMBER,
        },
        {},
    ),
    "scene.caption": (
        True,
        {"text": _TEXT, **_SPAN, "evidence": _list(_EVIDENCE), "by": {"enum": ["rule", "model"]}},
        {"scene_id": {**_TEXT, "description": "of the scene.delta events that it takes the place of"}},
    ),
    # Increments of a caption by a model; where an index is skipped, this subscriber has lost some.
    "scene.delta": (
        False,
        {"scene_id": _TEXT, "index": _COUNT, "text": _TEXT, "start": _NUMBER},
        {"withdrawn": {"const": True, "description": "no scene.caption comes of it: remove its text"}},
    ),
    "answer.delta": (False, {"question_id": _TEXT, "text": _TEXT}, {}),
    "answer.done": (
        True,
        {
            "question_id": _TEXT,
            "text": _TEXT,
            "outcome": {"enum": list(get_args(Outcome))},
            "supported": {"type": "boolean", "description": "true only of the outcome answer"},
            "evidence": _list(_EVIDENCE),
        },
        {
            "reason": {
                "enum": list(get_args(DeclineReason)),
                "description": "of the outcome declined alone; else absent",
            },
            "by": {
                "enum": list(get_args(By)),
                "description": "an exact tool, the extractive reader, or a generative model",
            },
            "error": _ERROR,
        },
    ),
    # To the subscriber that asked over the event socket.
    "watch.added": (False, {"watch_id": _TEXT, "when": _TEXT}, {"understood": _TEXT}),
    "watch.removed": (False, {"watch_id": _TEXT, "when": _TEXT}, {}),
    "alert.fired": (
        True,
        {"watch_id": _TEXT, "text": _TEXT, "evidence": _list(_EVIDENCE)},
        {"decided_by": {"enum": ["rules", "model", "rules_late"]}},
    ),
    "latency.report": (
        False,
        {
            "ages": {"type": "object", "additionalProperties": _AGES},
            "coverage": _nullable(_SHARE)
            | {
                "description": "captioned_seconds as a share of all three of `speech`: no share of spoken "
                "words, which nobody counts. null: no speech was detected yet",
            },
            "backlog": {"type": "number", "description": "seconds of audio that wait to be recognised"},
            "level": _COUNT,
        },
        {"speech": _SPEECH, **_REASON, **_LEVEL_IN_WORDS},
    ),
    "log.gap": (False, {"first": _COUNT, "last": _COUNT, **_REASON}, {}),
    # About a question, with its id.
    "error": (False, {"error": _ERROR}, {"question_id": _TEXT}),
    "pong": (False, {}, {"id": _TEXT}),
}

DURABLE = frozenset(kind for kind, (durable, _, _) in EVENTS.items() if durable)


def event(kind: str) -> Schema:
    """Schema of one type of event, envelope included."""
    durable, required, optional = EVENTS[kind]
    head: dict[str, Schema] = {
        "v": {"const": VERSION},
        "type": {"const": kind},
        "session": _TEXT,
        "track": _TEXT,
        "epoch": _TEXT,
        "id": _TEXT,
        "at": _NUMBER,
        "age_ms": _NUMBER,
        "stages": {
            "type": "object",
            "additionalProperties": _NUMBER,
            "description": "milliseconds per stage; together they are age_ms. `wait`: for more media, for a "
            "turn or for a busy model; `publish`: from the last stage to publication",
        },
    }
    head |= {"seq": _COUNT, "prev": _COUNT} if durable else {"after": _COUNT}
    return _object(head | required, optional) | {"title": kind}


def refusal(error: Mapping[str, Any], session: str = "") -> dict[str, Any]:
    """An `error` event of no log: what a client is told before its socket or stream is closed.

    error: `StreamsvcError.body`. Epoch and id are "", as no log has counted it.
    """
    envelope = {"session": session, "track": "main", "epoch": "", "id": "", "at": 0.0, "age_ms": 0.0}
    return {"v": VERSION, "type": "error", **envelope, "stages": {}, "after": 0, **error}


def document() -> Schema:
    """Schema of any event, discriminated by `type`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "streamsvc event",
        "discriminator": {"propertyName": "type"},
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in EVENTS],
        "$defs": {kind: event(kind) for kind in EVENTS},
    }
