"""Which questions are asked of the pictures, which of the words, and which of neither. Pure."""

from __future__ import annotations

import re
from typing import Literal

from streamsvc.answers.rules.parse import Ask

Target = Literal["look", "text"]


_EXACT = re.compile(
    r"\b(before|after|first|last|earlier|later|latest|previous|next|while|during|order|until|since|times|often)\b"
)
_ACTION = re.compile(
    r"\b(doing|holding|wearing|carrying|walking|running|sitting|standing|lying|riding|driving|eating|drinking|playing|pointing|waving|"
    r"dancing|jumping|cooking)\b"
)
_FACE = re.compile(r"\b(expression|smil\w+|laugh\w*|frown\w*|cry(?:ing)?|looks? like)\b")
_PRESENT = re.compile(
    r"(?:what|where|how|who)'s\b|(?:what|where|which|how|who)(?: \w+)? (?:is|are|does|do)\b|(?:is|are|does|do|describe)\b"
)
_GOING = re.compile(r"\b(happening|going on)\b")
_COLOUR = re.compile(
    r"\b(red|blue|green|yellow|orange|purple|pink|brown|gr[ae]y|white|black|golden|silver|dark|bright)\b"
)
_PLACE = re.compile(
    r"\b(?:on|in|at|under|behind|beside|near|above|below|around|in front of|next to) (?:the|a|an|his|her|their|its)\b"
)


def ask_target(ask: Ask) -> Target | None:
    """What a question that no rule answers may be asked of: the pictures ("look"), the words ("text"), or nobody.

    Times, orders, counts and what a screen reads are exact: the timeline knows them or nobody does. Sounds, and who somebody is, no
    picture tells.
    """
    exact = (
        ask.form in ("when", "how long", "how many")
        or ask.times
        or ask.last is not None
        or ask.ago is not None
        or ask.quoted
    )
    if exact or _EXACT.search(ask.text) or SOUND.search(ask.text) or IDENTITY.search(ask.text):
        return None
    if ask.words[:1] == ["why"]:  # no picture tells reasons
        return "text"
    if LOOK.search(ask.text) or _FACE.search(ask.text):
        return None if ask.spoken else "look"
    if FEELING.search(ask.text) or ask.on_screen:
        return None
    if ask.spoken:
        return "text"
    present = _PRESENT.match(ask.text) and (
        ask.thing is not None or _PLACE.search(ask.text) or _COLOUR.search(ask.text)
    )
    return (
        "look"
        if ask.seen or ask.now or present or asks_about_action(ask) or _GOING.search(ask.text)
        else "text"
    )


def asks_about_action(ask: Ask) -> bool:
    """Whether a question is about what somebody does in the picture: words that were said do not tell that, though a rule may find some."""
    return (
        bool(_PRESENT.match(ask.text) and _ACTION.search(ask.text)) and not ask.spoken and not ask.on_screen
    )


SOUND = re.compile(
    r"\b(music|song|songs|melod\w+|tune|instruments?|applause|clapping|noises?|noisy|loud|background sounds?|accent|barking|sirens?|ringing)\b|\b(?:what|which|any) sounds?\b|\bsounds? like\b|"
    r"\b(?:tone|pitch|gender) of\b|\b(?:voice|speaker|reader|narrator)\b.*\b(?:male|female|young|old|deep|calm|man|woman|sad|happy|angry|friendly|nervous|excited)\b|"
    r"\b(?:man|woman|male|female|child|girl|boy)\b.*\b(?:speaking|talking|reading)\b"
)
IDENTITY = re.compile(
    r"^(?:who|whom|whose) (?:is|was|are|were|do|did|can|has) ?(?:(?:the|this|that|these|those|we|you|i) ?)?(?:\w+ ){0,2}?(?:speaking|talking|reading|shown|visible|seen|see|speaker|reader|narrator|person|man|woman|voice|"
    r"persons|people|in the (?:picture|image|video|photo|scene)|on (?:the )?(?:screen|camera)|presenter|lecturer|it|this|that|singing|he|she)\b|^who (?:speaks|talks|reads|says|said this|sings)\b|whose voice"
)
LOOK = re.compile(
    r"\b(colou?rs?|colou?red|wear\w*|wore|dress(?:ed)?|cloth\w+|outfit|costume|hair\w*|beard|tall|heavy|weather|brand|logo|(?<!most )(?<!least )expensive|beautiful|pretty|ugly|bright\w*|blurry|resolution)\b"
)
FEELING = re.compile(
    r"\b(mood|emotions?|expression|smil\w+|laugh\w*|frown\w*|cry(?:ing)?|angry|sad|happy|bored|tired|nervous|excited|feel\w*|look like|how old|age)\b"
)
