"""Builder of the `response_format` of a question."""

from __future__ import annotations

from typing import Any


def response_format(properties: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    """An object schema of exactly `properties`; `keywords` override its keywords."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **keywords,
    }
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
