"""JSON Schemas of structured output: read from a `response_format`, checked and bounded. Pure.

Supported is the part of JSON Schema that `structured_output.fill` can fill from an answer. References
within the schema are resolved here and annotations are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft7Validator, SchemaError

from streamsvc.core.errors import InvalidRequest

Schema = Mapping[str, Any]

# Security limits.
MAX_BYTES = 16_384  # of the schema as JSON text
MAX_SUBSCHEMAS = 100  # after references are resolved
MAX_DEPTH = 8  # nesting of subschemas


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ANNOTATIONS = _words(
    "title description default examples deprecated readOnly writeOnly $schema $comment $defs definitions"
)
# Left out: `pattern`, since a regular expression from outside may backtrack without bound; `allOf`, `not` and
# `if`, since no value can be derived from them.
_KEYWORDS = _ANNOTATIONS | _words(
    "type enum const properties required additionalProperties items minItems maxItems uniqueItems minLength "
    "maxLength minimum maximum exclusiveMinimum exclusiveMaximum format anyOf oneOf"
)

_EVIDENCE = {
    "start": {"type": "number"},
    "end": {"type": "number"},
    "kind": {"type": "string"},
    "quote": {"type": "string"},
}
ANY_OBJECT: Schema = {  # what {"type": "json_object"} is filled by
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "supported": {"type": "boolean"},
        "evidence": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": _EVIDENCE,
                "required": [*_EVIDENCE],
                "additionalProperties": False,
            },
        },
    },
    "required": ["answer", "supported", "evidence"],
    "additionalProperties": False,
}


def read(response_format: object) -> Schema | None:
    """Read a `response_format` of OpenAI's chat completions. None: plain text.

    Args:
        response_format: {"type": "json_schema", "json_schema": {"name": ..., "schema": ...}},
            {"type": "json_object"}, {"type": "text"} or None.

    Returns:
        The schema with its references resolved and its annotations dropped.

    Raises:
        InvalidRequest: another form, or an invalid, unsupported or too large schema ("bad_response_format").
    """
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    wrapper = response_format.get("json_schema") if isinstance(response_format, Mapping) else None
    schema = wrapper.get("schema") if isinstance(wrapper, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise _invalid(
            'response_format is {"type": "json_schema", "json_schema": {"name": ..., "schema": ...}} '
            'or {"type": "json_object"}'
        )
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        raise _invalid("the schema is not JSON") from None
    if size > MAX_BYTES:
        raise _invalid(f"a schema has at most {MAX_BYTES} bytes")
    resolved = _Resolver(schema).resolve()
    try:
        Draft7Validator.check_schema(resolved)
    except SchemaError as error:
        raise _invalid(f"not a valid JSON Schema: {error.message[:200]}") from None
    if resolved.get("type") != "object":
        raise _invalid('the schema itself has "type": "object"')
    return resolved


def is_valid(schema: Schema | bool, value: object) -> bool:
    """Validate a value, formats included."""
    return bool(Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER).is_valid(value))


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="bad_response_format")


class _Resolver:
    """Resolves references, drops annotations, and holds the subschemas against the limits."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._subschemas = 0

    def resolve(self) -> Schema:
        resolved = self._subschema(self._root, 0)
        if isinstance(resolved, bool):
            raise _invalid("the schema is an object")
        return resolved

    def _subschema(self, part: object, depth: int) -> Schema | bool:
        self._subschemas += 1
        if self._subschemas > MAX_SUBSCHEMAS or depth > MAX_DEPTH:
            raise _invalid(
                f"a schema has at most {MAX_SUBSCHEMAS} subschemas, nested at most {MAX_DEPTH} deep, "
                "and is not recursive"
            )
        if isinstance(part, bool):
            return part
        if not isinstance(part, Mapping):
            raise _invalid("a subschema is an object or a boolean")
        if "$ref" in part:
            if set(part) - _ANNOTATIONS != {"$ref"}:
                raise _invalid("a $ref stands alone in its subschema")
            return self._subschema(self._definition(part["$ref"]), depth + 1)
        if unknown := sorted(set(part) - _KEYWORDS):
            raise _invalid(f"{str(unknown[0])[:64]!r} is not supported in a schema")
        return {
            keyword: self._keyword(keyword, value, depth + 1)
            for keyword, value in part.items()
            if keyword not in _ANNOTATIONS
        }

    def _keyword(self, keyword: str, value: object, depth: int) -> object:
        """The value of one keyword, its subschemas resolved."""
        if keyword == "properties" and isinstance(value, Mapping):
            return {name: self._subschema(part, depth) for name, part in value.items()}
        if keyword in ("anyOf", "oneOf") and isinstance(value, list):
            return [self._subschema(part, depth) for part in value]
        if keyword in ("items", "additionalProperties"):
            return self._subschema(value, depth)
        return value

    def _definition(self, reference: object) -> object:
        path = (
            re.fullmatch(r"#/(\$defs|definitions)/([^/]+)", reference) if isinstance(reference, str) else None
        )
        definitions = self._root.get(path[1]) if path else None
        if path is None or not isinstance(definitions, Mapping) or path[2] not in definitions:
            raise _invalid('a $ref points at "#/$defs/..." of the same schema')
        return definitions[path[2]]
