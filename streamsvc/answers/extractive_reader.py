"""The extractive reader: the passage that answers a question, or else the nearest ones, in their own words.

A passage that holds the answer (`Passage.answers`) is told; one that is near is pointed at, which claims
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.route import Route
from streamsvc.core.types import Evidence, Outcome
from streamsvc.timeline.passages import Passage

MAX_WORDS = 32  # of a quotation, so that an answer stays below 40
POINTED = 3  # passages that "closest" names


@dataclass(frozen=True, slots=True)
class Extract:
    """What the reader found: an answer, the nearest passages, or nothing ("declined", an empty text)."""

    outcome: Outcome
    finding: Finding


def extract(passages: Sequence[Passage], route: Route) -> Extract:
    """The best passage as an answer, or the nearest ones.

    A passage cannot say yes or no, nor tell of a picture; such questions are at most pointed at.

    Args:
        passages: best first.
        route: what kind of answer is asked for.
    """
    near = [passage for passage in passages if passage.near][:POINTED]
    if not near:
        return Extract("declined", Finding("", ()))
    best = near[0].evidence()
    if near[0].answers and route.reader == "text" and route.arguments.form != "yes/no":
        return Extract("answer", Finding(told(best), (best,), (best.quote,)))
    text = f"I found no answer. Nearest, {place(best)}: \u201c{quoted(best.quote, MAX_WORDS)}\u201d"
    return Extract("closest", Finding(text, tuple(passage.evidence() for passage in near)))


def told(evidence: Evidence) -> str:
    """A passage as an answer."""
    where = place(evidence)
    return f"{where[0].upper()}{where[1:]}: \u201c{quoted(evidence.quote, MAX_WORDS)}\u201d"


def place(evidence: Evidence) -> str:
    """Where a passage stands."""
    where = "on the screen at" if evidence.kind == "screen" else "at"
    return f"{where} {timestamp(evidence.start)}"
