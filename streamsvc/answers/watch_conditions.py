"""Conditions of watches: plain words compiled to checks on sights, screen text and speech. Pure.

A condition that no model here can decide is rejected when the watch is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Literal

from streamsvc.answers.times import NUMBERS
from streamsvc.answers.watch_words import thing_in
from streamsvc.core.errors import InvalidRequest
from streamsvc.timeline.text import terms
from streamsvc.vision import labels

DEFAULT_SILENCE = 5.0  # seconds
MAX_LENGTH = 200  # characters of a condition

# --- patterns of conditions, in English ---

_NUMBERS = NUMBERS | {"second": 2, "another": 2}
_COUNT = rf"(\d+|{'|'.join(_NUMBERS)})"
_OPENING = re.compile(
    r"^(?:please )?(?:(?:tell|alert|notify|warn|ping|inform|message|remind) (?:me|us)|"
    r"let (?:me|us) know|say so|(?:watch|look)(?: out)?|wait)?"
    r"[ ,:]*(?:as soon as|the moment|every time|each time|when(?:ever)?|if|once|that|for|until|about)?"
    r"[ ,:]*(?:there (?:is|are|'s) )?"
)
_UNDECIDABLE = re.compile(  # colours, clothes, sounds, feelings, actions
    r"\b(colou?r\w*|red|blue|green|yellow|orange|purple|pink|brown|grey|gray|white|wear\w*|dress\w*|"
    r"cloth\w*|hat|music|song|applause|clap\w*|laugh\w*|noise|loud\w*|bark\w*|siren\w*|ring\w*|sings?|"
    r"singing|happy|sad|angry|bored|tired|nervous|smil\w*|cry\w*|looks? at|feel\w*|beautiful|ugly|fast|"
    r"slow\w*|falls?|fell|fight\w*|runs?|running|jump\w*|danc\w*|wav(?:e|es|ing)|steal\w*|open(?:s|ed)?|"
    r"clos(?:e|es|ed))\b"
)
_SILENCE = re.compile(
    r"\b(?:nobody|no ?one|no-one) "
    r"(?:speaks?|talks?|is (?:speaking|talking)|says? anything|has (?:spoken|talked|said anything))\b|"
    r"\b(?:stops?|stopped|pauses?|finish\w*|ends?) (?:speaking|talking|the talk)\b|"
    r"\b(?:silence|silent|goes quiet|is quiet|falls quiet|the speaker (?:stops|pauses))\b"
)
_SPEECH_START = re.compile(
    r"\b(?:start\w*|begin\w*|resum\w*|continu\w*) (?:to )?(?:speak\w*|talk\w*)\b|"
    r"\b(?:speech|talk|talking) (?:starts?|begins?|resumes?)\b|"
    r"^(?:somebody|someone|anybody|anyone) (?:speaks?|talks?|says (?:something|anything))$"
)
_SCREEN = r"(?:screen|slide|page|board|terminal|presentation|title|document)"
_SLIDE_CHANGE = re.compile(
    rf"\b{_SCREEN}s? (?:is |are |has |gets |was )?"
    r"(?:chang\w+|switch\w*|turn\w*|flip\w*|advanc\w*|moves? on|replaced)\b|"
    rf"\b(?:new|next|another|different|following) {_SCREEN}\b|"
    rf"\b(?:chang\w+|turn\w*|switch\w*) (?:of )?(?:the |to )?(?:\w+ )?{_SCREEN}\b"
)
_WRITTEN = re.compile(
    rf"\b(?:on|in) (?:the |a |any |one )?{_SCREEN}s?\b|"
    rf"\b{_SCREEN} (?:says|shows|reads|has|contains|mentions|with)\b|"
    r"\b(?:written|text|reads)\b"
)
_SAID = re.compile(
    r"\b(?:says?|said|saying|mentions?|mentioned|talks?|talked|talking|speaks?|spoke|speaking|discuss\w*|"
    r"refers?|referred|brings? up|brought up|comes? up|utters?|hears?|heard|words?|phrase|spoken|"
    r"announc\w*|asks?|asked)\b"
)
_TOPIC = re.compile(
    r"\b(?:(?:talk|speak|spoke|hear|tell|told|ask)\w* (?:about|of)|discuss\w*|brings? up|refers? to|"
    r"(?:is|are) about|"
    r"(?:topic|subject|conversation|discussion|talk) "
    r"(?:is|becomes|comes|turns|moves|gets|changes)(?: on)?(?: to| about)?) "
    r"(?:the (?:topic|subject) of )?(.+)$"
)
_BLANK = re.compile(r"\b(?:black|blank|dark|empty)\b")
_PICTURE = re.compile(r"\b(?:picture|screen|video|image|camera|view|it)\b")
_GONE = re.compile(
    r"\b(?:leaves?|left|disappears?|disappeared|gone|goes (?:away|off)|vanish\w*|no longer|exits?|"
    r"walks? (?:out|away|off)|drives? (?:off|away|out)|moves? away|"
    r"out of (?:view|sight|the picture|frame)|removed|no more|not (?:there|visible|in view))\b|^no "
)
# Words beside an object that only say that it is, comes or goes.
_PRESENCE_WORD = re.compile(
    r"^(?:appear\w*|com\w*|came|arriv\w*|enter\w*|walk\w*|pass\w*|driv\w*|show\w*|visible|seen|see\w*|"
    r"spot\w*|detect\w*|present|view|picture|frame|camera|screen|sight|image|video|scene|room|again|first|"
    r"last|street|road|by|into|on|in|at|turn\w*|up|mov\w*|park\w*|find|found|get\w*|more|than|least|over|"
    r"most|exactly|leav\w*|left|disappear\w*|gone|go\w*|away|off|vanish\w*|longer|exit\w*|out|remov\w*|no|"
    r"not|there|any|person|people|shot|look\w*|be\w*)$"
)
_CONDITION_WORDS = frozenset(  # stems that are never what is watched for
    terms(
        "somebody someone anybody anyone speaker teacher presenter lecturer people person word words phrase "
        "term name says said mention talk about discuss comes up appears shown shows visible written text "
        "title screen slide page board terminal presentation document displayed reads read heard hear topic "
        "subject something everything called new next time first again stands announces refers asks"
    )
)

# --- conditions to checks ---


@dataclass(frozen=True, slots=True)
class Check:
    """What makes a watch fire.

    `kind`: "object" (`min_count` to `max_count` of `label` are shown), "gone", "blank", "slide" (it changes),
    "written" and "said" (all of `stems`), "silence" (for `seconds`), "speech" (it begins).
    `topic`: of "said", a phrase; speech close to it in meaning fires too.
    """

    kind: Literal["object", "gone", "blank", "slide", "written", "said", "silence", "speech"]
    label: str = ""
    min_count: int = 1
    max_count: float = inf
    stems: frozenset[str] = frozenset()
    topic: str = ""
    seconds: float = DEFAULT_SILENCE


def compile_condition(when: str) -> tuple[Check, ...]:
    """The checks of a condition; one of them must become true.

    Raises:
        InvalidRequest: no model here can decide it; the message says why ("cannot_watch").
    """
    quotation = re.search(r"[\"“”']([^\"“”']{2,80})[\"“”'](?!\w)", when)
    quoted = quotation[1] if quotation else ""
    text = " ".join(re.sub(r"[^\w\s'\-:]", " ", when.lower().replace("’", "'")).split())
    body = _OPENING.sub("", text, count=1).strip()
    if not body or len(when) > MAX_LENGTH:
        raise _rejected(f"a watch has 1 to {MAX_LENGTH} characters")
    if re.search(r"\b(?:not|never|without|\w+n't|neither)\b", body) and not _GONE.search(body):
        raise _rejected("that something does not happen can be watched of silence and of gone objects only")
    if _SILENCE.search(body):
        duration = re.search(rf"\b{_COUNT} (seconds?|secs?|minutes?|mins?)\b", body)
        if duration is None:
            return (Check("silence"),)
        return (Check("silence", seconds=_number(duration[1]) * (60.0 if duration[2][0] == "m" else 1.0)),)
    if _SPEECH_START.search(body):
        return (Check("speech"),)
    if re.search(r"\b(?:nobody|no ?one|no-one|nothing)\b", body):
        raise _rejected("that nobody does something can be watched of silence alone")
    return _text_checks(body, quoted) or tuple(_object_check(part) for part in re.split(r"\bor\b", body))


def _text_checks(body: str, quoted: str) -> tuple[Check, ...]:
    """Checks on what is written or said; () where the condition is about neither."""
    if _SLIDE_CHANGE.search(body) and not quoted:
        return (Check("slide"),)
    if written := _WRITTEN.search(body):
        text = quoted or _SAID.sub(" ", body)
        if stems := _stems_around(written, text):
            return (Check("written", stems=stems),)
    if (about := _TOPIC.search(body)) and not quoted and (stems := _stems(about[1])):
        return (Check("said", stems=stems, topic=about[1]),)
    if said := _SAID.search(body):
        stems = _stems_around(said, quoted or body)
        if not stems:
            raise _rejected("it does not say which words")
        return (Check("said", stems=stems),)
    if quoted and (stems := _stems(quoted)):
        return Check("said", stems=stems), Check("written", stems=stems)
    return ()


def _object_check(body: str) -> Check:
    if _BLANK.search(body) and _PICTURE.search(body):
        return Check("blank")
    if undecidable := _UNDECIDABLE.search(body):
        raise _rejected(f"colours, sounds, feelings and actions are not recognised: {undecidable[0]!r}")
    number = re.search(rf"\b(more than|over|at least|exactly)? ?\b{_COUNT} ", body)
    match = thing_in(body.replace(number[2], " ", 1) if number else body)
    if match is None:
        shown = re.search(r"\b(?:is|are) (?:shown|displayed|presented)\b", body)
        if shown and (stems := _stems_around(shown, body)):
            return Check("written", stems=stems)
        raise _rejected("it names no object that the vision models know")
    label, others = match
    for word in others:
        if not _PRESENCE_WORD.match(word) and word not in _NUMBERS and not word.isdigit():
            raise _rejected(f"{word!r} of an object is not recognised")
    min_count = _number(number[2]) + (number[1] in ("more than", "over")) if number else 1
    if _GONE.search(body):
        if not labels.detectable(label):
            raise _rejected(f"that {label!r} is gone is not recognised: the detector has no such label")
        return Check("gone", label=label)
    if min_count > 1 and not labels.detectable(label):
        raise _rejected(f"{label!r} cannot be counted: the detector has no such label")
    min_count = max(1, min_count)
    exact = number is not None and number[1] == "exactly"
    return Check("object", label=label, min_count=min_count, max_count=min_count if exact else inf)


def _rejected(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"this cannot be watched: {reason}; what can be watched: objects that the vision models know, "
        "a change of the slide, words on the screen, words that are said, silence, a black picture",
        code="cannot_watch",
    )


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _NUMBERS[text]


def _stems(text: str) -> frozenset[str]:
    """The stems that a text is about."""
    return frozenset(terms(text)) - _CONDITION_WORDS


def _stems_around(verb: re.Match[str], text: str) -> frozenset[str]:
    """The stems after a verb, or else those before it; all stems of a text that the verb is not from."""
    if verb.string != text:
        return _stems(text)
    return _stems(text[verb.end() :]) or _stems(text[: verb.start()])
