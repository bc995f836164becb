"""Response schemas: formats that are read, what is rejected, the limits, and the resolution of references."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.answers import response_schema
from streamsvc.core.errors import InvalidRequest
from tests.builders.response_format import response_format

TEXT = {"type": "string"}
NUMBER = {"type": "number"}


def test_plain_text_has_no_schema() -> None:
    assert response_schema.read(None) is None
    assert response_schema.read({"type": "text"}) is None


@pytest.mark.parametrize(
    "wanted",
    [
        "json",
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": True}},
        response_format({"a": {"type": "strange"}}),
        response_format({"a": {"type": "string", "minLength": "long"}}),
        response_format({"a": 7}),
        response_format({"a": {"type": "string", "pattern": "(a+)+$"}}),
        response_format({"a": {"allOf": [TEXT]}}),
        response_format({"a": {"$ref": "https://example.org/schema.json"}}),
        response_format({"a": {"$ref": "#/$defs/none"}}),
        response_format({"a": {"$ref": "#"}}),
        response_format(
            {"a": {"$ref": "#/$defs/it"}},
            **{"$defs": {"it": {"type": "array", "items": {"$ref": "#/$defs/it"}}}},
        ),
        response_format({"a": {"$ref": "#/$defs/it", "type": "string"}}, **{"$defs": {"it": TEXT}}),
        response_format({"a": {"const": float("nan")}}),
        response_format({"a": {"const": "\ud800"}}),  # half a surrogate pair: not encodable
        response_format({}, type="array"),
        response_format({"a": TEXT}, **{"$defs": "none"}, description="x" * response_schema.MAX_BYTES),
        response_format({f"a{n}": TEXT for n in range(response_schema.MAX_SUBSCHEMAS)}),
    ],
)
def test_invalid_unsupported_and_oversized_schemas_are_rejected(wanted: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        response_schema.read(wanted)
    assert caught.value.code == "bad_response_format"
    assert "bad" not in caught.value.message


def test_exponential_expansion_of_references_is_rejected_quickly() -> None:
    definitions: dict[str, Any] = {
        f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 10} for n in range(20)
    }
    wanted = response_format({"a": {"$ref": "#/$defs/l0"}}, **{"$defs": {**definitions, "l20": TEXT}})
    with pytest.raises(InvalidRequest):
        response_schema.read(wanted)


def test_references_are_resolved_and_annotations_dropped() -> None:
    place = {"type": "object", "title": "Place", "properties": {"start": NUMBER}}
    schema = response_schema.read(
        response_format(
            {"evidence": {"$ref": "#/$defs/Place", "description": "where"}}, **{"$defs": {"Place": place}}
        )
    )
    assert schema is not None
    assert schema["properties"] == {"evidence": {"type": "object", "properties": {"start": NUMBER}}}


@pytest.mark.parametrize(
    ("value", "valid"), [("2026-11-29", True), ("yesterday", False), (None, False), (True, False)]
)
def test_values_are_validated_with_their_format(value: object, valid: bool) -> None:
    assert response_schema.is_valid({"type": "string", "format": "date"}, value) is valid
