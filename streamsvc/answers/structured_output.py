"""Structured output: an answer as JSON that is valid by a schema, filled from the answer's evidence. Pure.

The name and the type of a field say what belongs there: the answer, whether it is supported, a count, yes
or no, a time, a quote, a list. A field that nothing known fits is null where the schema allows null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from streamsvc.answers.finding import timestamp
from streamsvc.answers.response_schema import Schema, is_valid
from streamsvc.answers.route import Arguments
from streamsvc.answers.times import NUMBERS
from streamsvc.core.errors import Unprocessable
from streamsvc.core.types import Answer, Evidence
from streamsvc.timeline.text import stem, tokens


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Kind of a field -> words of its name that say so. Order matters: the first match wins.
_KIND_WORDS = {
    kind: _words(words)
    for kind, words in {
        "end": "end ends ended stop until finish",
        "duration": "duration length long lasted",
        "start": "start starts begin begins from time times at when timestamp timestamps moment moments",
        "count": "count number total amount quantity many num sum",
        "kind": "kind modality medium",
        "quote": "quote quotes evidence source sources citation citations reference references excerpt "
        "excerpts transcript proof",
        "supported": "supported answered answerable grounded",
        "question": "question",
        "answer": "answer answers text response reply message result results summary explanation output "
        "content value values yes",
        "item": "item items list entry entries title titles name names label labels thing things object "
        "objects line lines",
    }.items()
}
# Words of a name that need not occur in the question.
_NEUTRAL_WORDS = _KIND_WORDS["answer"] | _words(
    "a an the of in on is was are were has have been be it to and or no how first time second seconds s sec "
    "secs ms millis milliseconds minute minutes"
)
_TRUNCATABLE = frozenset(["answer", "quote", "question"])
_UNKNOWN = ("unknown", "unsure", "unclear", "not sure", "cannot tell")  # values of an enum that mean it
_NUMBER = re.compile(r"(?<![\w.,:])-?\d[\d,']*(?:\.\d+)?(?![\w:])")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What fields are filled from.

    `form`: of the question, as in `Arguments`. `is_entry`: one entry of a list, described by its first
    evidence alone.
    """

    question: str
    form: str
    question_stems: frozenset[str]
    text: str
    supported: bool
    evidence: tuple[Evidence, ...]
    values: tuple[str, ...]
    is_entry: bool = False

    def entry(self, number: int) -> _Facts:
        """What the evidence of one list entry says, if there is any."""
        evidence = self.evidence[number : number + 1]
        text = evidence[0].quote if evidence else self.text
        return replace(self, text=text, evidence=evidence, values=(), is_entry=True)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field by its name. `kind`: a key of _KIND_WORDS or ""; `relevant`: the rest fits the question."""

    kind: str
    words: tuple[str, ...]
    relevant: bool

    @classmethod
    def of(cls, name: str, facts: _Facts) -> _Field:
        """Classify a field; "startTime_ms" is read as "start time ms"."""
        parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+", name)
        words = tuple(part.lower() for part in parts)
        for kind, names in _KIND_WORDS.items():
            if set(words) & names or (kind == "answer" and not words):
                rest = [word for word in words if word not in names and word not in _NEUTRAL_WORDS]
                return cls(kind, words, _in_question(rest, facts))
        rest = [word for word in words if word not in _NEUTRAL_WORDS]
        return cls("", words, bool(words) and _in_question(rest, facts))


class _NoValue(Exception):
    """Nothing known fits a required field."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def fill(schema: Schema, question: str, answer: Answer, arguments: Arguments | None = None) -> str:
    """An answer as JSON text that is valid by a schema.

    Args:
        schema: as `response_schema.read` returns it.
        question: its text; a field may be named by its words ("bus_visible" of "Is a bus visible?").
        answer: a declined one fills only `answer` and `supported`.
        arguments: of its route, where it has been routed; `form` is used.

    Raises:
        Unprocessable: nothing known fits a required field ("response_format_unmet").
    """
    stems = frozenset(stem(token) for token in tokens(question.replace("-", " ")))
    form = arguments.form if arguments is not None else "open"
    facts = _Facts(question, form, stems, answer.text, answer.supported, answer.evidence, answer.values)
    try:
        value = _value_or_null(schema, "", facts, "")
    except _NoValue as error:
        raise _unmet(f"no evidence fills {error.path[:200] or 'the schema'!r}") from None
    if not is_valid(schema, value):
        raise _unmet("what is known does not fit the schema")
    return json.dumps(value, ensure_ascii=False)


