"""Every kind of unit becomes an event that the schema accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from streamsvc.core.errors import (
    Cancelled,
    CapacityError,
    DeadlineMissed,
    StreamsvcError,
    WorkerError,
)
from streamsvc.core.types import (
    Answer,
    Box,
    Cue,
    Delta,
    Evidence,
    Gap,
    Keyframe,
    Outcome,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Tag,
    TextLine,
    Translation,
    VideoFrame,
    Word,
    Words,
)
from streamsvc.core.units import AlertFired, Flushed, Reply, SceneDelta
from streamsvc.events import schema
from streamsvc.events.serialize import event_draft

HEAD: dict[str, Any] = {"session": "0.a", "track": "main", "at": 1.0, "arrived": 5.0}
WORDS = (Word("Once", 0.5, 0.9, 1.0000002), Word("upon", 0.9, 1.3, 0.5))
EVIDENCE = (Evidence(1.0, 2.0, "speech", "Once upon"), Evidence(1.0, 2.0, "sight", "cat", frame=1.5))
UNITS: list[tuple[str, Any]] = [
    ("caption.final", Cue(**HEAD, text="Once upon", words=WORDS, stable=2, final=True)),
    ("caption.partial", Cue(**HEAD, text="Once upon", words=WORDS, stable=1, final=False)),
    ("caption.translation", Translation(**HEAD, of="e.1", text="Once", language="en", start=1.0, end=2.0)),
    ("scene.caption", Scene(**HEAD, text="A cat.", start=1.0, end=2.0, evidence=EVIDENCE)),
    (
        "scene.caption",
        Scene(**HEAD, text="A cat.", start=1.0, end=2.0, evidence=(), by="model", scene_id="scene_1"),
    ),
    ("scene.delta", SceneDelta(**HEAD, scene_id="scene_1", index=0, text="A cat", start=1.0)),
    ("scene.delta", SceneDelta(**HEAD, scene_id="scene_1", index=1, text="", start=1.0, withdrawn=True)),
    ("answer.done", Reply("q", 1.0, 5.0, Answer("q", "Yes.", supported=True, evidence=EVIDENCE), "me")),
    ("answer.done", Reply("q", 1.0, 5.0, Cancelled("this question was cancelled"), "me")),
    ("answer.delta", Reply("q", 1.0, 5.0, Delta("q", "Yes"), None)),
    ("alert.fired", AlertFired("w_1", 1.0, 5.0, "A cat is shown.", EVIDENCE)),
    ("speech.started", Speech(**HEAD, active=True)),
    ("speech.stopped", Speech(**HEAD, active=False)),
    ("caption.gap", Gap(**HEAD, start=1.0, end=2.0, reason="packet_loss")),
    ("session.flushed", Flushed(None)),
    (
        "keyframe.sampled",
        Keyframe(**HEAD, frame=VideoFrame(**HEAD, handle=None, width=2, height=2), reason="scene"),
    ),
    (
        "sight.ready",
        Sight(
            **HEAD,
            embedding=np.ones(3, np.float32),
            tags=(Tag("cat", 0.9),),
            boxes=(Box("cat", 0.8, 0.1, 0.2, 0.3, 0.4, ("black", "white")),),
            colours=("green",),
            background=("gray",),
            of="e.1",
            same_as=0.51234,
        ),
    ),
    (
        "screen.text",
        ScreenText(
            **HEAD, title=None, lines=(TextLine("Hallo", 0.9, 0.1, 0.2, 0.3, 0.4),), first_seen=1.0, of="e.1"
        ),
    ),
]


@pytest.mark.parametrize(("kind", "unit"), UNITS, ids=[kind for kind, _ in UNITS])
def test_a_unit_becomes_an_event_that_the_schema_accepts(kind: str, unit: Any) -> None:
    draft = event_draft(unit, lambda at: f"/frames/{at}.jpg")
    assert draft.type == kind
    head = {
        "v": 1,
        "type": kind,
        "session": "0.a",
        "track": "main",
        "epoch": "e",
        "id": "e.1",
        "at": 1.0,
        "age_ms": 0.0,
        "stages": {},
    }
    count = {"seq": 1, "prev": 0} if kind in schema.DURABLE else {"after": 1}
    jsonschema.validate(head | count | draft.body, schema.document())


def test_a_scene_that_has_come_back_names_its_first_picture_and_no_other_does() -> None:
    seen = next(unit for unit in (unit for _, unit in UNITS) if isinstance(unit, Sight))
    assert event_draft(seen, str).body["same_as"] == 0.512
    assert "same_as" not in event_draft(replace(seen, same_as=None), str).body


def test_evidence_with_a_frame_gets_its_address() -> None:
    scene = next(unit for kind, unit in UNITS if kind == "scene.caption")
    body = event_draft(scene, lambda at: f"/frames/{at}.jpg").body
    assert [item.get("url") for item in body["evidence"]] == [None, "/frames/1.5.jpg"]


def test_an_answer_keeps_the_times_and_the_audience_of_its_question() -> None:
    draft = event_draft(Reply("q", 7.0, 3.0, Delta("q", "Yes"), "me"), str)
    assert (draft.type, draft.at, draft.arrived, draft.audience) == ("answer.delta", 7.0, 3.0, "me")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CapacityError("full"), "busy"),
        (DeadlineMissed("late"), "late"),
        (Cancelled("no"), "cancelled"),
        (WorkerError("the worker died"), None),
        (StreamsvcError("no"), None),
    ],
)
def test_an_error_of_a_question_declines_it_with_the_reason(
    error: StreamsvcError, reason: str | None
) -> None:
    body = event_draft(Reply("q", 1.0, 5.0, error, "me"), str).body
    assert (body["question_id"], body["outcome"], body["supported"]) == ("q", "declined", False)
    assert ("reason" in body, body.get("reason")) == (reason is not None, reason)
    assert body["error"]["code"] == error.code
    assert "by" not in body


@pytest.mark.parametrize(
    ("outcome", "supported", "shown"),
    [("answer", True, True), ("answer", False, False), ("closest", True, False), ("declined", True, False)],
)
def test_only_a_stated_answer_is_supported_and_only_a_declined_one_has_a_reason(
    outcome: Outcome, supported: bool, shown: bool
) -> None:
    part = Answer("q", "So.", supported, EVIDENCE, outcome=outcome, reason="not_found", by="reader")
    body = event_draft(Reply("q", 1.0, 5.0, part, "me"), str).body
    assert (body["outcome"], body["supported"], body["by"]) == (outcome, shown, "reader")
    assert ("reason" in body) == (outcome == "declined")
    assert body.get("reason", "not_found") == "not_found"


def test_words_are_not_published_as_they_are() -> None:
    with pytest.raises(TypeError, match="Words"):
        event_draft(Words(**HEAD, words=WORDS, stable=1, final=False), str)


def test_only_an_increment_that_takes_others_back_says_so() -> None:
    deltas = [event_draft(unit, str).body for kind, unit in UNITS if kind == "scene.delta"]
    assert [body.get("withdrawn") for body in deltas] == [None, True]
    assert [(body["scene_id"], body["index"], body["text"]) for body in deltas] == [
        ("scene_1", 0, "A cat"),
        ("scene_1", 1, ""),
    ]
