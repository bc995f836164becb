"""A value of a JSON schema, for stand-ins of language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def instance(schema: Mapping[str, Any], text: str) -> Any:
    """A value of a JSON schema: the first of an enumeration, `text` for strings, what is required of objects.

    Of an enumeration "none" or "reader" before the first, which say that no tool is meant.
    """
    if "const" in schema:
        return schema["const"]
    if values := schema.get("enum"):
        return next((value for value in ("none", "reader", "") if value in values), values[0])
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return instance(options[0], text)
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        fields = schema.get("properties", {})
        return {
            name: instance(fields[name], text) for name in schema.get("required", fields) if name in fields
        }
    if kind == "array":
        return [instance(schema.get("items", {}), text) for _ in range(schema.get("minItems", 0))]
    return {"integer": schema.get("minimum", 0), "number": schema.get("minimum", 0), "boolean": False}.get(
        kind, None if kind == "null" else text[: schema.get("maxLength", 1000)]
    )
