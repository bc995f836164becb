"""Whether a sentence of a model may be shown: the lines that it cites must hold what it claims. Pure.

Held to the cited lines, or to the question: names (by sound and spelling, for captions mishear), numbers, and
quotations; a third of the other words; and the sentence must deny and affirm as they do. The rest is free, so
that paraphrase passes.
How well question and sentence fit the lines is scored by a cross-encoder beside this, one sign among these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jellyfish
from text_to_num import alpha2digit

# Scores of the cross-encoder below which a sentence is left out; see deploy/decisions.md for data and curve.
MIN_RELEVANCE = -11.0
MIN_SHARE = 0.34  # of a claim's content words; a paraphrase shares more, what stands elsewhere less
_CAPITALISED_NOUNS = frozenset(["de", "lb"])
_SHORTEST_BY_SOUND = 4  # letters; shorter words sound alike by chance
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|\n")
_CITATION = re.compile(r"\s*\[\s*(\d+(?:\s*[,;]\s*\d+)*)\s*\]")
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))")
_QUOTATION = re.compile(r"[“\"«]([^”\"»]{2,})[”\"»]")
_NEGATION = re.compile(
    r"\b(?:no|not|never|nobody|nothing|none|neither|nor|without|cannot)\b|n['’]t\b", re.IGNORECASE
)
# What follows a negation, up to three words of one clause.
_DENIED = re.compile(rf"(?:{_NEGATION.pattern})((?:\s+[^\W_]+(?:['’-][^\W_]+)*){{1,3}})", re.IGNORECASE)
_VERDICT = re.compile(r"^\s*(?:yes|no)\b[,.;:!]?\s*", re.IGNORECASE)
# Words that begin a sentence with a capital and are no names.
_OPENING_WORDS = """
a about after again all also an and another any anything are as at because before both but by can could
did do does during each either every everybody everyone everything few first five for four from had has
have he her here hers his how i if in instead is it its just last later less many maybe more most much my
neither never next no nobody none nor not nothing now of on once one only or other others our out over
perhaps second several she should since so some somebody someone something soon such than that the their
them then there these they third this those though three through to today tomorrow two under until up we
were what when where whether which while who whose why will with without would yes yesterday yet you
your
"""
_OPENERS = frozenset(_OPENING_WORDS.split())


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of a model, without its citations, and the numbers of the lines that it cites."""

    text: str
    lines: tuple[int, ...]


class ClaimReader:
    """Cuts a growing text into claims: sentences with the citations in or right behind them."""

    def __init__(self) -> None:
        self._text = ""

    def take(self, piece: str) -> list[Claim]:
        """Take the next piece of the text; returns the claims that it completes."""
        self._text += piece
        claims: list[Claim] = []
        while (end := _complete(self._text)) > 0:
            claims += _claims(self._text[:end])
            self._text = self._text[end:]
        return claims

    def rest(self) -> list[Claim]:
        """The claim that the end of the text completes."""
        text, self._text = self._text, ""
        return _claims(text)


def _complete(text: str) -> int:
    """Length of the first sentence with its citations; 0: more of either may come."""
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        while (citation := _CITATION.match(text, end)) is not None:
            end = citation.end()
            if end < len(text) and text[end] in ".!?":  # "… [12]." and "… . [12]." are both met
                end += 1
        rest = text[end:].lstrip()
        if rest and not rest.startswith("["):
            return end
        if rest:
            return 0  # a citation has begun
    return 0


def _claims(text: str) -> list[Claim]:
    numbers = [int(n) for found in _CITATION.findall(text) for n in re.split(r"\s*[,;]\s*", found)]
    plain = " ".join(_CITATION.sub("", text).split())
    plain = re.sub(r"\s+([.!?…])", r"\1", plain).strip("*_`# ")
    return [Claim(plain, tuple(dict.fromkeys(numbers)))] if any(c.isalnum() for c in plain) else []


def is_none(text: str) -> bool:
    """Whether a model says that the lines do not tell."""
    return text.strip().strip(".*[]\"'").upper() == "NONE"


