"""Which sentences of a model may be shown: those that the lines or pictures it was shown hold. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from streamsvc.answers.rules.parse import Ask
from streamsvc.answers.rules.visual_questions import Way
from streamsvc.core.types import Evidence
from streamsvc.timeline.text import QUESTION_WORDS, STOP, bag, stem, tokens
from streamsvc.vision.vlm_context import Item, clean, declined, ended, of_words

_NOT = frozenset(["not", "no", "never", "nobody", "nothing", "none", "neither", "nor", "without", "cannot"])


def stands(clause: str, items: Sequence[Item], ask: Ask) -> Evidence | None:
    """What was said or shown that holds a clause: its content words and numbers in their order, and no other "not".

    It says something that the question does not, and who and what the question names is spoken of there.

    Args:
        clause: of the model.
        items: as told.
        ask: the question, taken apart.
    """
    words = _content(clause)
    asked = bag(ask.raw) | QUESTION_WORDS
    if not words or all(word in asked for word in words):
        return None
    lines = [item for item in items if item.kind != "picture"]
    named = {
        *ask.names,
        *ask.owners,
        *([ask.subject] if ask.subject is not None and ask.subject != ask.focus else []),
    }
    for place in range(len(lines) - 1, -1, -1):
        line = lines[place]
        if not _in_order(words, _content(line.text)) or _denies(clause) != _denies(line.text):
            continue
        near = frozenset().union(*(bag(other.text) for other in lines[max(0, place - 2) : place + 3]))
        if named <= near and any(word in near for word in ask.about):
            return Evidence(line.at, line.end, line.kind, line.text)
    return None


@lru_cache(maxsize=4096)
def _content(text: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in tokens(text) if word not in STOP)


def _in_order(words: Sequence[str], held: Sequence[str]) -> bool:
    rest = iter(held)
    return all(word in rest for word in words)


def _denies(text: str) -> bool:
    return any(word in _NOT or word.endswith("n't") for word in tokens(text))


TOKENS = 64  # of an answer: 40 words are about 55
SOME = 3  # words that the beginning of a sentence must have to say anything


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of an answer that may be shown, and what it stands on: keyframes that the model saw, or words that were said or written."""

    text: str
    evidence: tuple[Evidence, ...]


class AnswerFilter:
    """What may be shown of one answer as it grows. `over`: nothing more of it may.

    Args:
        way: of what it was asked.
        ask: the question, taken apart.
        items: what the model was told.
        seen: the times of the pictures that were before it -> evidence of them.
        words: that may be shown.
    """

    def __init__(
        self,
        way: Way,
        ask: Ask,
        items: Sequence[Item],
        seen: Callable[[Sequence[float]], tuple[Evidence, ...]],
        words: int,
    ) -> None:
        self.over = False
        self._way, self._ask, self._items, self._of, self._left = way, ask, items, seen, words
        self._seen: tuple[Evidence, ...] = ()
        self._text = ""
        self._pieces = 0
        self._cut = False
        self._any = False  # something was shown

    def take(self, piece: dict[str, Any]) -> list[Clause]:
        """The clauses that a piece completes."""
        if "shown" in piece:
            self._seen = self._of(piece["shown"])
            self.over = self._way == "look" and not self._seen
        self._cut = self._cut or bool(piece.get("cut"))
        self._text = (self._text + str(piece.get("text", ""))).lstrip()
        self._pieces += bool(piece.get("text"))
        found: list[Clause] = []
        while not self.over and (end := ended(self._text)):
            clause, self._text = self._text[:end], self._text[end:].lstrip()
            found += self._checked(clause)
        if not self.over and len(self._text.split()) > self._left:
            found += self._checked(self._text, cut=True)
        return found

    def rest(self, *, whole: bool) -> list[Clause]:
        """What is left at the end. `whole`: the model ended of itself, as far as is known."""
        return (
            []
            if self.over
            else self._checked(self._text, cut=not whole or self._cut or self._pieces >= TOKENS)
        )

    def _checked(self, text: str, *, cut: bool = False) -> list[Clause]:
        """A clause, if it may be shown; after one that may not, nothing more is.

        Of one that is `cut` off or too long, the beginning is shown where it is all that there is; not of words: a "not" may follow.
        """
        clause = clean(text)
        words = clause.split()
        if cut or len(words) > self._left:
            self.over = True
            if self._any or self._way == "text" or len(words) < SOME:
                return []
            clause = " ".join([*words[: self._left - 1], "…"])
        evidence = self._evidence(clause)
        if not evidence:
            self.over = self.over or bool(clause)
            return []
        self._left -= len(clause.split())
        self._any = True
        return [Clause(clause, evidence)]

    def _evidence(self, clause: str) -> tuple[Evidence, ...]:
        if not clause or declined(clause):
            return ()
        if self._way == "look" and not of_words(clause):
            return self._seen
        found = stands(clause, self._items, self._ask)
        return (found,) if found is not None else ()
