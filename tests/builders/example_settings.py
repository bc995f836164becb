"""deploy/streamsvc.example.toml, made from the settings: `python -m tests.builders.example_settings`.

Every setting is there with its default and its comment, both from the source; all are commented out, so that
a copy follows later defaults.
"""

from __future__ import annotations

import inspect
import io
import json
import tokenize
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from streamsvc.core.config import Settings

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "streamsvc.example.toml"
HEAD = """\
# Settings of streamsvc, each with its default. Copy this file, take the "#" from what you change, and start
# `streamsvc serve --config FILE`; the environment is stronger (STREAMSVC_SERVER__PORT=9000). Secrets belong
# there: STREAMSVC_SERVER__API_KEY, STREAMSVC_SERVER__METRICS_KEY, STREAMSVC_INGEST__TURN__SECRET,
# STREAMSVC_REMOTE__KEY.
# Made from the source by `python -m tests.builders.example_settings`.
"""
_WIDTH = 40  # columns before a comment


def comments(group: type[BaseModel]) -> dict[str, str]:
    """The comment of each setting of a group: behind it, or in the lines above it."""
    source = inspect.getsource(group)
    told = {
        token.start[0]: (token.string.lstrip("# "), not token.line[: token.start[1]].strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for number, line in enumerate(source.splitlines(), 1):
        name = line.strip().partition(":")[0]
        if name in group.model_fields and line.startswith(f"    {name}:"):
            above: list[str] = []
            at = number - 1
            while at in told and told[at][1]:
                above.append(told[at][0])
                at -= 1
            text = told[number][0] if number in told else " ".join(reversed(above))
            found[name] = text
    return found


def written(value: object) -> str | None:
    """A default in TOML; None: it cannot be told, for it is none or depends on the machine."""
    match value:
        case bool() | int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case tuple():
            return json.dumps(list(value))
        case dict():
            return "{}" if not value else None
    return None


def lines(group: type[BaseModel], table: str) -> Iterator[str]:
    """The table of a group, and those of the groups within it."""
    told = comments(group)
    within: list[tuple[type[BaseModel], str]] = []
    yield ""
    yield f"# {(inspect.getdoc(group) or '').splitlines()[0]}"
    yield f"[{table}]"
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            within.append((field.annotation, f"{table}.{name}"))
            continue
        value = written(field.default)
        setting = f"#{name} = {value}" if value is not None else f"# {name}: not set"
        yield f"{setting:{_WIDTH}}  # {told[name]}"
    for other, where in within:
        yield from lines(other, where)


def text() -> str:
    """The whole file."""
    parts = [
        line
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type)
        for line in lines(field.annotation, name)
    ]
    return HEAD + "\n".join(parts) + "\n"


if __name__ == "__main__":
    EXAMPLE.write_text(text(), encoding="utf-8")
