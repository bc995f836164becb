"""The published schema is valid and strict."""

from __future__ import annotations

import jsonschema
import pytest

from streamsvc.core.errors import Unauthorized
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


def test_the_reason_of_an_answer_is_one_of_the_known_ones_or_absent() -> None:
    answer = {"question_id": "q", "text": "", "outcome": "declined", "supported": False, "evidence": []}
    done = EVENT | answer | {"type": "answer.done", "seq": 1, "prev": 0}
    for told in ({}, {"reason": "late"}):
        jsonschema.validate(done | told, schema.document())
    for reason in (None, "", "bored"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(done | {"reason": reason}, schema.document())


def test_a_refusal_is_an_event() -> None:
    error = Unauthorized("The token is not valid")
    error.question_id = "q"
    for told in (schema.refusal(error.body()), schema.refusal(error.body(), "0.a")):
        jsonschema.validate(told, schema.document())
        assert told["error"]["code"] == "unauthorized"
