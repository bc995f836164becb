"""The form that an answer is asked to have: a JSON Schema, bounded when it is read, filled from the answer's evidence. Pure.

A field is filled where its name and its type say what of the answer belongs there: the answer itself, whether it is
supported, a count, yes or no, a time, a quote, a list. What nothing known fills is null, where the schema allows that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jsonschema import Draft7Validator, SchemaError

from streamsvc.answers.rules.finding import timestamp
from streamsvc.answers.rules.parse import NUMBERS, Ask
from streamsvc.core.errors import InvalidRequest, Unprocessable
from streamsvc.core.types import Answer, Evidence
from streamsvc.timeline.text import stem, tokens

Schema = Mapping[str, Any]

MOST_BYTES = 16_384  # security limits: of a schema as JSON text,
MOST_PARTS = 100  # ... of the schemas within it, references put in
DEEPEST = 8  # ... and of how deep one lies in another


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NOTES = _split(
    "title description default examples deprecated readOnly writeOnly $schema $comment $defs definitions"
)
_KEYWORDS = (
    _NOTES
    | _split(
        "type enum const properties required additionalProperties items minItems maxItems uniqueItems minLength maxLength minimum maximum "
        "exclusiveMinimum exclusiveMaximum format anyOf oneOf"
    )
)  # no patterns: somebody's regular expression may take for ever; no allOf, not, if: nobody knows how to fill them

# What fields are called, by what belongs there.
_NAMES = {
    kind: _split(words)
    for kind, words in {
        "end": "end ends ended stop until finish",
        "long": "duration length long lasted",
        "start": "start starts begin begins from time times at when timestamp timestamps moment moments",
        "count": "count number total amount quantity many num sum",
        "kind": "kind modality medium",
        "quote": "quote quotes evidence source sources citation citations reference references excerpt excerpts transcript proof",
        "supported": "supported answered answerable grounded",
        "question": "question",
        "answer": "answer answers text response reply message result results summary explanation output content value values yes",
        "item": "item items list entry entries title titles name names label labels thing things object objects line lines",
    }.items()
}
_FILLERS = _NAMES["answer"] | _split(
    "a an the of in on is was are were has have been be it to and or no how first time second seconds s sec secs ms millis milliseconds "
    "minute minutes"
)
_PROSE = frozenset(["answer", "quote", "question"])  # may be cut short
_UNKNOWN = ("unknown", "unsure", "unclear", "not sure", "cannot tell")
_NUMBER = re.compile(r"(?<![\w.,:])-?\d[\d,']*(?:\.\d+)?(?![\w:])")

_PLACE = {
    "start": {"type": "number"},
    "end": {"type": "number"},
    "kind": {"type": "string"},
    "quote": {"type": "string"},
}
ANY: Schema = {  # what is answered where any JSON object will do
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "supported": {"type": "boolean"},
        "evidence": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": _PLACE,
                "required": [*_PLACE],
                "additionalProperties": False,
            },
        },
    },
    "required": ["answer", "supported", "evidence"],
    "additionalProperties": False,
}


# --- the door -------------------------------------------------------------------------------------------------------


def read(wanted: object) -> Schema | None:
    """The schema of a `response_format` as OpenAI's chat completions have it, without references and notes; None: plain text.

    Args:
        wanted: {"type": "json_schema", "json_schema": {"name": ..., "schema": ...}}, {"type": "json_object"}, {"type": "text"} or None.

    Raises:
        InvalidRequest: it is none of these, or its schema is none, too large, or more than can be filled ("bad_response_format").
    """
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY
    holder = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise _bad(
            'response_format is {"type": "json_schema", "json_schema": {"name": ..., "schema": ...}} or {"type": "json_object"}'
        )
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        raise _bad("the schema is no JSON") from None
    if size > MOST_BYTES:
        raise _bad(f"a schema has at most {MOST_BYTES} bytes")
    found = _Reading(schema).whole()
    try:
        Draft7Validator.check_schema(found)
    except SchemaError as error:
        raise _bad(f"this is no JSON Schema: {error.message[:200]}") from None
    if found.get("type") != "object":
        raise _bad('the schema itself has "type": "object"')
    return found


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="bad_response_format")


class _Reading:
    """Puts in what a schema refers to, leaves out what only people read, and counts."""

    def __init__(self, root: Schema) -> None:
        self._root, self._parts = root, 0

    def whole(self) -> dict[str, Any]:
        found = self._read(self._root, 0)
        if not isinstance(found, dict):
            raise _bad("the schema is an object")
        return found

    def _read(self, part: object, depth: int) -> dict[str, Any] | bool:
        self._parts += 1
        if self._parts > MOST_PARTS or depth > DEEPEST:
            raise _bad(
                f"a schema has at most {MOST_PARTS} parts, {DEEPEST} deep; one that holds itself has no end"
            )
        if isinstance(part, bool):
            return part
        if not isinstance(part, Mapping):
            raise _bad("a part of the schema is no schema")
        if "$ref" in part:
            if set(part) - _NOTES != {"$ref"}:
                raise _bad("nothing stands beside a $ref")
            return self._read(self._referred(part["$ref"]), depth + 1)
        if unknown := sorted(set(part) - _KEYWORDS):
            raise _bad(f"{str(unknown[0])[:64]!r} is not supported in a schema")
        found = {keyword: value for keyword, value in part.items() if keyword not in _NOTES}
        for keyword, value in found.items():
            if keyword == "properties" and isinstance(value, Mapping):
                found[keyword] = {name: self._read(field, depth + 1) for name, field in value.items()}
            elif keyword in ("anyOf", "oneOf") and isinstance(value, list):
                found[keyword] = [self._read(choice, depth + 1) for choice in value]
            elif keyword in ("items", "additionalProperties"):
                found[keyword] = self._read(value, depth + 1)
        return found

    def _referred(self, name: object) -> object:
        place = re.fullmatch(r"#/(\$defs|definitions)/([^/]+)", name) if isinstance(name, str) else None
        held = self._root.get(place[1]) if place else None
        if place is None or not isinstance(held, Mapping) or place[2] not in held:
            raise _bad('a $ref names one of "#/$defs/..." of the same schema')
        return held[place[2]]


# --- filling --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Known:
    """What may stand in a field. `item`: it is one of several, and told by the first evidence alone."""

    ask: Ask
    asked: frozenset[str]  # stems of the question's words
    text: str
    supported: bool
    evidence: tuple[Evidence, ...]
    values: tuple[str, ...]
    item: bool = False


class _Unfilled(Exception):
    """Nothing known belongs into a field that must be there."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def filled(schema: Schema, ask: Ask, answer: Answer) -> str:
    """An answer as JSON text that is valid by a schema.

    Args:
        schema: as `read` gives it.
        ask: the parsed question: fields may be named by them ("bus_visible" of "Is a bus visible?").
        answer: a refusal fills only `answer` and `supported`.

    Raises:
        Unprocessable: nothing known fills a field that the schema demands ("response_format_unmet").
    """
    asked = frozenset(stem(token) for token in tokens(ask.raw.replace("-", " ")))
    known = _Known(ask, asked, answer.text, answer.supported, answer.evidence, answer.values)
    try:
        found = _fill(schema, "", known, "")
    except _Unfilled as error:
        raise _unmet(f"nothing that was seen or heard fills {error.path[:200] or 'the schema'!r}") from None
    if not _valid(schema, found):
        raise _unmet("what was seen and heard does not fit the schema")
    return json.dumps(found, ensure_ascii=False)


