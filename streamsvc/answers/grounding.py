"""Whether a sentence of a model may be shown: the lines that it cites must hold what it claims. Pure.

Held to the cited lines, or to the question: names (by sound and spelling, for captions mishear), numbers, and
quotations; and the sentence must deny no more than they do. Other words are free, so that paraphrase passes.
How well question and sentence fit the lines is scored by a cross-encoder beside this, one sign among these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jellyfish
from text_to_num import alpha2digit

MAX_WORDS = 40  # of an answer
# Scores of the cross-encoder below which a sentence is left out; see deploy/decisions.md for data and curve.
MIN_RELEVANCE = -6.0
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
_CLAUSE = re.compile(r"[,.;:!?…()]|\b(?:but|and|because|although)\b", re.IGNORECASE)
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


def held(claim: str, lines: Sequence[str], question: str, *, check_names: bool = True) -> bool:
    """Whether lines hold the names, numbers, quotations and negations of a claim.

    Args:
        claim: one sentence.
        lines: the cited ones, as the model read them, with their times.
        question: its names and numbers may be repeated.
        check_names: False for languages that write other words with capitals too.
    """
    if not lines:
        return False
    known = " ".join([*lines, question])
    words = _words(known)
    names_held = not check_names or all(_is_among(name, words) for name in names(claim))
    return (
        names_held
        and numbers(claim) <= numbers(known) | {"1"}
        and all(_has_quotation(quotation, lines) for quotation in _QUOTATION.findall(claim))
        and _negations_agree(claim, lines, question)
    )


def names(text: str) -> list[str]:
    """Words with a capital that no sentence's beginning explains, and capitalised first words that may be."""
    found = []
    at_start = True
    for match in _WORD.finditer(text):
        word = match[0]
        if word[0].isupper() and word != "I" and not (at_start and word.lower() in _OPENERS):
            found.append(word.removesuffix("'s").removesuffix("’s"))
        at_start = bool(_SENTENCE_END.match(text, match.end())) or text[match.end() : match.end() + 1] == ":"
    return found


@lru_cache(maxsize=4096)
def numbers(text: str) -> frozenset[str]:
    """The numbers of an English text as digits, written or in words; ordinals count as numbers."""
    digits = alpha2digit(text.replace("-", " "), "en", threshold=0)
    return frozenset(number.lstrip("0") or "0" for number in _NUMBER.findall(_THOUSANDS.sub("", digits)))


@lru_cache(maxsize=4096)
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


def _has_quotation(quotation: str, lines: Sequence[str]) -> bool:
    wanted = _WORD.findall(quotation.lower())
    for line in lines:
        rest = iter(_WORD.findall(line.lower()))
        if all(any(_alike(word, other) for other in rest) for word in wanted):
            return True
    return False


def _negations_agree(claim: str, lines: Sequence[str], question: str) -> bool:
    """Whether a claim denies what its lines deny, and affirms what they affirm.

    A denial needs one in the lines or in the question. An affirmation is compared with the clause that shares
    most of its words.
    """
    if denies(claim):
        return any(map(denies, lines)) or denies(question)
    content = _content(claim)
    clauses = [clause for line in lines for clause in _CLAUSE.split(line) if clause.strip()]
    shared = [len(content & _content(clause)) for clause in clauses]
    best = max(shared, default=0)
    if best < 2:
        return True
    return not all(denies(clause) for clause, count in zip(clauses, shared, strict=True) if count == best)


def _content(text: str) -> frozenset[str]:
    """Beginnings of the words that are no function words; so "pays" and "paying" are one."""
    return frozenset(
        word[:5] for word in _WORD.findall(text.lower()) if word not in _OPENERS and len(word) > 2
    )


def denies(text: str) -> bool:
    """Whether an English text holds a negation."""
    return _NEGATION.search(text) is not None
