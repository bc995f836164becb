"""Example conditions of watches, and how they vote on what a watch waits for. Data: watch_intents.toml."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

import numpy as np

from streamsvc.answers.example_votes import Vector, Votes, words_of
from streamsvc.answers.intents import label_words
from streamsvc.answers.times import NUMBERS
from streamsvc.timeline.text import STOP, stem
from streamsvc.vision import labels

Kind = Literal[
    "seen", "gone", "blank", "slide", "written", "said", "topic", "silence", "speech", "look", "read", "none"
]
_LONGEST_LABEL = 3  # words
_ANY_THING = "dog"  # stands for each
_SUBJECT = re.compile(r"\{[^}]*\}")
WORDED: tuple[Kind, ...] = ("written", "said", "topic")  # kinds that are about words


@dataclass(frozen=True, slots=True)
class Vote:
    """How the examples vote: the share of each kind, about 0 to 1."""

    shares: Mapping[Kind, float]

    def best(self, kinds: Collection[Kind]) -> tuple[Kind, float]:
        """The likeliest of some kinds, with its share."""
        kind = max(kinds, key=self.shares.__getitem__)
        return kind, self.shares[kind]


@dataclass(frozen=True, slots=True)
class ConditionWords:
    """Phrases with which a condition opens, words between its parts, for people, and beside numbers."""

    openings: tuple[str, ...]
    alternatives: frozenset[str]
    together: frozenset[str]
    people: tuple[str, ...]
    more: tuple[str, ...]
    less: tuple[str, ...]
    exactly: tuple[str, ...]


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("watch_intents.toml").read_text("utf-8"))


@cache
def condition_words() -> ConditionWords:
    """Words that belong to conditions."""
    words = _data()["words"]
    return ConditionWords(
        tuple(sorted(words["openings"], key=len, reverse=True)),
        frozenset(words["alternatives"]),
        frozenset(words["together"]),
        tuple(words["people"]),
        tuple(words["more"]),
        tuple(words["less"]),
        tuple(words["exactly"]),
    )


@cache
def labelled() -> tuple[tuple[Kind, str], ...]:
    """All examples with their kinds."""
    return tuple(
        (cast(Kind, group["kind"]), text.replace("{", "").replace("}", ""))
        for group in _data()["watch"]
        for text in group["conditions"]
    )


def examples() -> list[str]:
    """All conditions."""
    return [text for _, text in labelled()]


@cache
def texts() -> tuple[str, ...]:
    """All conditions as they are compared, in the order of the vectors of `Voters`."""
    return tuple(compared(text) for text in examples())


@cache
def _common() -> frozenset[str]:
    """Stems of the words that stand around what conditions are about, in more than one of them."""
    uses = Counter(
        stem(word)
        for group in _data()["watch"]
        if group["kind"] in WORDED
        for text in group["conditions"]
        for word in set(words_of(_SUBJECT.sub(" ", text)))
    )
    return frozenset(word for word, count in uses.items() if count > 1)


def is_subject(word: str) -> bool:
    """Whether a word of a condition may be of what it is about."""
    return word not in STOP and stem(word) not in _common()


def without_opening(when: str) -> str:
    """A condition in lower case without "tell me as soon as" and the like."""
    text = " ".join(when.casefold().replace("\u2019", "'").split())
    while opening := next(
        (o for o in condition_words().openings if text.startswith((f"{o} ", f"{o},"))), None
    ):
        text = text[len(opening) :].lstrip(" ,:")
    return text


def compared(when: str) -> str:
    """A condition as it is compared with the examples: things are as good as each other there."""
    words = words_of(without_opening(when))
    parts, start = ["when"], 0
    while start < len(words):
        found = label_at(words, start)
        is_thing = found > 0 and not labels.is_a("person", " ".join(words[start : start + found]))
        parts += [_ANY_THING] if is_thing else words[start : start + max(1, found)]
        start += max(1, found)
    return " ".join(parts)


def label_at(words: Sequence[str], start: int) -> int:
    """How many words from `start` on name a label or a group of labels; 0: none."""
    for length in range(min(_LONGEST_LABEL, len(words) - start), 0, -1):
        phrase = " ".join(words[start : start + length])
        is_word = length > 1 or not (phrase in STOP or phrase in NUMBERS or phrase in _ignored())
        if is_word and labels.known(phrase):
            return length
    return 0


@cache
def _ignored() -> frozenset[str]:
    """Labels whose word mostly means something else; people without a name are still people."""
    return frozenset(word for word in label_words().ignored if not labels.is_a("person", word))


class Voters:
    """The examples with their vectors.

    Args:
        vectors: of `texts()`, unit length, shape (n, d).
    """

    def __init__(self, vectors: Vector) -> None:
        self._kinds: tuple[Kind, ...] = tuple(dict.fromkeys(kind for kind, _ in labelled()))
        targets = np.array([[kind == other for other in self._kinds] for kind, _ in labelled()], np.float64)
        self._votes = Votes(texts(), targets, vectors)

    def vote(self, text: str, vector: Vector) -> Vote:
        """How the examples vote on a condition, as `compared` gives it; its unit vector, shape (d,)."""
        shares = self._votes.shares(text, vector)
        return Vote(dict(zip(self._kinds, map(float, shares), strict=True)))
