"""Units become event bodies that the schema accepts; ages and coverage are accounted for."""

from __future__ import annotations

from typing import Any

import jsonschema
import numpy as np
import pytest

from streamsvc.core.config import Budget
from streamsvc.core.types import (
    Answer,
    Box,
    Cue,
    Event,
    Evidence,
    Scene,
    ScreenText,
    Sight,
    Tag,
    TextLine,
    Translation,
    Word,
)
from streamsvc.events import schema
from streamsvc.events.serialize import event_body
from streamsvc.service.latency_report import LatencyReport

HEAD: dict[str, Any] = {"session": "0.a", "track": "main", "at": 1.0, "arrived": 5.0}
WORDS = (Word("Once", 0.5, 0.9, 1.0000002), Word("upon", 0.9, 1.3, 0.5))
EVIDENCE = (Evidence(1.0, 2.0, "speech", "Once upon"), Evidence(1.0, 2.0, "sight", "cat", frame=1.5))
UNITS: list[tuple[str, Any]] = [
    ("caption.final", Cue(**HEAD, text="Once upon", words=WORDS, stable=2, final=True)),
    ("caption.partial", Cue(**HEAD, text="Once upon", words=WORDS, stable=1, final=False)),
    ("caption.translation", Translation(**HEAD, of="e.1", text="Once", language="en", start=1.0, end=2.0)),
    ("scene.caption", Scene(**HEAD, text="A cat.", start=1.0, end=2.0, evidence=EVIDENCE)),
    ("answer.done", Answer("q", "Yes.", supported=True, evidence=EVIDENCE)),
    (
        "sight.ready",
        Sight(
            **HEAD,
            embedding=np.ones(3, np.float32),
            tags=(Tag("cat", 0.9),),
            boxes=(Box("cat", 0.8, 0.1, 0.2, 0.3, 0.4),),
        ),
    ),
    (
        "screen.text",
        ScreenText(**HEAD, title=None, lines=(TextLine("Hallo", 0.9, 0.1, 0.2, 0.3, 0.4),), first_seen=1.0),
    ),
]


@pytest.mark.parametrize(("kind", "unit"), UNITS, ids=[kind for kind, _ in UNITS])
def test_a_unit_becomes_a_body_that_the_schema_accepts(kind: str, unit: Any) -> None:
    body = event_body(unit, lambda at: f"/frames/{at}.jpg")
    of = {"of": "e.1"} if kind in ("sight.ready", "screen.text") else {}
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
    jsonschema.validate(head | count | of | body, schema.document())


def test_evidence_with_a_frame_gets_its_address() -> None:
    body = event_body(UNITS[3][1], lambda at: f"/frames/{at}.jpg")
    assert [item.get("url") for item in body["evidence"]] == [None, "/frames/1.5.jpg"]


def test_the_report_tells_ages_in_milliseconds_and_coverage() -> None:
    report = LatencyReport(Budget())
    assert report.body(0.0)["coverage"] is None
    for age in (100.0, 200.0, 300.0):
        report.note(
            Event("0.a", "main", "e", "e.1", "caption.final", 1.0, age, {}, {"start": 0.0, "end": 3.0}, 1)
        )
    report.gap(1.0)
    body = report.body(2.0)
    assert body["ages"]["final"] == {"p50": 200, "p95": 290, "count": 3}
    assert body["coverage"] == 0.9
    assert body["backlog"] == 2.0


def test_what_a_model_says_of_a_scene_ages_apart_from_what_the_rules_say() -> None:
    report = LatencyReport(Budget())
    for by, age in (("rule", 100.0), ("model", 2500.0)):
        report.note(Event("0.a", "main", "e", "e.1", "scene.caption", 1.0, age, {}, {"by": by}, 1))
    assert {kind: ages["p95"] for kind, ages in report.body(0.0)["ages"].items()} == {
        "scene": 100,
        "scene_model": 2500,
    }