def _unmet(message: str) -> Unprocessable:
    return Unprocessable(message, code="response_format_unmet")


# --- by type of the schema ---


def _value_or_null(schema: Schema | bool, name: str, facts: _Facts, path: str) -> object:
    """The value of one field; null where nothing known fits and the schema allows it. Raises _NoValue."""
    try:
        return _value(schema, name, facts, path)
    except _NoValue:
        if is_valid(schema, None):
            return None
        raise


def _value(schema: Schema | bool, name: str, facts: _Facts, path: str) -> object:
    if isinstance(schema, bool) or not schema:  # an unconstrained schema, or False, which no value fits
        return _scalar({} if schema is not False else {"enum": []}, name, facts, path)
    if "const" in schema:
        return schema["const"]
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if choice == {"type": "null"}:
            continue
        try:
            if is_valid(schema, value := _value(choice, name, facts, path)):
                return value
        except _NoValue:
            continue
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if "object" in types or "properties" in schema:
        return _object(schema, name, facts, path)
    if "array" in types:
        return _array(schema, name, facts, path)
    return _scalar(schema, name, facts, path)


def _object(schema: Schema, name: str, facts: _Facts, path: str) -> dict[str, object]:
    if _Field.of(name, facts).kind == "quote" and not facts.is_entry:
        if not facts.evidence:
            raise _NoValue(path)
        facts = facts.entry(0)
    members: dict[str, object] = {}
    for member, part in schema.get("properties", {}).items():
        try:
            members[member] = _value_or_null(part, member, facts, f"{path}.{member}" if path else member)
        except _NoValue:
            if member in schema.get("required", ()):
                raise
    return members


def _array(schema: Schema, name: str, facts: _Facts, path: str) -> list[object]:
    """One entry per value, else one per piece of evidence.

    An empty list states that there is nothing; that is known of evidence alone.
    """
    field = _Field.of(name, facts)
    of_evidence = field.kind in ("quote", "start")
    listable = of_evidence or facts.values or (facts.form in ("open", "list") and facts.evidence)
    if not field.relevant or not ((facts.supported and listable) or field.kind == "quote"):
        raise _NoValue(path)
    entries = [facts.entry(number) for number in range(len(facts.evidence))]
    if facts.values and not of_evidence:
        paired = len(facts.values) == len(facts.evidence)
        entries = [
            replace(facts.entry(number if paired else 0), text=value, values=(value,))
            for number, value in enumerate(facts.values)
        ]
    items: list[object] = []
    for entry in entries[: int(schema.get("maxItems", len(entries)))]:
        try:
            items.append(_value(schema.get("items", {}), name if of_evidence else "item", entry, path))
        except _NoValue:
            continue
    if (entries and not items) or not is_valid(schema, items):
        raise _NoValue(path)
    return items


def _scalar(schema: Schema, name: str, facts: _Facts, path: str) -> object:
    field = _Field.of(name, facts)
    max_length = schema.get("maxLength")
    for candidate in _candidates(field, facts):
        if isinstance(candidate, str) and field.kind in _TRUNCATABLE and isinstance(max_length, int):
            candidate = _truncated(candidate, max_length)
        for value in _members(schema["enum"], candidate) if "enum" in schema else [candidate]:
            if is_valid(schema, value):
                return value
    raise _NoValue(path)


def _truncated(text: str, max_length: int) -> str:
    """At most `max_length` characters, cut at a word; below 8 a cut text says nothing and is left whole."""
    if not 8 <= max_length < len(text):
        return text
    return text[: max_length - 1].rsplit(" ", 1)[0] + "…"


def _members(choices: Sequence[object], candidate: object) -> Iterable[object]:
    """The members of an enum that mean the same as a candidate."""
    if not isinstance(candidate, str):
        return [choice for choice in choices if type(choice) is type(candidate) and choice == candidate]
    normalized = _normalized(candidate)
    return [choice for choice in choices if isinstance(choice, str) and _normalized(choice) == normalized]


