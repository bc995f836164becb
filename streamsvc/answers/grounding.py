"""Which sentences of the VLM may be shown: those that the lines or pictures before it support. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from streamsvc.answers.rules.parse import Ask
from streamsvc.answers.rules.visual_questions import Target
from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence
from streamsvc.timeline.lines import Line
from streamsvc.timeline.text import QUESTION_WORDS, STOP, bag, stem, tokens
from streamsvc.vision.vlm_text import clause_end, clean, is_about_words, is_refusal

MAX_TOKENS = 64  # of an answer: 40 words are about 55
MIN_WORDS = 3  # that the beginning of a sentence must have to say anything
_NEGATIONS = frozenset(
    ["not", "no", "never", "nobody", "nothing", "none", "neither", "nor", "without", "cannot"]
)


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of an answer that may be shown, with its evidence.

    Keyframes that the model saw, or a line that was said or written.
    """

    text: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model was asked, and shown for it.

    `way`: whether it was asked of the pictures or of the words. `ask`: the parsed question. `items`: the
    context. `cite`: evidence of the keyframes of some lines, by number.
    """

    way: Target
    ask: Ask
    items: Sequence[Line]
    cite: Callable[[Sequence[int]], tuple[Evidence, ...]]


def supporting_line(clause: str, items: Sequence[Line], ask: Ask) -> Evidence | None:
    """The newest line that supports a clause; None where there is none.

    A line supports a clause that it holds word by word: content words and numbers in the same order, the same
    negation. The clause must say something that the question does not, and the names of the question must
    stand near the line.

    Args:
        clause: of the model.
        items: the context that the model was shown.
        ask: the parsed question.
    """
    words = _content(clause)
    asked = bag(ask.raw) | QUESTION_WORDS
    if not words or all(word in asked for word in words):
        return None
    lines = [item for item in items if item.kind not in ("picture", "sight")]
    names = {*ask.names, *ask.owners}
    if ask.subject is not None and ask.subject != ask.focus:
        names.add(ask.subject)
    for place in range(len(lines) - 1, -1, -1):
        line = lines[place]
        if not _in_order(words, _content(line.text)) or _negated(clause) != _negated(line.text):
            continue
        near = frozenset().union(*(bag(other.text) for other in lines[max(0, place - 2) : place + 3]))
        if names <= near and any(word in near for word in ask.about):
            return line.evidence()
    return None


@lru_cache(maxsize=4096)
def _content(text: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in tokens(text) if word not in STOP)


def _in_order(words: Sequence[str], line: Sequence[str]) -> bool:
    rest = iter(line)
    return all(word in rest for word in words)


def _negated(text: str) -> bool:
    return any(word in _NEGATIONS or word.endswith("n't") for word in tokens(text))


class AnswerFilter:
    """Passes on the supported clauses of one answer while it is generated.

    Args:
        shown: what the model was asked, and shown.
        words: that may be passed on, at most.

    `over`: nothing more of the answer may be shown.
    """

    def __init__(self, shown: Shown, words: int) -> None:
        self.over = False
        self._shown = shown
        self._words_left = words
        self._seen: tuple[Evidence, ...] = ()  # keyframes that were before the model
        self._text = ""
        self._pieces = 0
        self._cut = False
        self._passed_any = False

    def take(self, piece: Payload) -> list[Clause]:
        """Take the next piece of the generated text; returns the clauses that it completes."""
        if "shown" in piece:
            self._seen = self._shown.cite(piece["shown"])
            self.over = self._shown.way == "look" and not self._seen
        self._cut = self._cut or bool(piece.get("cut"))
        self._text = (self._text + str(piece.get("text", ""))).lstrip()
        self._pieces += bool(piece.get("text"))
        clauses: list[Clause] = []
        while not self.over and (end := clause_end(self._text)):
            clause = self._text[:end]
            self._text = self._text[end:].lstrip()
            clauses += self._checked(clause)
        if not self.over and len(self._text.split()) > self._words_left:
            clauses += self._checked(self._text, cut=True)
        return clauses

    def rest(self, *, complete: bool) -> list[Clause]:
        """What is left at the end of the text. `complete`: the engine ended the stream by itself."""
        if self.over:
            return []
        cut = not complete or self._cut or self._pieces >= MAX_TOKENS
        return self._checked(self._text, cut=cut)

    def _checked(self, text: str, *, cut: bool = False) -> list[Clause]:
        """The clause, if it may be shown; after a clause that may not, nothing more is.

        The beginning of a clause that is `cut` off or too long is shown where it is all that there is, but
        only of pictures: in what was said, a "not" may follow.
        """
        clause = clean(text)
        words = clause.split()
        if cut or len(words) > self._words_left:
            self.over = True
            if self._passed_any or self._shown.way == "text" or len(words) < MIN_WORDS:
                return []
            clause = " ".join([*words[: self._words_left - 1], "…"])
        evidence = self._evidence(clause)
        if not evidence:
            self.over = self.over or bool(clause)
            return []
        self._words_left -= len(clause.split())
        self._passed_any = True
        return [Clause(clause, evidence)]

    def _evidence(self, clause: str) -> tuple[Evidence, ...]:
        if not clause or is_refusal(clause):
            return ()
        if self._shown.way == "look" and not is_about_words(clause):
            return self._seen
        line = supporting_line(clause, self._shown.items, self._shown.ask)
        return (line,) if line is not None else ()
