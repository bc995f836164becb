"""What was said in a few points: the sentences that tell most, spread over the time. Pure and extractive.

A point is a whole sentence, or the clauses of it that tell most, in the speaker's own words. It tells most if
its terms recur (H. P. Luhn, "The Automatic Creation of Literature Abstracts", 1958).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.answers.finding import MAX_WORDS, Finding, quoted, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.wording import fitting, sentence, words_in
from streamsvc.core.types import Evidence
from streamsvc.timeline.centrality import LEAST_WORDS, Background
from streamsvc.timeline.text import STOP, terms
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.transcript import Sentence

POINTS = 3  # of one answer
TOPIC_SECONDS = 60.0  # what is talked about now is what was said in so many seconds
TOPIC_POINTS = 2
_WORDS = 10  # of a point, where three share an answer: 40 words, less the times
# Chosen on the three English summaries of the develop half, by reading: too few to tune on.
OPENING_WEIGHT = 1.5  # of the clauses with which a sentence begins: they have its subject
ONCE = 0.5  # weight of a term that occurs in one sentence alone
_CLAUSE_END = re.compile(r"[,;:.!?\u2026\u2014]+[\"'\u201d\u2019)]*$")


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a summary: what is told, and the sentence that it is from."""

    text: str
    sentence: Sentence


def summary(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The main points of all that was said so far, or in a span; without speech, what was shown."""
    start, end = arguments.span or (0.0, now)
    said = spoken_between(timeline, start, end)
    if not said:
        return _shown_between(timeline, start, end)
    return _told(points(said, POINTS, _WORDS))


def topic(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """What is talked about: the main points of the last minute, and the title on the screen."""
    moment = min(arguments.span[1] if arguments.span else now, now)
    said = spoken_between(timeline, moment - TOPIC_SECONDS, moment)
    screen = timeline.screen_at(moment)
    if not said:
        earlier = [one for one in timeline.sentences if one.end <= moment]
        if screen is not None or not earlier:
            return _shown_between(timeline, max(0.0, moment - TOPIC_SECONDS), moment)
        said = spoken_between(timeline, earlier[-1].end - TOPIC_SECONDS, moment)  # of what was last said
    title = f'On the screen: "{quoted(screen.title, 8)}".' if screen is not None and screen.title else ""
    told = _told(points(said, TOPIC_POINTS, (MAX_WORDS - words_in(title)) // 2 - 4))
    if told is None or screen is None or not title:
        return told
    shown = Evidence(screen.start, timeline.end_of(screen), "screen", screen.title or "", screen.frame)
    return Finding(f"{told.text} {title}", (*told.evidence, shown), told.values)


def spoken_between(timeline: Timeline, start: float, end: float) -> list[Sentence]:
    """The sentences whose middle lies between two session seconds."""
    return [one for one in timeline.sentences if start <= (one.start + one.end) / 2 <= end]


def points(said: Sequence[Sentence], most: int, words: int) -> list[Point]:
    """The points that tell most of some sentences, by time, from as many parts of equal length.

    Args:
        said: at least one sentence, by time.
        most: points at most.
        words: of a point at most.
    """
    held = Background.of(one.text for one in said).held
    found = []
    for part in _parts(said, most):
        candidates = [Point(text, one) for one in part for text in _clauses(one.text, words)]
        found.append(max(candidates, key=lambda point: _worth(point, held)))
    return found


def _worth(point: Point, held: Counter[str]) -> tuple[bool, float]:
    """Whether a point is a statement of some words, and how much of what recurs it holds."""
    recurring = sum(held[term] if held[term] > 1 else ONCE for term in frozenset(terms(point.text)))
    opens = point.sentence.text.startswith(point.text)
    states = len(point.text.split()) >= LEAST_WORDS and not point.text.endswith("?")
    return states, recurring * (OPENING_WEIGHT if opens else 1.0)


def _parts(said: Sequence[Sentence], count: int) -> list[Sequence[Sentence]]:
    """Sentences in at most `count` groups of about as many words."""
    total = sum(len(one.words) for one in said)
    groups: list[list[Sentence]] = [[] for _ in range(count)]
    passed = 0
    for one in said:
        middle = passed + len(one.words) / 2
        groups[min(count - 1, int(count * middle / max(1, total)))].append(one)
        passed += len(one.words)
    return [group for group in groups if group]


def _clauses(text: str, most: int) -> list[str]:
    """The sentence, if it is short enough; else each run of its clauses that is, else its beginning."""
    if words_in(text) <= most:
        return [text]
    words = text.split()
    ends = [place for place, word in enumerate(words, 1) if _CLAUSE_END.search(word)]
    cuts = sorted({0, *ends, len(words)})
    runs = [" ".join(words[start:end]) for start in cuts for end in cuts if start < end]
    short = [run for run in runs if words_in(run) <= most]
    return short or [_beginning(words, most)]


def _beginning(words: Sequence[str], most: int) -> str:
    """The first words of a sentence, of which the last is a content word."""
    part = list(words[:most])
    while len(part) > 1 and (words_in(" ".join(part)) > most or part[-1].lower().strip(",;:") in STOP):
        part.pop()
    return " ".join(part) + " \u2026"


def _told(found: Sequence[Point]) -> Finding | None:
    if not found:
        return None
    told = [
        f"at {timestamp(point.sentence.start)}: {quoted(point.text.rstrip(' ,;:.'), MAX_WORDS)}"
        for point in found
    ]
    text, count = fitting(told, MAX_WORDS, "; ")
    evidence = tuple(point.sentence.evidence() for point in found[:count])
    return Finding(sentence(text), evidence, tuple(point.text for point in found[:count]))


def _shown_between(timeline: Timeline, start: float, end: float) -> Finding | None:
    """The titles of the screens of a span, in order."""
    screens = [one for one in timeline.screens if one.start <= end and timeline.end_of(one) >= start]
    titles: dict[str, Evidence] = {}
    for one in screens:
        name = one.title or one.lines[0]
        titles.setdefault(name, Evidence(one.start, timeline.end_of(one), "screen", name, one.frame))
    if not titles:
        return None
    text, count = fitting((f'"{quoted(name, 8)}"' for name in titles), MAX_WORDS - 4)
    return Finding(f"On the screen: {text}.", tuple(titles.values())[:count], tuple(titles)[:count])
