"""Example questions, and how they vote on where a question goes. The examples are data: intents.toml."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from streamsvc.answers.example_votes import Vector, Votes, words_of
from streamsvc.answers.route import Form, Reader

_COMMON = 3  # examples that share a word which belongs to a kind of question
# Other forms are rare beside "open": 96 % of the forms of left out examples are right, without it 93 %.
_RARE_FORMS = 0.3
_PRESENT = 0.4  # a false one costs a short wait for a picture, a missed one an old picture


@dataclass(frozen=True, slots=True)
class Intent:
    """Where some examples go; the fields are those of `Route`."""

    tool: str
    reader: Reader
    present: bool
    form: Form
    questions: tuple[str, ...]

    @property
    def name(self) -> str:
        """The tool, or the reader where there is none."""
        return self.tool or self.reader


@dataclass(frozen=True, slots=True)
class LabelWords:
    """Words of a question that name labels otherwise than vision/labels.py has it."""

    ignored: frozenset[str]
    plurals: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ColourWords:
    """Words of questions about colours: for the background, the picture, nothing at all; other names."""

    background: tuple[str, ...]
    picture: tuple[str, ...]
    idle: tuple[str, ...]
    same: dict[str, str]


@dataclass(frozen=True, slots=True)
class Vote:
    """How the examples vote on one question.

    `names` of intents, the best first, and their `shares`, about 0 to 1; `forms`, the likeliest first;
    whether it is about now, for those that may be or not.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]
    forms: tuple[Form, ...]
    present: bool

    @property
    def margin(self) -> float:
        """By how much the best is ahead."""
        return self.shares[0] - self.shares[1]

    def form_of(self, name: str) -> Form:
        """What kind of answer is asked for, if the question is one for the intent of a name."""
        possible = {intent.form for intent in intents() if intent.name == name}
        return next(form for form in self.forms if form in possible)

    def present_of(self, name: str) -> bool:
        """Whether it is about now, if the question is one for the intent of a name."""
        possible = {intent.present for intent in intents() if intent.name == name}
        return self.present if len(possible) > 1 else True in possible


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("intents.toml").read_text(encoding="utf-8"))


@cache
def intents() -> tuple[Intent, ...]:
    """The examples, in groups."""
    return tuple(
        Intent(
            entry.get("tool", ""),
            entry["reader"],
            entry.get("present", False),
            entry.get("form", "open"),
            tuple(entry["questions"]),
        )
        for entry in _data()["intent"]
    )


@cache
def by_name() -> dict[str, Intent]:
    """The first group of each name: its tool and reader."""
    groups: dict[str, Intent] = {}
    for intent in intents():
        groups.setdefault(intent.name, intent)
    return groups


@cache
def about() -> dict[str, str]:
    """What the questions of each name ask for, in a few words."""
    return {name: str(text) for name, text in _data()["about"].items()}


@cache
def label_words() -> LabelWords:
    """Words for labels."""
    labels = _data()["labels"]
    return LabelWords(
        frozenset(labels["ignored"]), {name: tuple(words) for name, words in labels["plurals"].items()}
    )


@cache
def colour_words() -> ColourWords:
    """Words of questions about colours."""
    words = _data()["colours"]
    return ColourWords(
        tuple(words["background"]), tuple(words["picture"]), tuple(words["idle"]), dict(words["same"])
    )


def examples() -> list[str]:
    """All questions, in the order of the vectors of `Electorate`."""
    return [question for intent in intents() for question in intent.questions]


@cache
def _uses() -> Counter[str]:
    return Counter(word for question in examples() for word in set(words_of(question)))


def rarity(word: str) -> float:
    """1 for a word that no example has, 0 for one of several.

    What many examples share carries the kind of a question, not its subject.
    """
    uses = _uses()[word]
    return 1.0 / (1 + uses) if uses < _COMMON else 0.0


class Electorate:
    """The examples with their vectors.

    Args:
        vectors: of `examples()`, unit length, shape (n, d).
    """

    def __init__(self, vectors: Vector) -> None:
        groups = [intent for intent in intents() for _ in intent.questions]
        self._names = tuple(by_name())
        self._forms: tuple[Form, ...] = tuple(dict.fromkeys(intent.form for intent in intents()))
        answers = np.array(
            [
                [
                    *(intent.name == name for name in self._names),
                    *(intent.form == form for form in self._forms),
                    intent.present,
                ]
                for intent in groups
            ],
            np.float64,
        )
        self._votes = Votes(examples(), answers, vectors)

    def vote(self, text: str, vector: Vector) -> Vote:
        """How the examples vote on a question with its unit vector, shape (d,)."""
        shares = self._votes.shares(text, vector)
        of_names = shares[: len(self._names)]
        of_forms = (shares / self._votes.means**_RARE_FORMS)[len(self._names) : -1]
        order = np.argsort(-of_names)
        return Vote(
            tuple(self._names[index] for index in order),
            tuple(float(of_names[index]) for index in order),
            tuple(self._forms[index] for index in np.argsort(-of_forms)),
            bool(shares[-1] > _PRESENT),
        )
