"""What a rule found: an answer in clauses with its evidence, and how times and quotations are written. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.types import Evidence
from streamsvc.timeline.text import tokens


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer by rule. `clauses` joined are its text; `lines`: what a language model may phrase further.

    `values`: what was asked for, without words around it, where the rule knows it: a count, the things of a list.
    """

    clauses: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    supported: bool = True
    lines: tuple[Evidence, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.clauses)


def refusal() -> Finding:
    """What is said where nothing seen or heard answers."""
    return Finding(("I have not seen or heard that.",), (), supported=False)


def timestamp(seconds: float) -> str:
    """Session seconds as m:ss, or h:mm:ss."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def counted_words(count: int) -> str:
    """As in "Once", "Twice", "3 times"."""
    return {1: "Once", 2: "Twice"}.get(count, f"{count} times")


def quote_of(text: str, most: int, tail: bool = False) -> str:
    """At most `most` words of a text, its beginning, or its end; double quotes become single ones."""
    parts = text.replace('"', "'").replace("“", "'").replace("”", "'").split()

    def size(words: list[str]) -> int:
        return len(tokens(" ".join(words).replace("-", " ")))

    cut = list(parts)
    while len(cut) > 1 and size(cut) > most:
        cut = cut[1:] if tail else cut[:-1]
    if len(cut) == len(parts):
        return " ".join(parts)
    return ("… " if tail else "") + " ".join(cut) + ("" if tail else " …")
