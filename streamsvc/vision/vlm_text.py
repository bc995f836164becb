"""Reads a VLM's text: clause ends, refusals, and whether it speaks of words. Pure."""

from __future__ import annotations

import re

from streamsvc.timeline.lines import one_line

_CLAUSE_END = re.compile(r"[.!?;…]+[\"'”’)\]]*(?=\s)|(?<=\S)\s*\n")
_EMPHASIS = re.compile(r"[*`]+|^#+ ")
# The head of a line of the window, which models like to repeat.
_LINE_HEAD = re.compile(
    r"^(?:\[\d+\] ?)?(?:\d+(?::\d\d){1,2} ?)?(?:(?:answer|picture|seen|said|screen): ?)?", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|unable|not able|unclear|impossible|unknown|sorry|"
    r"no (?:information|picture|image)|"
    r"not (?:visible|shown|seen|heard|specified|mentioned|provided|clear|possible|enough|sure|known)|"
    r"(?:do(?:es)?|did|have|has|had)(?: not|n't) "
    r"(?:know|show|see|seen|hear|heard|tell|say|mention|specify|provide|contain))\b",
    re.IGNORECASE,
)
_OF_WORDS = re.compile(
    r"\b(says?|said|saying|reads?|writ(?:es|ten)|titled?|heading|words?|mention\w*|stat(?:es|ed)|explain\w*|"
    r"ask(?:s|ed)|tells?|told|according to|talk\w* about|speak\w* (?:of|about)|because)\b|[\"“”«»]"
)


def clause_end(text: str) -> int:
    """The length of the first complete clause of a growing text; 0: none is complete."""
    match = _CLAUSE_END.search(text)
    return match.end() if match else 0


def clean(text: str) -> str:
    """A clause in one line without marks of emphasis; "" where it has no letter or digit."""
    line = _LINE_HEAD.sub("", one_line(_EMPHASIS.sub("", text)))
    return line if any(letter.isalnum() for letter in line) else ""


def is_refusal(clause: str) -> bool:
    """Whether the model says that it does not know."""
    return _REFUSAL.search(clause.replace("’", "'")) is not None


def is_about_words(clause: str) -> bool:
    """Whether a clause is about what was said or written, or gives a reason.

    So no picture can support it.
    """
    return _OF_WORDS.search(clause.lower()) is not None
