"""Times, numbers, ordinals and quotation marks of a question: all that code knows of its English. Pure."""

from __future__ import annotations

import re

# --- numbers ---

_UNIT_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen
"""
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_WORDS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
NUMBERS = {word: value for value, word in enumerate(_UNIT_WORDS.split())} | {
    word: 10 * value for value, word in enumerate(_TEN_WORDS.split(), 2)
}
ORDINALS = {word: value for value, word in enumerate(_ORDINAL_WORDS.split(), 1)} | {
    "last": -1,
    "final": -1,
    "latest": -1,
}

# --- patterns ---

_SECONDS_IN = {"s": 1.0, "m": 60.0, "h": 3600.0}
_ANY_UNIT = r"(?:s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b"
_UNIT = f"({_ANY_UNIT})"
_WORD = "|".join(sorted(NUMBERS, key=len, reverse=True))
_NUMBER = rf"(?:\d+(?:\.\d+)?|an?|half an?|(?:{_WORD})(?:[ -](?:{_WORD}))?)"
_CLOCK = r"(?:\d{1,2}:)?\d{1,3}:\d{2}(?:\.\d+)?(?! ?(?:[ap]\.?m\b|o'clock))"
_LENGTH = rf"{_NUMBER}[ -]?(?:{_ANY_UNIT}|[mh](?=\d))(?:,? ?(?:and )?{_NUMBER}[ -]?{_ANY_UNIT})?"
_NAMED = rf"(?:seconds?|minutes?|hours?) {_NUMBER}"
_TIME = rf"(?:{_CLOCK}|{_LENGTH}|{_NAMED})"
_RANGE = re.compile(
    rf"\b(?:between|from) (?P<one>{_TIME}|{_NUMBER}) ?(?:and|to|until|till|-|\u2013) ?(?P<other>{_TIME})|"
    rf"(?P<from>{_CLOCK}) ?(?:to|until|till|-|\u2013) ?(?P<to>{_CLOCK})"
)
_NAMED_RANGE = re.compile(
    rf"\b(?:between|from) (seconds?|minutes?) ({_NUMBER}) (?:and|to|until|till) "
    rf"(?:(?:seconds?|minutes?) )?({_NUMBER})\b"
)
_LATELY = re.compile(rf"\b(?:last|past|previous|recent) (?:({_NUMBER})[ -]?)?{_UNIT}")
_OPENING = re.compile(rf"\b(?:first|opening|initial) (?:({_NUMBER})[ -]?)?{_UNIT}")
_AGO = re.compile(rf"({_LENGTH}) (?:ago|back|earlier)\b")
_INTO = re.compile(rf"({_LENGTH}) in(?:to)?\b")
_NTH = re.compile(rf"\b({_ORDINAL_WORDS.replace(' ', '|')}|\d+(?:st|nd|rd|th)) minute\b")
_SINCE = re.compile(rf"\b(?:since|after) ({_TIME})")
_UNTIL = re.compile(rf"\b(?:until|till|before|up to) ({_TIME})")
_AT = re.compile(
    rf"(?:\b(?:at|around|about|near|by|circa)|[@~]) ?({_TIME})|(?<!the )\b({_CLOCK})|\b({_NAMED})\b"
)
_ANY_TIME = re.compile(rf"\b(?:{_CLOCK}|{_LENGTH}|{_NAMED})")
_QUOTED = re.compile(
    '["\u201c\u201d\u201e]([^"\u201c\u201d\u201e]+)["\u201c\u201d]|'
    "(?:^|(?<=\\s))['\u2018]([^'\u2018\u2019]{3,}?)['\u2019](?=[\\s?.,!]|$)|\u00ab([^\u00bb]+)\u00bb"
)


def span_of(text: str, now: float) -> tuple[float, float] | None:
    """The stretch that a question names, in session seconds; a moment has start == end. None: no time.

    A time after `now` is none of this session, as in "the train at 9:15".
    """
    plain = _plain(text)
    span = _range(plain) or _relative(plain, now) or _absolute(plain, now)
    if span is None or min(span) > now:
        return None
    return max(0.0, min(span)), min(now, max(span))


def _range(text: str) -> tuple[float, float] | None:
    if named := _NAMED_RANGE.search(text):
        seconds = _SECONDS_IN[named[1][0]]
        return _number(named[2]) * seconds, _number(named[3]) * seconds
    found = _RANGE.search(text)
    if found is None:
        return None
    one, other = found["one"] or found["from"], found["other"] or found["to"]
    if re.fullmatch(_NUMBER, one):  # "between 10 and 20 seconds"
        unit = re.search(_UNIT, other)
        one = f"{one} {unit[1] if unit else 's'}"
    return _seconds(one), _seconds(other)


def _relative(text: str, now: float) -> tuple[float, float] | None:
    """As in "the last minute", "20 seconds ago"."""
    if found := _LATELY.search(text):
        return max(0.0, now - _number(found[1] or "one") * _SECONDS_IN[found[2][0]]), now
    if found := _AGO.search(text):
        when = max(0.0, now - _seconds(found[1]))
        return when, when
    return None


def _absolute(text: str, now: float) -> tuple[float, float] | None:
    if found := _OPENING.search(text):
        return 0.0, _number(found[1] or "one") * _SECONDS_IN[found[2][0]]
    if found := _NTH.search(text):
        minute = ORDINALS.get(found[1]) or int(re.sub(r"\D", "", found[1]))
        return 60.0 * (minute - 1), 60.0 * minute
    if found := _SINCE.search(text):
        return _seconds(found[1]), now
    if found := _UNTIL.search(text):
        return 0.0, _seconds(found[1])
    if found := _INTO.search(text) or _AT.search(text):
        when = _seconds(next(part for part in found.groups() if part))
        return when, when
    return None


def ordinal_of(text: str) -> int | None:
    """1 of "the first", -1 of "the last"; a unit of time is none ("the last minute", "ten seconds")."""
    plain = re.sub(r"\b(?:what|which|per|a|each|every) second\b|\bhow long\b.*\blast\b", " ", _timeless(text))
    found = re.search(rf"\b(?:(\d{{1,3}})(?:st|nd|rd|th)|({'|'.join(ORDINALS)}))\b", plain)
    if found is None:
        return None
    return int(found[1]) if found[1] else ORDINALS[found[2]]


def numbers_of(text: str) -> tuple[float, ...]:
    """Numbers that are neither times nor ordinals, in order."""
    plain = re.sub(r"\b(?:the|this|that|which|other|last|first|next) one\b", " ", _timeless(text))
    found = re.findall(rf"(?<![\w.:])\d+(?:\.\d+)?(?![\w:])|\b(?:{_WORD})(?:[ -](?:{_WORD}))?\b", plain)
    return tuple(_number(number) for number in found)


def length_of(text: str) -> float | None:
    """The seconds of the first length of time, as in "for ten seconds"; None: there is none."""
    found = re.search(rf"\b{_LENGTH}", _plain(text))
    return _seconds(found[0]) if found else None


def quotation_of(text: str) -> str:
    """What stands in the first quotation marks; "" without any."""
    return next(iter(quotations_of(text)), "")


def quotations_of(text: str) -> tuple[str, ...]:
    """Everything that stands in quotation marks, in order."""
    return tuple(next(group for group in found if group).strip() for found in _QUOTED.findall(text))


def _plain(text: str) -> str:
    """Lower case, one blank between words, without what stands in quotation marks."""
    return " ".join(re.sub(r"[?!]+|\.(?=\s|$)", " ", _QUOTED.sub(" ", text).lower()).split())


def _timeless(text: str) -> str:
    """The plain text without its times."""
    plain = _plain(text)
    for pattern in (_NAMED_RANGE, _RANGE, _LATELY, _OPENING, _NTH, _ANY_TIME):
        plain = pattern.sub(" ", plain)
    return plain


def _seconds(time: str) -> float:
    """The seconds of a time or length that the patterns have matched."""
    if ":" in time:
        return sum(float(part) * 60.0**place for place, part in enumerate(reversed(time.split(":"))))
    if named := re.fullmatch(rf"(second|minute|hour)s? ({_NUMBER})", time):
        return _number(named[2]) * _SECONDS_IN[named[1][0]]
    parts = re.findall(rf"({_NUMBER})[ -]?({_ANY_UNIT}|[mh](?=\d))", time)
    return sum(_number(number) * _SECONDS_IN[unit[0]] for number, unit in parts)


def _number(word: str) -> float:
    if word in ("a", "an"):
        return 1.0
    if word.startswith("half"):
        return 0.5
    if word[0].isdigit():
        return float(word)
    return float(sum(NUMBERS[part] for part in re.split("[ -]", word)))
