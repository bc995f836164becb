"""What a watch waits for, as checks on sights, screen text and speech. Pure.

What kind of condition it is the examples say (`watch_intents`); here the words of it become a check, or it is
rejected with the reason. Without English wordings: subjects are the words that few examples have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal

from streamsvc.answers import times, watch_intents
from streamsvc.answers.example_votes import words_of
from streamsvc.answers.watch_intents import Kind, Vote
from streamsvc.core.errors import InvalidRequest
from streamsvc.timeline.text import terms
from streamsvc.vision import labels

DEFAULT_SILENCE = 5.0  # seconds
MAX_LENGTH = 200  # characters of a condition
# By how much the likeliest kind that the rules decide must be ahead of those that only a model, or nothing,
# can tell. Leaving out one at a time of the first 448 examples: at 0 of 306 conditions 259 are understood
# rightly and 27 of 142 that cannot be watched are taken for others; at .05 251 and 20, at .1 242 and 15.
DOUBT = 0.05
RULES: tuple[Kind, ...] = (
    "seen", "gone", "blank", "slide", "written", "said", "topic", "silence", "speech",
)  # fmt: skip
BEYOND: tuple[Kind, ...] = ("look", "read", "none")

CheckKind = Literal["object", "gone", "blank", "slide", "written", "said", "silence", "speech", "model"]


@dataclass(frozen=True, slots=True)
class Check:
    """What makes a watch fire.

    `kind`: "object" (`min_count` to `max_count` of `label` are shown), "gone", "blank", "slide" (it changes),
    "written" and "said" (all of `stems`), "silence" (for `seconds`), "speech" (it begins), "model" (a model
    says so: of the pictures if `sees`, else of what is told).
    `text`: what `stems` are of. `topic`: of "said", a phrase; speech close to it in meaning fires too.
    """

    kind: CheckKind
    label: str = ""
    min_count: int = 1
    max_count: float = inf
    stems: frozenset[str] = frozenset()
    text: str = ""
    topic: str = ""
    seconds: float = DEFAULT_SILENCE
    sees: bool = False


@dataclass(frozen=True, slots=True)
class Able:
    """Whether a model is there that sees pictures, and one that reads what is told."""

    sees: bool = False
    reads: bool = False


def checks_of(when: str, vote: Vote | None, able: Able) -> tuple[Check, ...]:
    """The checks of a condition; one of them must become true.

    Args:
        when: 1 to MAX_LENGTH characters.
        vote: of the examples; None: there is none, and only quotations and labels are understood.
        able: what the models can tell.

    Raises:
        InvalidRequest: nothing here can decide it; the message says why ("cannot_watch").
    """
    if not when.strip() or len(when) > MAX_LENGTH:
        raise _rejected(f"a watch has 1 to {MAX_LENGTH} characters")
    quotation = times.quotation_of(when)
    if quotation and not _words_around(when):
        return _worded("said", when) + _worded("written", when)
    if vote is None:
        return _worded("said", when) + _worded("written", when) if quotation else _shown(when)
    if _is_of_two_at_once(when, quotation):
        if not (able.sees and able.reads):
            raise _rejected("two things at once need a model that sees (profiles gpu and remote)")
        return Check("model", sees=True), Check("model")
    kind, share = vote.best(watch_intents.WORDED if quotation else RULES)
    beyond, other = vote.best(BEYOND)
    if share - other < DOUBT:
        return (_modelled(beyond, able),)
    match kind:
        case "seen":
            return _shown(when)
        case "gone":
            return (_gone(when),)
        case "written" | "said" | "topic":
            # What is meant may be said in other words; what is quoted may not.
            by_meaning = kind != "said" and not quotation and able.reads
            return _worded(kind, when) + ((Check("model"),) if by_meaning else ())
        case "silence":
            return (Check("silence", seconds=times.length_of(when) or DEFAULT_SILENCE),)
        case "blank" | "slide" | "speech":
            return (Check(kind),)
        case _:
            raise AssertionError(kind)


def understood(check: Check) -> str:
    """A check in plain words, for whoever made the watch."""
    match check.kind:
        case "object":
            count = check.min_count
            least = "" if count == 1 or check.max_count == count else "at least "
            return f"{least}{labels.counted(labels.singular(check.label), count)} in the picture"
        case "gone":
            return f"no {labels.singular(check.label)} in the picture any more"
        case "blank":
            return "a blank picture"
        case "slide":
            return "another screen of text"
        case "written":
            return f"on the screen: {check.text}"
        case "said" if check.topic:
            return f"said or talked about: {check.topic}"
        case "said":
            return f"said: {check.text}"
        case "silence":
            return f"no speech for {check.seconds:g} s"
        case "speech":
            return "speech begins"
        case "model":
            return "as the model sees it" if check.sees else "as the model reads it"


def fields_of(check: Check) -> dict[str, Any]:
    """A check as plain data, for a recording."""
    return asdict(check) | {"stems": sorted(check.stems)}


def checks_from(recorded: Iterable[Mapping[str, Any]]) -> tuple[Check, ...]:
    """Checks from the plain data of a recording."""
    return tuple(Check(**{**fields, "stems": frozenset(fields["stems"])}) for fields in recorded)


# --- what the words of a condition say ---


def _shown(when: str) -> tuple[Check, ...]:
    """The labels that a condition names, each alternative its own."""
    return tuple(_object(part) for part in _alternatives(words_of(watch_intents.without_opening(when))))


def _alternatives(words: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in watch_intents.condition_words().alternatives:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _object(words: Sequence[str]) -> Check:
    start, label = _label_in(words)
    before = " ".join(words[:start])
    numbers = [int(number) for number in times.numbers_of(before) if number >= 1]
    says = watch_intents.condition_words()
    if numbers and any(f"{less} " in before for less in says.less):
        raise _rejected("that there are few of something is not watched")
    if numbers:
        count = numbers[-1] + any(f"{more} " in before for more in says.more)
    else:
        count = max(1, times.ORDINALS.get(words[start - 1], 1) if start else 1)
    if count > 1 and not labels.detectable(label):
        raise _rejected(f"{label!r} cannot be counted: the detector has no such label")
    exact = bool(numbers) and any(f"{word} " in before for word in says.exactly)
    return Check("object", label=label, min_count=count, max_count=count if exact else inf)


def _gone(when: str) -> Check:
    words = words_of(watch_intents.without_opening(when))
    is_people = any(f" {name} " in f" {' '.join(words)} " for name in watch_intents.condition_words().people)
    label = "person" if is_people else _label_in(words)[1]
    if not labels.detectable(label):
        raise _rejected(f"that {label!r} is gone is not recognised: the detector has no such label")
    return Check("gone", label=label)


def _label_in(words: Sequence[str]) -> tuple[int, str]:
    """The first label, and where it stands. Raises InvalidRequest: there is none."""
    for start in range(len(words)):
        if length := watch_intents.label_at(words, start):
            return start, " ".join(words[start : start + length])
    raise _rejected("it names no object that the vision models know")


def _worded(kind: Kind, when: str) -> tuple[Check, ...]:
    """Words that are written or said: those in quotation marks, else what each alternative is about."""
    quotation = times.quotation_of(when)
    words = words_of(watch_intents.without_opening(when))
    subjects = [quotation] if quotation else [_subject(part) for part in _alternatives(words)]
    topic = "" if quotation or kind != "topic" else _subject(words)  # meaning is of the whole phrase
    checks = []
    for subject in subjects:
        told = subject if quotation else " ".join(filter(watch_intents.is_subject, subject.split()))
        if stems := frozenset(terms(told)):
            name: CheckKind = "written" if kind == "written" else "said"
            checks.append(Check(name, stems=stems, text=subject, topic=topic))
            topic = ""
    if not checks:
        raise _rejected("it does not say which words; quotation marks around them help")
    return tuple(checks)


def _subject(words: Sequence[str]) -> str:
    """From the first word that few examples have to the last one."""
    places = [number for number, word in enumerate(words) if watch_intents.is_subject(word)]
    return " ".join(words[places[0] : places[-1] + 1]) if places else ""


def _is_of_two_at_once(when: str, quotation: str) -> bool:
    """Whether a word between two things that hold at once stands inside a condition, not in its quotation."""
    words = words_of(watch_intents.without_opening(when))[1:]
    return any(
        word in watch_intents.condition_words().together and word not in words_of(quotation) for word in words
    )


def _words_around(when: str) -> list[str]:
    quoted = words_of(times.quotation_of(when))
    return [word for word in words_of(watch_intents.without_opening(when)) if word not in quoted]


def _modelled(beyond: Kind, able: Able) -> Check:
    """A check by a model that sees or reads. Raises InvalidRequest: there is none that could tell."""
    if (beyond == "look" and able.sees) or (beyond == "read" and able.reads):
        return Check("model", sees=beyond == "look")
    reasons: dict[Kind, str] = {
        "look": "actions, looks and clothes need a model that sees (profiles gpu and remote)",
        "read": "what people do by speaking needs a model that reads",
    }
    raise _rejected(
        reasons.get(beyond, "sounds, feelings, the future and what does not happen are not recognised")
    )


def _rejected(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"this cannot be watched: {reason}; what can be watched: objects that the vision models know, "
        "a change of the slide, words on the screen, words that are said, a topic, silence, a black picture",
        code="cannot_watch",
    )
