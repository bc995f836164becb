"""Validation errors in plain words: which value is wrong, and what is allowed in its place.

pydantic's own texts ("Extra inputs are not permitted") name neither. Values are never quoted: they may be
keys, tokens or what was asked.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

_NAME_LENGTH = 64  # characters of a client's own key that a message repeats
_WORDS: Mapping[str, str] = {  # beginning of pydantic's error type -> what the value has to be
    "string_pattern": "written otherwise (its form is {pattern})",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "too_short": "a list of at least {min_length}",
    "too_long": "at most {max_length} long",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "an object of names and values",
    "mapping": "an object of names and values",
    "model": "an object of names and values",
    "literal": "{expected}",
    "enum": "{expected}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "greater than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "path": "a path",
    "bytes": "text",
    "none_required": "null",
    "url": "a URL",
}


def plain_errors(errors: Sequence[Any], model: object, whole: str) -> str:
    """One sentence for each wrong value, joined by "; ".

    Args:
        errors: of pydantic, as `ValidationError.errors()`.
        model: the class that was validated, or None: it tells which keys are allowed.
        whole: the name of all of it, for an error that is about no single key.
    """
    wrong: dict[str, list[str]] = {}  # by path: the alternatives of a union are told together
    for item in errors:
        names, at = ([], None) if item["type"] == "json_invalid" else _walk(item["loc"], model)
        words = _words(item, at)
        said = wrong.setdefault(".".join(names) or whole, [])
        if words not in said:
            said.append(words)
    return "; ".join(_sentence(path, _joined(said)) for path, said in wrong.items())


def _sentence(path: str, words: str) -> str:
    return f"{path} {words}" if words.startswith(("must be", "must not", "is ")) else f"{path}: {words}"


def _joined(said: Sequence[str]) -> str:
    """Alternatives as one: "must be a number" and "must be 'max'" -> "must be a number or 'max'"."""
    if all(words.startswith("must be ") for words in said):
        return "must be " + " or ".join(words.removeprefix("must be ") for words in said)
    return ", or ".join(said)


def _words(item: Mapping[str, Any], holder: object) -> str:
    """What is wrong with one value. `holder`: the class that holds it."""
    kind, context = str(item["type"]), item.get("ctx") or {}
    if kind == "extra_forbidden":
        return _unknown(str(item["loc"][-1]), holder)
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context.get("error", item.get("msg", ""))).removeprefix("Value error, ")
    if kind == "json_invalid":
        return (
            f"is not valid JSON ({context.get('error', 'it cannot be read')}, at character {item['loc'][-1]})"
        )
    if kind == "string_too_short" and context.get("min_length") == 1:
        return "must not be empty"
    for beginning, words in _WORDS.items():
        if kind.startswith(beginning):
            return "must be " + words.format_map(_Missing(context))
    return "is not valid"


class _Missing(dict[str, Any]):
    """Limits for a text; one that is not there is told as such."""

    def __missing__(self, key: str) -> str:
        return "the limit"


def _unknown(name: str, holder: object) -> str:
    fields = sorted(holder.model_fields) if isinstance(holder, type) and issubclass(holder, BaseModel) else []
    near = difflib.get_close_matches(name, fields, 1)
    meant = f" (meant {near[0]}?)" if near else ""
    return f"unknown key{meant}" + (f"; allowed: {', '.join(fields)}" if fields else "")


def _walk(location: Sequence[int | str], model: object) -> tuple[list[str], object]:
    """The names on the way to a value, and the class that holds it.

    What pydantic adds to tell the members of a union and the keys of a mapping apart is left out.
    """
    names: list[str] = []
    holder, at = model, model
    for part in location:
        holder = at
        kind = _plain_type(at)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            holder = kind
            names.append(str(part)[:_NAME_LENGTH])
            field = kind.model_fields.get(str(part))
            at = field.annotation if field is not None else None
        elif model is None or isinstance(part, int) or _is_mapping(kind):
            if part != "[key]":
                names.append(str(part)[:_NAME_LENGTH])
            arguments = typing.get_args(kind)
            at = arguments[-1] if arguments else None
        else:
            break
    return names, holder


def _is_mapping(kind: object) -> bool:
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _plain_type(annotation: object) -> object:
    """A type without what surrounds it: `Annotated[X, ...]` and `X | None` are X."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    members = [one for one in typing.get_args(annotation) if one is not type(None)]
    if type(None) in typing.get_args(annotation) and len(members) == 1:
        return _plain_type(members[0])
    return annotation
