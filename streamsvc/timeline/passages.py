"""Passages: stretches of the stream that retrieval ranks for a question. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamsvc.core.types import Evidence
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text_tracks import TextTrack
from streamsvc.timeline.transcript import Sentence

WINDOW = 3  # sentences of the longer passages
MAX_SCREEN_WORDS = 80  # of a screen as one passage; what follows is found line by line


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


def spoken_passages(talks: Iterable[Sequence[Sentence]], folded_until: float = -1.0) -> list[Passage]:
    """Each sentence, and each three that follow each other in one talk.

    Args:
        talks: sentences by time, grouped by pauses.
        folded_until: session seconds up to which neighbours are missing, so nothing is joined.
    """
    passages: list[Passage] = []
    for talk in talks:
        said = [sentence.evidence() for sentence in talk]
        passages += [Passage((sentence,)) for sentence in said]
        whole = [sentence for sentence in said if sentence.start >= folded_until]
        if len(whole) > 1:
            last = max(1, len(whole) - WINDOW + 1)
            passages += [Passage(tuple(whole[first : first + WINDOW])) for first in range(last)]
    return passages


def screen_passages(screens: Iterable[Screen], tracks: Iterable[TextTrack], now: float) -> list[Passage]:
    """Each screen with its title, and each line alone. Equal texts count once, by the newest.

    Args:
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
