"""Questions about the story of load_tests.long_session, and words of a transcript to make others of."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LONG = 18  # words after which a comma ends a sentence too
_COMMON = """
"about above after again against always another around because before began being below better between
could declared either every everything first found great having himself indeed instead itself large
little might nearly never nothing other others perfectly quite rather scarcely seemed shall should
since still suddenly their there therefore these thing things think those though thought through under
until wanted where whether which while whole whose without would yourself certainly myself themselves
something across already almost became become brought called cannot given going likely looked make
making takes taking times upon using what with this that some were when have then them been from they
will your only more must such than said into over does doing here just like
"""
COMMON = frozenset(_COMMON.split())

# About crimson_30: question, what an answer must hold one of, and words of the sentence that says it. Written
# before any of it was asked, and not changed by how it was answered.
STORY: Sequence[tuple[str, tuple[str, ...], str]] = (
    ("Where did the crab live?", ("hole",), "lived in a hole"),
    ("What did the crab find near the mouth of her hole?", ("rice",), "a handful of cooked rice"),
    ("Where did the monkey live?", ("trees",), "lived in some trees"),
    ("What was the monkey's favourite food?", ("rice",), "his favourite food"),
    (
        "What did the monkey offer in exchange for the rice?",
        ("kernel", "kaki"),
        "in exchange for the kernel",
    ),
    ("Under which tree was the crab sitting?", ("kaki",), "a beautiful kaki tree"),
)


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of a talk: as written, bare (lower case letters), times in seconds, number of its sentence."""

    text: str
    bare: str
    start: float
    end: float
    sentence: int


def words_of(truth: dict[str, Any], until: float) -> list[SpokenWord]:
    """The words of a talk with the numbers of their sentences.

    A sentence ends at a full stop, semicolon, question or exclamation mark; after LONG words at a comma too.
    """
    words: list[SpokenWord] = []
    sentence = 0
    first = 0  # index of the sentence's first word
    for item in truth.get("words") or ():
        if item["end"] > until:
            break
        words.append(
            SpokenWord(
                item["w"], re.sub(r"[^a-z-]", "", item["w"].lower()), item["start"], item["end"], sentence
            )
        )
        if re.search(r"[.!?;]\W*$" if len(words) - first < LONG else r"[.!?;,]\W*$", item["w"]):
            sentence += 1
            first = len(words)
    return words


def distinctive(words: Sequence[SpokenWord]) -> list[SpokenWord]:
    """Words of five letters or more that occur once and are not common."""
    counts = Counter(word.bare[:5] for word in words)
    return [
        word
        for word in words
        if len(word.bare) >= 5
        and counts[word.bare[:5]] == 1
        and word.bare not in COMMON
        and "-" not in word.bare
    ]


def spread_out(rng: random.Random, items: Sequence[Any], count: int) -> list[Any]:
    """Draw `count` items, one out of each of as many equal parts, in order."""
    parts = [items[n * len(items) // count : (n + 1) * len(items) // count] for n in range(count)]
    return [rng.choice(part) for part in parts if part]


def span_of(quote: str, words: Sequence[SpokenWord], seconds: float) -> tuple[float, float]:
    """The times of the sentence that contains a quotation; the whole recording without word times.

    Raises:
        ValueError: the quotation does not occur.
    """
    if not words:
        return 0.0, seconds
    quoted = [re.sub(r"[^a-z-]", "", word) for word in quote.lower().split()]
    for start in range(len(words) - len(quoted) + 1):
        if [word.bare for word in words[start : start + len(quoted)]] == quoted:
            sentence = [word for word in words if word.sentence == words[start].sentence]
            return sentence[0].start, sentence[-1].end
    raise ValueError(f"{quote!r} is not said in the part that is played")
