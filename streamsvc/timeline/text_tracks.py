"""Lines of text followed over time: since when, and until when, each stood on the screen. Pure.

Text is read keyframe by keyframe, errs a little each time, pages scroll, and lines are edited. A line that is read is one that was
shown before where its text is the same but for such errors, and it stands in the old one's place, or has moved as the page did.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from streamsvc.core.types import Evidence, TextLine

MOST = 6000  # lines kept, about 2 MB: hours of slides
SURE = 0.97  # score of two readings from which a letter that differs was edited, and not misread
LETTERS = 8  # letters of a line for each one that may be misread
VOTES = 8  # letters that must have moved together before a page counts as scrolled
RETURN = 3.0  # seconds for which a line may be overlooked
L = TypeVar("L", "Line", TextLine)
_LOOKALIKES = str.maketrans("oil|", "0111")  # taken for one another by every reader


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text on the screen: its best reading, and its newest place (x, y, w, h as in Box). start, end: session seconds."""

    text: str
    score: float
    x: float
    y: float
    w: float
    h: float
    start: float  # `at` of the keyframe that showed it first
    end: float | None  # ... and of the first that showed it no longer; None: it is shown now
    frame: float  # `at` of the keyframe whose reading this is

    @property
    def middle(self) -> float:
        """Of its height, as a fraction of the picture's."""
        return self.y + self.h / 2

    def evidence(self, now: float, kind: str = "screen") -> Evidence:
        """The line as evidence; `now`: until when it is shown, if it still is."""
        return Evidence(
            self.start, max(self.start, now) if self.end is None else self.end, kind, self.text, self.frame
        )


class Lines:
    """All lines of text of one session. `shown`: those on the screen now, as they were read; `dropped`: those forgotten over the limit.

    Args:
        most: how many lines that are shown no longer are kept; the oldest go first.
    """

    def __init__(self, most: int = MOST) -> None:
        self.shown: tuple[Line, ...] = ()
        self.dropped = 0
        self._most = most
        self._missed: tuple[
            Line, ...
        ] = ()  # not found by the newest reading, though nothing else stands in their places
        self._gone: list[Line] = []

    def read(self, lines: Sequence[TextLine], at: float) -> None:
        """Take a reading of the whole screen, from the keyframe of session second `at`; readings come in order of time."""
        missed = tuple(line for line in self._missed if line.end is not None and at - line.end <= RETURN)
        self._forget([line for line in self._missed if line not in missed])
        now, rest = followed((*self.shown, *missed), [line for line in lines if line.text.strip()], at)
        lost = [line if line.end is not None else replace(line, end=max(line.start, at)) for line in rest]
        self._missed = tuple(line for line in lost if not any(_covers(other, line, 0.3) for other in now))
        self._forget([line for line in lost if line not in self._missed])
        self.shown = tuple(now)

    def clear(self, at: float) -> None:
        """The screen is blank, or something else, since session second `at`."""
        self._forget([*self._missed, *(replace(line, end=max(line.start, at)) for line in self.shown)])
        self.shown, self._missed = (), ()

    def all(self) -> list[Line]:
        """Every line that is known, by the time it came up; those of one keyframe in reading order."""
        return sorted(
            (*self._gone, *self._missed, *self.shown),
            key=lambda line: (line.start, round(line.middle, 2), line.x),
        )

    def at(self, when: float) -> tuple[Line, ...]:
        """The lines that were shown at session second `when`, in reading order."""
        known = itertools.chain(self._gone, self._missed, self.shown)
        found = [line for line in known if line.start <= when and (line.end is None or when < line.end)]
        return tuple(sorted(found, key=lambda line: (round(line.middle, 2), line.x)))

    def _forget(self, lines: Sequence[Line]) -> None:
        self._gone.extend(lines)
        over = max(0, len(self._gone) - self._most)
        del self._gone[:over]
        self.dropped += over


def followed(before: Sequence[Line], read: Sequence[TextLine], at: float) -> tuple[list[Line], list[Line]]:
    """A new reading as lines that go on or begin, in its order; and the lines before that are not in it.

    Args:
        before: shown until now.
        read: what is shown now.
        at: session seconds.
    """
    found: dict[int, Line] = {}  # place in `read` -> the line before
    left = list(before)
    moves = dict.fromkeys([(0.0, 0.0), moved(before, read)])
    for same in (_equal, alike):  # what is equal first: of two lines that are much alike, each finds its own
        for move in moves:
            for n, line in enumerate(read):
                if n in found:
                    continue
                old = next((old for old in left if _stands(old, line, move) and same(old, line)), None)
                if old is not None:
                    left.remove(old)
                    found[n] = old
    now = []
    for n, line in enumerate(read):
        if (known := found.get(n)) is not None:
            best = known if known.score >= line.score else line
            frame = known.frame if best is known else at
            now.append(Line(best.text, best.score, line.x, line.y, line.w, line.h, known.start, None, frame))
        else:
            since = _since(line, before)
            now.append(
                Line(
                    line.text,
                    line.score,
                    line.x,
                    line.y,
                    line.w,
                    line.h,
                    at if since is None else since,
                    None,
                    at,
                )
            )
    return now, left


