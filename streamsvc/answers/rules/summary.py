"""Running notes of a session: one line for each stretch of a talk or slide, with its times. Pure and extractive: every note is quoted.

A note is the sentence of its stretch that tells most: the one whose terms its neighbours share and the rest of the session does not (H. P.
Luhn, "The Automatic Creation of Literature Abstracts", 1958, with the weights of `ranking.idf`). Nothing is invented, so nothing is to be
checked.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.answers.rules.finding import Finding, quote_of, refusal, timestamp
from streamsvc.answers.rules.parse import NUMBERS, Ask
from streamsvc.core.types import Evidence
from streamsvc.timeline.ranking import idf
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text import STOP, bag, stem, tokens
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.transcript import Sentence

STRETCH = 60.0  # seconds of talk that one note stands for, at most
LEAST_WORDS = 5  # of a sentence that may stand for others, where there is one
MOST = 24  # words of a note's sentence beyond which another is preferred
TOLD, WORDS = 3, 9  # notes of one answer, and words quoted of each
LONG = 180.0  # seconds of a session from which "what have I missed" is answered from notes
_RECAP = re.compile(
    r"\b(?:summar\w+|recap|happen(?:s|ed)?|(?:was|is|were) it about|going on|missed?|gist|tl ?dr)\b"
)
_MINUTE = r"(?:(?:minutes? )?(\d+|[a-z]+)(?: minutes?)?)"
_MINUTES = re.compile(rf"\b(?:between|from) {_MINUTE} (?:and|to|until|till) {_MINUTE}\b")
_FIRST = re.compile(r"\b(?:first|opening) (\d+|[a-z]+)? ?(seconds?|minutes?|hours?)\b")
_BESIDE = frozenset(
    stem(word)
    for word in [
        "summarize",
        "summarise",
        "summary",
        "recap",
        "happen",
        "happened",
        "happens",
        "miss",
        "missed",
        "going",
        "go",
        "gist",
        "have",
        "give",
        "brief",
        "short",
        "talk",
        "everything",
        "first",
        "opening",
        "minute",
        "minutes",
        "hour",
        "hours",
        "story",
        "far",
        "all",
        "between",
        "from",
        "until",
        "tldr",
        "part",
        "stretch",
    ]
)
_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Note:
    """What one stretch was about. start, end: session seconds. title: of the slide shown, if any; lines: what it quotes, never none."""

    start: float
    end: float
    title: str | None
    lines: tuple[Evidence, ...]

    @property
    def text(self) -> str:
        """Title and sentence in one line."""
        said = " ".join(line.quote for line in self.lines if line.kind == "speech")
        return ": ".join(part for part in (self.title, said) if part)

    def evidence(self) -> Evidence:
        """The note as one timed line, for a model's window."""
        return Evidence(self.start, self.end, self.lines[0].kind, self.text, self.lines[0].frame)


def notes(timeline: Timeline, start: float = 0.0, end: float = float("inf"), most: int = 120) -> list[Note]:
    """Notes on what was said and shown between two times, by time.

    Args:
        timeline: of the session; what it has dropped is not told of.
        start: session seconds.
        end: session seconds; a sentence belongs to the side on which its middle lies.
        most: how many notes at most, at least 1; stretches grow longer until they suffice.
    """
    said = [sentence for sentence in timeline.sentences if start <= (sentence.start + sentence.end) / 2 < end]
    screens = [
        screen for screen in timeline.screens if screen.start < end and timeline.end_of(screen) > start
    ]
    if not said and not screens:
        return []
    times = [(s.start, s.end) for s in said] + [(s.start, timeline.end_of(s)) for s in screens]
    begins, ends = max(start, min(t[0] for t in times)), min(end, max(t[1] for t in times))
    held = Counter(term for sentence in said for term in bag(sentence.text))
    length = STRETCH
    while True:
        found = _cut(timeline, said, screens, begins, ends, length, held)
        if len(found) <= most:
            return found
        if length > ends - begins:
            return found[-most:]  # more slides than notes: the newest
        length *= 2


