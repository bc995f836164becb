"""What of a VLM's sentence about a picture is a caption, also while the sentence grows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamsvc.timeline.text import QUESTION_WORDS, terms
from streamsvc.vision.vlm_text import clean, is_about_words, is_refusal

MAX_WORDS = 20  # of a caption: a longer one is withdrawn
_LEAD = re.compile(
    r"(?:in the (?:\w+ )?(?:picture|image),?|the (?:\w+ )?(?:picture|image)(?: now)? shows) ", re.IGNORECASE
)
_LEAD_BEGINS = ("in", "the")
_LEAD_WORDS = 5  # of the longest
_NOTHING_NEW = re.compile(
    r"\b(?:nothing (?:is |has |was )?(?:new|else|changed|different)|"
    r"no (?:new|(?:\w+ )?changes?|(?:\w+ )?differences?)|unchanged|"
    r"(?:the )?same|as before|still|remains?|continues?)\b"
)


def caption(sentence: str, known: Iterable[str]) -> str:
    """A model's sentence as a caption; "" where it is a refusal, too long, about words, or says nothing new.

    Args:
        sentence: of the model.
        known: the caption by rule of the scene, and the caption of the scene before.
    """
    text = clean(sentence)
    if lead := _LEAD.match(text):
        text = text[lead.end()].upper() + text[lead.end() + 1 :]
    if len(text.split()) > MAX_WORDS or is_refusal(text) or is_about_words(text):
        return ""
    if _NOTHING_NEW.search(text.lower()):
        return ""
    return text if set(terms(text)) - QUESTION_WORDS.union(*map(terms, known)) else ""


def begun(unfinished: str, known: Iterable[str]) -> str:
    """The beginning of a caption whose sentence is not finished: its whole words; "" where none may be shown.

    Nothing is shown before it says something new, nor while its head may be cut off. What it grows into is
    the caption, unless that becomes none after all.

    Args:
        unfinished: the model's text so far.
        known: as for `caption`.
    """
    words = unfinished.split()
    if unfinished[-1:].strip():
        words = words[:-1]  # the last may go on
    whole = " ".join(words)
    text = clean(whole)
    first, count = text.partition(" ")[0].lower(), len(text.split())
    if first in _LEAD_BEGINS and count <= _LEAD_WORDS and not _LEAD.match(text):
        return ""
    return caption(whole, known)
