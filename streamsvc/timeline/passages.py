"""Passages: stretches of the stream that retrieval ranks for a question. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.types import Evidence


@dataclass(frozen=True, slots=True)
class Passage:
    """One or three neighbouring sentences, or one screen of text, with its score for a query.

    `parts`: its sentences or lines, by time. `score`: of the cross-encoder, a logit; above about 2 the passage
    mostly holds the answer.
    """

    parts: tuple[Evidence, ...]
    score: float = 0.0

    @property
    def text(self) -> str:
        """The parts, separated by blanks."""
        return " ".join(part.quote for part in self.parts)

    def evidence(self) -> Evidence:
        """The whole passage as evidence."""
        first, last = self.parts[0], self.parts[-1]
        return Evidence(first.start, last.end, first.kind, self.text, first.frame)