def _cut(
    timeline: Timeline,
    said: Sequence[Sentence],
    screens: Sequence[Screen],
    begins: float,
    ends: float,
    length: float,
    held: Counter[str],
) -> list[Note]:
    """One note for each titled slide and for each `length` seconds of talk without one."""
    found: list[Note] = []
    edges = sorted({begins, *(min(max(screen.start, begins), ends) for screen in screens if screen.title)})
    for left, right in zip(edges, [*edges[1:], max(ends, edges[-1]) + 1e-6], strict=True):
        screen = next(
            (s for s in reversed(screens) if s.title and s.start <= left and (s.end is None or left < s.end)),
            None,
        )
        part = [s for s in said if left <= (s.start + s.end) / 2 < right]
        if (
            screen is not None
            and found
            and found[-1].title == screen.title
            and right - found[-1].start < length
        ):
            part = [
                s for s in said if found[-1].start <= (s.start + s.end) / 2 < right
            ]  # the same slide, read anew
            left = found.pop().start
        title = (
            None
            if screen is None
            else Evidence(screen.start, timeline.end_of(screen), "screen", screen.title or "", screen.frame)
        )
        groups: list[list[Sentence]] = []
        for sentence in part:
            if groups and sentence.end - groups[-1][0].start <= length:
                groups[-1].append(sentence)
            else:
                groups.append([sentence])
        if not groups and title is not None:
            found.append(Note(left, min(right, ends), title.quote, (title,)))
        for number, group in enumerate(groups):
            lines = (
                *((title,) if title is not None and number == 0 else ()),
                telling(group, held, len(said)).evidence(),
            )
            first = left if title is not None and number == 0 else group[0].start
            found.append(Note(first, group[-1].end, title.quote if title is not None else None, lines))
    return found


def telling(group: Sequence[Sentence], held: Counter[str], count: int) -> Sentence:
    """The sentence that stands best for a stretch; of equals the first.

    Args:
        group: sentences of the stretch, at least one.
        held: how many of all the session's sentences hold each term.
        count: how many sentences that are.
    """
    here = Counter(term for sentence in group for term in bag(sentence.text))

    def worth(sentence: Sentence) -> tuple[bool, float]:
        words = [word for word in tokens(sentence.text) if word not in STOP]
        shared = math.fsum(
            idf(held[term], count) * min(here[term], 4) for term in bag(sentence.text) if term in held
        )
        size = len(sentence.words)
        return size >= LEAST_WORDS and bool(words), shared / max(1.0, size / MOST) / max(1, len(words)) ** 0.5

    return max(group, key=worth)


def standing(group: Sequence[Sentence], after: Sequence[Sentence]) -> Sentence:
    """The sentence that stays of a stretch which the timeline lets go; of equals the first.

    Args:
        group: the stretch, at least one sentence.
        after: what came after it, beside which it is judged.
    """
    held = Counter(term for sentence in (*group, *after) for term in bag(sentence.text))
    return telling(group, held, len(group) + len(after))


def recap(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """A summary of a stretch that a question names, or of a long session, from its notes: the first, and those that follow evenly.

    Args:
        ask: the question; None is given where it asks for no summary, or for one of no stretch in a short session.
        timeline: of the session.
        now: session seconds.
    """
    if (
        _RECAP.search(ask.text) is None
        or ask.form not in ("open", "yes/no")
        or ask.quoted
        or ask.thing is not None
    ):
        return None
    span = stretch(ask, now)
    if span is None and (
        now < LONG or re.search(r"\bmissed?\b|\bsummar|\brecap\b|\btl ?dr\b", ask.text) is None
    ):
        return None
    if set(ask.about) - _BESIDE - NUMBERS.keys():
        return None  # about something: not all of the stretch
    found = notes(timeline, *(span or (0.0, now)), most=TOLD)
    if not found:
        return refusal()
    clauses = tuple(
        f'{"; at" if n else "At"} {timestamp(note.lines[-1].start)}: "{quote_of(note.text, WORDS)}"'
        for n, note in enumerate(found)
    )
    return Finding((*clauses[:-1], clauses[-1] + "."), tuple(line for note in found for line in note.lines))


def stretch(ask: Ask, now: float) -> tuple[float, float] | None:
    """The session seconds that a question's words span: "between 3:00 and 5:00", "the first ten minutes", "the last minute"; None: none."""
    if (pair := _MINUTES.search(ask.text)) is not None and "minute" in pair[0]:
        one, other = _number(pair[1]), _number(pair[2])
        if one is not None and other is not None:
            return 60 * min(one, other), 60 * max(one, other)
    if len(ask.times) >= 2:
        return min(ask.times[:2]), max(ask.times[:2])
    if (first := _FIRST.search(ask.text)) is not None and (count := _number(first[1] or "one")) is not None:
        return 0.0, count * _UNIT[first[2][0]]
    return (max(0.0, now - ask.last), now) if ask.last is not None else None


def _number(word: str) -> float | None:
    return float(word) if word.isdigit() else NUMBERS.get(word)