def _normalized(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", " ".join(re.findall(r"[\w']+", text.lower().replace("_", " "))))


# --- by kind of the field ---


def _candidates(field: _Field, facts: _Facts) -> Sequence[object]:
    """Values for a field, best first, in every type that the schema may ask for."""
    if not field.relevant:
        return []
    if field.kind == "supported":
        return [facts.supported]
    if field.kind == "question":
        return [facts.question]
    if not facts.supported:
        return [facts.text, *_UNKNOWN] if field.kind == "answer" else []
    if field.kind in ("start", "end", "duration"):
        return _times(field, facts)
    if field.kind == "quote" or (field.kind == "kind" and facts.is_entry):
        first = facts.evidence[:1]
        return [item.quote if field.kind == "quote" else item.kind for item in first]
    return _values(field, facts)


def _values(field: _Field, facts: _Facts) -> Sequence[object]:
    """Values for a field that holds the answer or a part of it."""
    numbers = _number(facts, is_count=field.kind == "count")
    if field.kind == "count":
        return [*numbers, *facts.values[:1], *map(str, numbers)]
    if facts.is_entry:
        return [*facts.values[:1], *numbers, facts.text]
    verdict = _yes_no(facts)
    if field.kind == "answer":
        return [facts.text, *verdict, *numbers, *facts.values]
    if field.kind in ("item", "kind") and not facts.values and not _in_question(field.words, facts):
        return []
    quoted = re.findall(r'"([^"]+)"', facts.text)
    return [*verdict, *facts.values[:1], *numbers, *(quoted if len(quoted) == 1 else [facts.text])]


def _in_question(words: Iterable[str], facts: _Facts) -> bool:
    return all(stem(word) in facts.question_stems for word in words)


def _yes_no(facts: _Facts) -> Sequence[object]:
    verdict = _verdict(facts)
    return [] if verdict is None else [verdict == "yes", verdict]


def _verdict(facts: _Facts) -> str | None:
    """The "yes" or "no" that an answer begins with, set off from what follows."""
    found = re.match(r"(yes|no)(?:[,.;:!]|$)", facts.text.lower())
    return found[1] if found else None


def _number(facts: _Facts, is_count: bool) -> list[float]:
    """The number that the question asks for, where the answer or its first quote holds exactly one.

    Args:
        facts: with the answer and its evidence.
        is_count: the field wants a count. Without the form of the question, one that begins the answer is.
    """
    counted = facts.form == "how often"
    first = facts.evidence[0] if facts.evidence else None
    text = ""
    if facts.values:
        text = facts.values[0]
    elif counted:
        text = facts.text
    elif is_count:
        text = facts.text.split(" ", 1)[0] if facts.supported else ""
    elif first and first.kind in ("speech", "screen") and not facts.is_entry and _asks_openly(facts):
        text = first.quote
    numbers = [float(re.sub("[,']", "", digits)) for digits in _NUMBER.findall(text)]
    if (counted or is_count) and not numbers:
        numbers = [float(NUMBERS[word]) for word in tokens(text) if word in NUMBERS]
    return [_int_if_whole(numbers[0])] if len(numbers) == 1 and math.isfinite(numbers[0]) else []


def _asks_openly(facts: _Facts) -> bool:
    return facts.form in ("open", "list") and _verdict(facts) is None


def _int_if_whole(number: float) -> float:
    return int(number) if number.is_integer() else number


def _times(field: _Field, facts: _Facts) -> Sequence[object]:
    """A time or duration: in the unit that the name states (else seconds), rounded, and as text.

    The span of "timeline" and "image" evidence is what was searched, so its ends are no times.
    """
    is_duration = field.kind == "duration"
    if not facts.evidence or (not is_duration and facts.evidence[0].kind in ("timeline", "image")):
        return []
    first = facts.evidence[0]
    seconds = {"start": first.start, "end": first.end, "duration": first.end - first.start}[field.kind]
    per_second = 1.0
    if {"ms", "millis", "milliseconds"} & set(field.words):
        per_second = 1000
    elif {"minute", "minutes"} & set(field.words):
        per_second = 1 / 60
    text = f"{seconds:.0f} s" if is_duration else timestamp(seconds)
    return [_int_if_whole(round(seconds * per_second, 3)), round(seconds * per_second), text]
