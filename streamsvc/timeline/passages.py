"""Passages: stretches of the stream that retrieval ranks for a question. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamsvc.core.types import Evidence
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text_tracks import TextTrack

WINDOWS = (2, 3)  # sentences that follow each other
# Chosen on the develop half of ../shared/questions, as all here but ANSWER (load_tests/retrieval.py):
MAX_WORDS = 37  # of a passage of several sentences, so that it can be told; a longer one stands alone
MAX_SCREEN_WORDS = 80  # of a screen as one passage; what follows is found line by line
FLOOR = -10.0  # score below which a passage has nothing to do with the question
# Certainty from which a passage holds the answer, if it stands out; chosen with the sums of both halves seen.
ANSWER = -1.0
SCREEN = 4.0  # by which a screen must score higher: short lines fit whatever names their topic
MARGIN = 3.0  # by which the passage is better than the next one: where several are as good, none answers
OWN = -2.0  # score from which it fits a follow-up by itself, and not only what was asked before


@dataclass(frozen=True, slots=True)
class Passage:
    """Two or three neighbouring sentences, a long one, or text of one screen, with its score for a query.

    `parts`: its sentences or lines, by time. `score`: of the cross-encoder, a logit; -inf where that was not
    there. `margin`: by how much the score is above that of the next passage of its kind. `own`: of a
    follow-up, the score for the question alone.
    """

    parts: tuple[Evidence, ...]
    score: float = 0.0
    margin: float = math.inf
    own: float = math.inf

    @property
    def certainty(self) -> float:
        """The score, on one scale for speech and screens."""
        return self.score - (SCREEN if self.kind == "screen" else 0.0)

    @property
    def answers(self) -> bool:
        """Whether it mostly holds the answer: good, the only good one, and for this question."""
        return self.certainty >= ANSWER and self.margin >= MARGIN and self.own >= OWN

    @property
    def near(self) -> bool:
        """Whether it is worth pointing at."""
        return self.score >= FLOOR or self.score == -math.inf  # those share words with it

    @property
    def text(self) -> str:
        """The parts, separated by blanks."""
        return " ".join(part.quote for part in self.parts)

    @property
    def kind(self) -> str:
        """The kind of its parts: "speech" or "screen"."""
        return self.parts[0].kind

    @property
    def start(self) -> float:
        """Session seconds of the first part's start."""
        return self.parts[0].start

    @property
    def end(self) -> float:
        """Session seconds of the last end of a part."""
        return max(part.end for part in self.parts)

    def evidence(self) -> Evidence:
        """The whole passage as evidence."""
        return Evidence(self.start, self.end, self.kind, self.text, self.parts[0].frame)


def spoken_passages(talks: Iterable[Sequence[Evidence]], folded_until: float = -1.0) -> list[Passage]:
    """Two and three sentences of one talk that follow each other, together at most `MAX_WORDS` words.

    A sentence that fits with neither neighbour stands alone.

    Args:
        talks: sentences by time, grouped by pauses.
        folded_until: session seconds up to which neighbours are missing, so nothing is joined.
    """

    def fits(run: Sequence[Evidence]) -> bool:
        return run[0].start >= folded_until and sum(len(item.quote.split()) for item in run) <= MAX_WORDS

    passages: list[Passage] = []
    for talk in talks:
        for first in range(len(talk)):
            runs = [talk[first : first + size] for size in WINDOWS if first + size <= len(talk)]
            runs = [run for run in runs if fits(run)]
            if not runs and not (first and fits(talk[first - 1 : first + 1])):
                runs = [talk[first : first + 1]]
            passages += [Passage(tuple(run)) for run in runs]
    return passages


def screen_passages(screens: Iterable[Screen], tracks: Iterable[TextTrack], now: float) -> list[Passage]:
    """Each screen with its title, and each line alone. Equal texts count once, by the newest.

    Args:
        screens: by time.
        tracks: by time.
        now: session seconds, the end of what is still shown.
    """
    passages: dict[str, Passage] = {}
    for screen in screens:
        end = max(screen.start, now) if screen.end is None else screen.end
        quotes = list(screen.lines)
        if screen.title and screen.title not in quotes:
            quotes.insert(0, screen.title)
        parts: list[Evidence] = []
        words = 0
        for quote in quotes:
            words += len(quote.split())
            if parts and words > MAX_SCREEN_WORDS:
                break
            parts.append(Evidence(screen.start, end, "screen", quote, screen.frame))
        if len(parts) > 1:
            passage = Passage(tuple(parts))
            passages[passage.text] = passage
    for track in tracks:
        passages[track.text] = Passage((track.evidence(now),))
    return list(passages.values())


def limited(
    passages: Iterable[Passage], until: float | None, span: tuple[float, float] | None
) -> list[Passage]:
    """Passages that were over at session second `until`, and that overlap `span`, (start, end)."""
    return [
        passage
        for passage in passages
        if (until is None or (passage.end if passage.kind == "speech" else passage.start) <= until)
        and (span is None or (passage.start < span[1] and passage.end > span[0]))
    ]


def distinct(passages: Iterable[Passage], limit: int) -> list[Passage]:
    """The first passages, at most `limit`, that have no part and no text in common with one before them.

    Args:
        passages: best first.
        limit: how many.
    """
    chosen: list[Passage] = []
    taken: set[tuple[str, str, float]] = set()
    quotes: set[str] = set()
    for passage in passages:
        if len(chosen) == limit:
            break
        keys = {_key(part) for part in passage.parts}
        if keys & taken or passage.text in quotes:
            continue
        taken |= keys
        quotes.add(passage.text)
        chosen.append(passage)
    return chosen


def _key(part: Evidence) -> tuple[str, str, float]:
    """What a sentence or line is known by: of a line on the screen its text, its passages differ in times."""
    return (part.kind, part.quote, part.start if part.kind == "speech" else 0.0)


def margin(passage: Passage, others: Iterable[Passage]) -> float:
    """By how much a passage is better than the next of its kind that says something else; inf without one."""
    keys = {_key(part) for part in passage.parts}
    apart = [
        other.score
        for other in others
        if other.kind == passage.kind
        and other.text != passage.text
        and not keys & {_key(part) for part in other.parts}
    ]
    return passage.score - max(apart) if apart and passage.score > -math.inf else math.inf