def held(claim: str, lines: Sequence[str], question: str, language: str = "en") -> bool:
    """Whether lines hold the names, numbers, quotations, negations and enough of the words of a claim.

    Args:
        claim: one sentence.
        lines: the cited ones, as the model read them, with their times.
        question: its names and numbers may be repeated.
        language: of the claim, ISO 639-1. Of a claim in another language than the lines', English, no words
            are compared, and of one that writes all nouns with capitals no names.
    """
    if not lines:
        return False
    known = " ".join([*lines, question])
    words = _words(known)
    told = [] if language in _CAPITALISED_NOUNS else names(claim, first_words=language == "en")
    return (
        all(_is_among(name, words) for name in told)
        and (language != "en" or _share(claim, lines) >= MIN_SHARE)
        and numbers(claim) <= numbers(known) | {"1"}
        and all(_has_quotation(quotation, " ".join(lines)) for quotation in _QUOTATION.findall(claim))
        and _negations_agree(claim, lines, question)
    )


def names(text: str, *, first_words: bool = True) -> list[str]:
    """Words with a capital that the beginning of a sentence does not explain.

    First words count too, but for those that begin many English sentences; not with `first_words` False.
    """
    found = []
    at_start = True
    for match in _WORD.finditer(text):
        word = match[0]
        is_opener = at_start and (not first_words or word.lower() in _OPENERS)
        if word[0].isupper() and word != "I" and not is_opener and not numbers(word):
            found.append(word.removesuffix("'s").removesuffix("’s"))
        at_start = bool(_SENTENCE_END.match(text, match.end())) or text[match.end() : match.end() + 1] == ":"
    return found


def numbers(text: str) -> frozenset[str]:
    """The numbers of an English text as digits, written or in words; ordinals count as numbers."""
    digits = alpha2digit(text.replace("-", " "), "en", threshold=0)
    return frozenset(number.lstrip("0") or "0" for number in _NUMBER.findall(_THOUSANDS.sub("", digits)))


def _words(text: str) -> frozenset[str]:
    return frozenset(
        part for word in _WORD.findall(text.lower()) for part in (word, *re.split(r"[-'’.]", word))
    )


def _is_among(name: str, words: Iterable[str]) -> bool:
    """Whether a word is among others by spelling or by sound."""
    lower = name.lower()
    return all(any(_alike(part, word) for word in words) for part in re.split(r"[-'’.]", lower) if part)


@lru_cache(maxsize=65536)
def _alike(first: str, second: str) -> bool:
    if first == second:
        return True
    shorter = min(len(first), len(second))
    if shorter < _SHORTEST_BY_SOUND:
        return False
    if jellyfish.levenshtein_distance(first, second) <= max(1, shorter // 4):
        return True
    return jellyfish.metaphone(first) == jellyfish.metaphone(second)


def _has_quotation(quotation: str, lines: str) -> bool:
    """Whether the words of a quotation stand in the lines in its order."""
    rest = iter(_WORD.findall(lines.lower()))
    return all(any(_alike(word, other) for other in rest) for word in _WORD.findall(quotation.lower()))


def _negations_agree(claim: str, lines: Sequence[str], question: str) -> bool:
    """Whether a claim denies what its lines deny, and affirms what they affirm.

    A denial needs one in the lines or in the question. An affirmation must not stand in a line right behind a
    negation. "Yes" or "No" before it answers the question, and denies nothing by itself.
    """
    claim = _VERDICT.sub("", claim)
    if denies(claim):
        return any(map(denies, lines)) or denies(question)
    content = _content(claim)
    return not any(content & _content(behind) for line in lines for behind in _DENIED.findall(line))


def _share(claim: str, lines: Sequence[str]) -> float:
    """Share of the content words of a claim that its lines hold; 1 where it has too few to tell."""
    content = {word for word in _content(claim) if not numbers(word)}
    return len(content & _content(" ".join(lines))) / len(content) if len(content) > 1 else 1.0


def _content(text: str) -> frozenset[str]:
    """Beginnings of the words that are no function words; so "pays" and "paying" are one."""
    words = (part for word in _WORD.findall(text.lower()) for part in re.split(r"[-'’.]", word))
    return frozenset(word[:4] for word in words if len(word) > 2 and word not in _OPENERS)


def denies(text: str) -> bool:
    """Whether an English text holds a negation."""
    return _NEGATION.search(text) is not None