def _unmet(message: str) -> Unprocessable:
    return Unprocessable(message, code="response_format_unmet")


def _valid(schema: Schema | bool, value: object) -> bool:
    return bool(Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER).is_valid(value))


def _fill(schema: Schema | bool, name: str, known: _Known, path: str) -> Any:
    """A value for one field, valid or an object of valid ones; null where nothing else can be had and null may be."""
    try:
        return _found(schema, name, known, path)
    except _Unfilled:
        if _valid(schema, None):
            return None
        raise


def _found(schema: Schema | bool, name: str, known: _Known, path: str) -> Any:
    if isinstance(schema, bool) or not schema:  # anything may stand here
        return _scalar({} if schema is not False else {"enum": []}, name, known, path)
    if "const" in schema:
        return schema["const"]
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if choice == {"type": "null"}:
            continue
        try:
            if _valid(schema, found := _found(choice, name, known, path)):
                return found
        except _Unfilled:
            continue
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if "object" in types or "properties" in schema:
        return _object(schema, name, known, path)
    if "array" in types:
        return _array(schema, name, known, path)
    return _scalar(schema, name, known, path)


def _object(schema: Schema, name: str, known: _Known, path: str) -> dict[str, Any]:
    if _kind(name, known)[0] == "quote" and not known.item:
        if not known.evidence:
            raise _Unfilled(path)
        known = _one(known, 0)
    made: dict[str, Any] = {}
    for field, part in schema.get("properties", {}).items():
        try:
            made[field] = _fill(part, field, known, f"{path}.{field}" if path else field)
        except _Unfilled:
            if field in schema.get("required", ()):
                raise
    return made


def _array(schema: Schema, name: str, known: _Known, path: str) -> list[Any]:
    """One entry for each value, else for each piece of evidence; none is not a list of nothing, but where evidence is asked for."""
    kind, fits = _kind(name, known)
    places = kind in ("quote", "start")
    told = known.supported and (places or known.values or (known.ask.form == "open" and known.evidence))
    if not fits or not (told or kind == "quote"):
        raise _Unfilled(path)
    each = [_one(known, n) for n in range(len(known.evidence))]
    if known.values and not places:
        beside = len(known.values) == len(known.evidence)
        each = [
            replace(_one(known, n if beside else 0), text=value, values=(value,))
            for n, value in enumerate(known.values)
        ]
    found: list[Any] = []
    for item in each[: int(schema.get("maxItems", len(each)))]:
        try:
            found.append(_found(schema.get("items", {}), name if places else "item", item, path))
        except _Unfilled:
            continue
    if (each and not found) or not _valid(schema, found):
        raise _Unfilled(path)
    return found


