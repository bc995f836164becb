"""The page /docs: the OpenAPI document as plain HTML, without scripts and without anything from elsewhere.

All text is escaped; the page holds under the same Content-Security-Policy as every other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Document = Mapping[str, Any]
_LIMITS = {"minimum": "from", "maximum": "to", "minLength": "at least", "maxLength": "at most"}

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: API</title>
<link rel="icon" href="web/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="web/docs.css">
</head>
<body>
<main>
"""
_INTRODUCTION = """<p>Machine readable: <a href="openapi.json">openapi.json</a> (OpenAPI) and
<a href="v1/schema">v1/schema</a> (JSON Schema of all events and answers).
With a key set, every request has the header <code>Authorization: Bearer TOKEN</code>.
Errors have the body <code>{"error": {"type", "code", "message", "retryable"}}</code>.</p>
<p><code>/v1/sessions/{session_id}/events</code>, with a WebSocket upgrade, is the event socket: a token goes
in the subprotocol <code>streamsvc.token.TOKEN</code>; messages are <code>question.ask</code>,
<code>question.cancel</code>, <code>watch.add</code>, <code>watch.remove</code>,
<code>session.update</code> and <code>ping</code>.</p>
"""


def render(document: Document, base: str) -> str:
    """The HTML of an OpenAPI document.

    Args:
        document: OpenAPI 3.
        base: what the addresses in the examples begin with, such as "http://127.0.0.1:8080".
    """
    info = document["info"]
    operations = list(_operations(document))
    tags = dict.fromkeys(tag for _, _, operation in operations for tag in operation.get("tags", ["other"]))
    parts = [
        _HEAD.format(title=escape(info["title"])),
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>\n",
        _text(info.get("description", "")),
        _INTRODUCTION,
    ]
    for tag in tags:
        parts.append(f'<h2 id="{escape(tag)}">{escape(tag.capitalize())}</h2>\n')
        parts += [
            _operation(document, path, method, operation, base)
            for path, method, operation in operations
            if tag in operation.get("tags", ["other"])
        ]
    parts.append("</main>\n</body>\n</html>\n")
    return "".join(parts)


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _operation(document: Document, path: str, method: str, operation: Document, base: str) -> str:
    """One method of one path: what it does, its parameters, body and responses, and a curl line."""
    content = operation.get("requestBody", {}).get("content", {})
    title, _, more = operation.get("description", operation.get("summary", "")).partition("\n\n")
    parts = [
        f"<details><summary><code><b>{method}</b> {escape(path)}</code> {_marked(title)}</summary>\n",
        _text(more),
    ]
    if parameters := operation.get("parameters"):
        rows = [
            (one["name"], f"{_kind(document, one['schema'])}, in the {one['in']}", _notes(one, one["schema"]))
            for one in parameters
        ]
        parts.append(_table("Parameters", rows))
    for kind, body in content.items():
        parts.append(_fields(document, f"Body, {kind}", body.get("schema", {})))
    for status, response in operation.get("responses", {}).items():
        parts.append(_response(document, status, response))
    parts.append(f"<pre>{escape(_curl(path, method, operation, base))}</pre>\n</details>\n")
    return "".join(parts)


def _response(document: Document, status: str, response: Document) -> str:
    contents = response.get("content") or {"": {}}
    return "".join(
        _fields(document, f"{status}: {response.get('description', '')}", body.get("schema", {}))
        for body in contents.values()
    )


def _fields(document: Document, title: str, schema: Document) -> str:
    """A schema as a table of its members, or as one line."""
    schema = _resolved(document, schema)
    members = schema.get("properties")
    if not members:
        kind = _kind(document, schema)
        return f"<p>{escape(title)}{': ' + escape(kind) if kind != 'any' else ''}</p>\n"
    required = schema.get("required", ())
    rows = [
        (name, _kind(document, member), _notes(member, member, required=name in required))
        for name, member in members.items()
    ]
    return _table(title, rows)


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(notes)}</td></tr>\n"
        for name, kind, notes in rows
    )
    head = "<thead><tr><th>name</th><th>kind</th><th>meaning</th></tr></thead>"
    return f"<table><caption>{escape(title)}</caption>\n{head}\n<tbody>\n{lines}</tbody></table>\n"


def _notes(described: Document, schema: Document, *, required: bool = False) -> str:
    """Description, default and limits of a value, joined."""
    notes = ["required"] if required or described.get("required") is True else []
    if text := described.get("description"):
        notes.append(text)
    if schema.get("default") is not None:
        notes.append(f"default {json.dumps(schema['default'])}")
    for one in (schema, *schema.get("anyOf", ())):
        notes += [f"{word} {one[name]}" for name, word in _LIMITS.items() if name in one]
    return "; ".join(notes)


def _resolved(document: Document, schema: Document) -> Document:
    """A schema in place of its `$ref`."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _kind(document: Document, schema: Document) -> str:
    """The type of a value in a few words, such as "list of string"."""
    schema = _resolved(document, schema)
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_kind(document, one) for one in schema["anyOf"])
    kind = str(schema.get("type", "any"))
    return f"list of {_kind(document, schema['items'])}" if kind == "array" and "items" in schema else kind


def _curl(path: str, method: str, operation: Document, base: str) -> str:
    """A line for a shell; capitals stand for what the reader fills in."""
    for parameter in operation.get("parameters", ()):
        path = path.replace(f"{{{parameter['name']}}}", parameter["name"].upper())
    content = operation.get("requestBody", {}).get("content", {})
    body = " -H 'Content-Type: application/json' -d '{...}'" if "application/json" in content else ""
    return f"curl{'' if method == 'GET' else ' -X ' + method}{body} {base}{path}"


def _text(text: str) -> str:
    return "".join(f"<p>{_marked(part)}</p>\n" for part in text.split("\n\n") if part.strip())


def _marked(text: str) -> str:
    """Escaped text, with code where the text has `backquotes`."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