def moved(before: Sequence[Line], read: Sequence[TextLine]) -> tuple[float, float]:
    """How far right and down most of the page has moved, in fractions of the picture: what lines with the same text say together."""
    old, new = dict(_once(before)), dict(_once(read))
    steps = [
        (new[text].x - line.x, new[text].y - line.y, len(text))
        for text, line in old.items()
        if text in new and not _stands(line, new[text], (0.0, 0.0))
    ]

    def votes(step: tuple[float, float, int]) -> int:
        return sum(
            other[2] for other in steps if abs(other[0] - step[0]) < 0.01 and abs(other[1] - step[1]) < 0.01
        )

    best = max(steps, key=votes, default=None)
    return (best[0], best[1]) if best is not None and votes(best) >= VOTES else (0.0, 0.0)


def alike(one: Line | TextLine, other: Line | TextLine) -> bool:
    """Whether two readings may be of the same text. A digit that differs is an edit, and so is what both readings are sure of."""
    a, b = folded(one.text), folded(other.text)
    if a == b:
        return _equal(one, other)
    if min(one.score, other.score) >= SURE or re.findall(r"\d", one.text) != re.findall(r"\d", other.text):
        return False
    return _errors(a, b) <= max(len(a), len(b)) // LETTERS


def folded(text: str) -> str:
    """Letters and digits alone, without case, and without the differences that no reader of pictures tells for sure: 0 and o, 1 and l."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in plain if letter.isalnum() or letter == "|").translate(_LOOKALIKES)


def _equal(one: Line | TextLine, other: Line | TextLine) -> bool:
    a, b = folded(one.text), folded(other.text)
    return a == b if a or b else one.text == other.text


def _errors(a: str, b: str) -> int:
    """The least number of letters put in, left out or exchanged."""
    row = list(range(len(b) + 1))
    for n, letter in enumerate(a, 1):
        corner, row[0] = row[0], n
        for m, other in enumerate(b, 1):
            corner, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, corner + (letter != other))
    return row[-1]


def _once(lines: Sequence[L]) -> list[tuple[str, L]]:
    """The lines whose text stands there once, by that text: only they tell where they went."""
    texts = [folded(line.text) for line in lines]
    count = Counter(texts)
    return [(text, line) for text, line in zip(texts, lines, strict=True) if text and count[text] == 1]


def _stands(old: Line | TextLine, new: Line | TextLine, move: tuple[float, float]) -> bool:
    """Whether a line stands where the old one would after a move: by most of its height, and half of the shorter one's width."""
    if abs(old.y + old.h / 2 + move[1] - new.y - new.h / 2) > 0.6 * min(old.h, new.h):
        return False
    left, right = max(old.x + move[0], new.x), min(old.x + move[0] + old.w, new.x + new.w)
    return right - left >= 0.5 * min(old.w, new.w)


def _covers(outer: Line | TextLine, inner: Line | TextLine, share: float) -> bool:
    """Whether a line's box lies, by a share of its area, in another's."""
    w = min(outer.x + outer.w, inner.x + inner.w) - max(outer.x, inner.x)
    h = min(outer.y + outer.h, inner.y + inner.h) - max(outer.y, inner.y)
    return w > 0 and h > 0 and w * h >= share * inner.w * inner.h


def _since(line: TextLine, before: Sequence[Line]) -> float | None:
    """Since when a line's words stood in its place as a part of another line, or as several lines: readers cut lines now so, now so."""
    words = _words(line.text)
    wholes = [
        old.start for old in before if _covers(old, line, 0.7) and f" {words} " in f" {_words(old.text)} "
    ]
    if words and wholes:
        return min(wholes)
    parts = sorted((old for old in before if _covers(line, old, 0.7)), key=lambda old: old.x)
    if len(parts) > 1 and " ".join(_words(old.text) for old in parts) == words:
        return max(old.start for old in parts)
    return None


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