def _one(known: _Known, number: int) -> _Known:
    """What one piece of evidence tells, if there is one."""
    chosen = known.evidence[number : number + 1]
    return replace(
        known, text=chosen[0].quote if chosen else known.text, evidence=chosen, values=(), item=True
    )


def _scalar(schema: Schema, name: str, known: _Known, path: str) -> Any:
    kind, fits = _kind(name, known)
    for candidate in _candidates(kind, fits, name, known):
        most = schema.get("maxLength")
        if (
            isinstance(candidate, str)
            and kind in _PROSE
            and isinstance(most, int)
            and 8 <= most < len(candidate)
        ):
            candidate = candidate[: most - 1].rsplit(" ", 1)[0] + "…"
        for value in _members(schema["enum"], candidate) if "enum" in schema else [candidate]:
            if _valid(schema, value):
                return value
    raise _Unfilled(path)


def _members(choices: Sequence[Any], candidate: object) -> Iterable[Any]:
    """The choices that say what a candidate says."""
    if not isinstance(candidate, str):
        return [choice for choice in choices if type(choice) is type(candidate) and choice == candidate]
    plain = _plain(candidate)
    return [choice for choice in choices if isinstance(choice, str) and _plain(choice) == plain]


def _plain(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", " ".join(re.findall(r"[\w']+", text.lower().replace("_", " "))))


def _words(name: str) -> list[str]:
    """The words of a field's name, in lower case: of "startTime_ms": start, time, ms."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+", name)]


def _kind(name: str, known: _Known) -> tuple[str, bool]:
    """What belongs into a field by its name ("": what the question calls so), and whether the rest of the name fits the question."""
    words = _words(name)
    for kind, names in _NAMES.items():
        if set(words) & names or (kind == "answer" and not words):
            rest = [word for word in words if word not in names and word not in _FILLERS]
            return kind, all(stem(word) in known.asked for word in rest)
    return "", bool(words) and all(stem(word) in known.asked for word in words if word not in _FILLERS)


def _candidates(kind: str, fits: bool, name: str, known: _Known) -> list[Any]:
    """What may stand in a field, best first, of every type that it may be told in."""
    if not fits:
        return []
    if kind == "supported":
        return [known.supported]
    if kind == "question":
        return [known.ask.raw]
    if not known.supported:
        return [known.text, *_UNKNOWN] if kind == "answer" else []
    place = known.evidence[0] if known.evidence else None
    if kind in ("start", "end", "long"):
        if place is None or (kind != "long" and place.kind in ("timeline", "image")):
            return []
        seconds = {"start": place.start, "end": place.end, "long": place.end - place.start}[kind]
        return _time(seconds, _words(name), long=kind == "long")
    if kind == "quote" or (kind == "kind" and known.item):
        return [] if place is None else [place.quote if kind == "quote" else place.kind]
    number = _number(known)
    if kind == "count":
        return (
            [*number, *known.values[:1], *map(str, number)]
            if known.values or known.ask.form == "how many"
            else []
        )
    said = _yes_no(known)
    if kind == "answer" and not known.item:
        return [known.text, *said, *number, *known.values]
    if known.item:
        return [*known.values[:1], *number, known.text]
    if (
        kind in ("item", "kind")
        and not known.values
        and not all(stem(word) in known.asked for word in _words(name))
    ):
        return []
    quoted = re.findall(r'"([^"]+)"', known.text)
    return [*said, *known.values[:1], *number, *(quoted if len(quoted) == 1 else [known.text])]


def _yes_no(known: _Known) -> list[Any]:
    told = (
        re.match(r"(yes|no)\b", known.text.lower()) if known.ask.form == "yes/no" and not known.item else None
    )
    return [] if told is None else [told[1] == "yes", told[1]]


def _number(known: _Known) -> list[Any]:
    """The one number that was asked for."""
    counted, place = known.ask.form == "how many", known.evidence[0] if known.evidence else None
    told = (
        place is not None
        and place.kind in ("speech", "screen")
        and known.ask.form == "open"
        and not known.item
    )
    where = (
        known.values[0]
        if known.values
        else known.text
        if counted
        else place.quote
        if told and place is not None
        else ""
    )
    found: list[float] = [float(re.sub("[,']", "", number)) for number in _NUMBER.findall(where)]
    if counted and not found:
        found = [float(NUMBERS[word]) for word in tokens(where) if word in NUMBERS]
    return [_whole(found[0])] if len(found) == 1 and math.isfinite(found[0]) else []


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


def _time(seconds: float, words: Sequence[str], *, long: bool) -> list[Any]:
    """A time in the unit that the field names, else in seconds; whole, and as a clock shows it."""
    scale = (
        1000
        if {"ms", "millis", "milliseconds"} & set(words)
        else 1 / 60
        if {"minute", "minutes"} & set(words)
        else 1
    )
    return [
        _whole(round(seconds * scale, 3)),
        round(seconds * scale),
        f"{seconds:.0f} s" if long else timestamp(seconds),
    ]
