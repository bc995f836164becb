"""The extractive reader: the passage that answers a question, or else the nearest ones, in their own words.

A passage that holds the answer (`Passage.answers`) is told; one that is near is pointed at, which claims
nothing. Of yes and no it can tell only the no: a sentence that fits a question may still not affirm it, but
one that fits and denies does deny.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.grounding import denies
from streamsvc.answers.route import Route
from streamsvc.core.types import Evidence, Outcome
from streamsvc.timeline.passages import MAX_WORDS, Passage

POINTED = 3  # passages that "closest" names
CUT_SECONDS = 0.3  # to choose the part of a passage that is told
_CLAUSE = re.compile(r"[^,;:–—]+[,;:–—]?")

# A query, texts, seconds -> the cross-encoder's score of each text; None: not in time (`Index.rank`).
Rank = Callable[[str, Sequence[str], float], Awaitable[Sequence[float] | None]]


@dataclass(frozen=True, slots=True)
class Extract:
    """What the reader found: an answer, the nearest passages, or nothing ("declined", an empty text)."""

    outcome: Outcome
    finding: Finding


async def read(question: str, route: Route, passages: Sequence[Passage], rank: Rank) -> Extract:
    """The best passage as an answer, or the nearest ones.

    Args:
        question: its text.
        route: what kind of answer is asked for; of pictures a passage is at most pointed at.
        passages: best first.
        rank: scores the parts of a passage that is not told whole.
    """
    near = [passage for passage in passages if passage.near][:POINTED]
    if not near:
        return Extract("declined", Finding("", ()))
    if near[0].answers and route.reader == "text":
        is_verdict = route.arguments.form == "yes/no"
        part = await _best(question, _sentences(near[0]) if is_verdict else _runs(near[0]), rank)
        if is_verdict and denies(part.text):
            return _told(part.evidence(), f"No, {place(part.evidence())}", ("no",))
        if not is_verdict:
            where = place(part.evidence())
            return _told(part.evidence(), f"{where[0].upper()}{where[1:]}", (part.text,))
    best = near[0].evidence()
    text = f"I found no answer. Nearest, {place(best)}: \u201c{quoted(best.quote, MAX_WORDS)}\u201d"
    return Extract("closest", Finding(text, tuple(passage.evidence() for passage in near)))


def _told(evidence: Evidence, lead: str, values: tuple[str, ...]) -> Extract:
    text = f"{lead}: \u201c{quoted(evidence.quote, MAX_WORDS)}\u201d"
    return Extract("answer", Finding(text, (evidence,), values))


def place(evidence: Evidence) -> str:
    """Where a passage stands."""
    where = "on the screen at" if evidence.kind == "screen" else "at"
    return f"{where} {timestamp(evidence.start)}"


async def _best(question: str, parts: list[Passage], rank: Rank) -> Passage:
    """The part that fits a question best; the first where the cross-encoder is not there in time."""
    scores = await rank(question, [part.text for part in parts], CUT_SECONDS) if len(parts) > 1 else None
    return parts[max(range(len(parts)), key=lambda n: scores[n])] if scores is not None else parts[0]


def _sentences(passage: Passage) -> list[Passage]:
    return [replace(passage, parts=(part,)) for part in passage.parts]


def _runs(passage: Passage) -> list[Passage]:
    """The passage, or where it is too long to be told whole, the longest runs of its sentences or clauses."""
    if _words(passage.text) <= MAX_WORDS:
        return [passage]
    parts = list(passage.parts)
    if len(parts) == 1:
        parts = [replace(parts[0], quote=clause) for clause in _CLAUSE.findall(parts[0].quote)]
    runs: list[Passage] = []
    for first in range(len(parts)):
        last = first + 1
        while (
            last < len(parts)
            and _words(" ".join(part.quote for part in parts[first : last + 1])) <= MAX_WORDS
        ):
            last += 1
        if not runs or runs[-1].parts[-1] is not parts[last - 1]:
            runs.append(replace(passage, parts=tuple(parts[first:last])))
    return runs


def _words(text: str) -> int:
    return len(text.split())
