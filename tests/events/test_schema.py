"""The published schema is valid and strict."""

from __future__ import annotations

import jsonschema
import pytest

from streamsvc.events import schema

EVENT = {
    "v": 1,
    "type": "speech.started",
    "session": "0.a",
    "track": "main",
    "epoch": "e",
    "id": "e.1",
    "at": 1.0,
    "age_ms": 2.0,
    "stages": {},
}


def test_the_document_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.document())


def test_an_event_passes_and_a_broken_twin_does_not() -> None:
    jsonschema.validate(EVENT | {"seq": 1, "prev": 0}, schema.document())
    for broken in (
        EVENT,
        EVENT | {"seq": 1},
        EVENT | {"seq": 1, "prev": 0, "more": 1},
        EVENT | {"after": 1},
        EVENT | {"seq": 1, "prev": 0, "type": "x"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema.document())
