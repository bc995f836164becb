"""Lines of text on the screen followed over time: when each appeared, and when it went. Pure.

Text is read keyframe by keyframe; readings contain errors, pages scroll, lines are edited. A line continues a
track where its text is the same but for reading errors, and its place is the same or moved with the page.
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

MAX_TRACKS = 6000  # ended tracks kept, about 2 MB: hours of slides
SURE_SCORE = 0.97  # score of both readings from which a letter that differs is an edit, not an error
LETTERS_PER_ERROR = 8
MIN_SHIFT_LETTERS = 8  # letters that moved together from which a page counts as scrolled
SHIFT_TOLERANCE = 0.01  # of the picture's size
MAX_MISSED = 3.0  # seconds for which a line may be missing from readings
# Shares of a line's area or size.
_VACANT = 0.3
_INSIDE = 0.7
_SAME_HEIGHT = 0.6
_SAME_WIDTH = 0.5

_THOUSANDTHS = tuple(n / 1000 for n in range(1001))
_CONFUSABLE = str.maketrans("oil|", "0111")  # letters that OCR confuses
Shift = tuple[float, float]  # right and down, in fractions of the picture
_NO_SHIFT: Shift = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TextTrack:
    """One line of text over time: its best reading, and its newest place (x, y, w, h as in Box)."""

    text: str
    score: float
    x: float
    y: float
    w: float
    h: float
    start: float  # session seconds of the first keyframe that showed it
    end: float | None  # session seconds of the first keyframe that no longer did; None: shown now
    frame: float  # session seconds of the keyframe of its best reading

    @property
    def middle(self) -> float:
        """Vertical middle, as a fraction of the picture's height."""
        return self.y + self.h / 2

    def evidence(self, now: float, kind: str = "screen") -> Evidence:
        """The line as evidence; `now` is the end of one that is still shown."""
        end = max(self.start, now) if self.end is None else self.end
        return Evidence(self.start, end, kind, self.text, self.frame)


AnyLine = TypeVar("AnyLine", TextTrack, TextLine)


class TextTracks:
    """All text tracks of one session.

    Args:
        limit: ended tracks kept; the oldest are dropped.
    """

    def __init__(self, limit: int = MAX_TRACKS) -> None:
        self.shown: tuple[TextTrack, ...] = ()  # on the screen now, in the order of the reading
        self.dropped = 0
        self.readings = 0  # so far; what `all` returns changes with them alone
        self._limit = limit
        self._missed: tuple[TextTrack, ...] = ()  # not in the newest reading, but their places are vacant
        self._ended: list[TextTrack] = []

    def read(self, lines: Sequence[TextLine], at: float) -> None:
        """Add a reading of the whole screen of session second `at`; readings come in order of time."""
        self.readings += 1
        missed = tuple(
            track for track in self._missed if track.end is not None and at - track.end <= MAX_MISSED
        )
        self._keep_ended([track for track in self._missed if track not in missed])
        shown, rest = follow((*self.shown, *missed), [line for line in lines if line.text.strip()], at)
        gone = [_ended(track, at) for track in rest]
        self._missed = tuple(
            track for track in gone if not any(_covers(other, track, _VACANT) for other in shown)
        )
        self._keep_ended([track for track in gone if track not in self._missed])
        self.shown = tuple(shown)

    def clear(self, at: float) -> None:
        """End all tracks: the screen is blank, or another, since session second `at`."""
        self._keep_ended([*self._missed, *(_ended(track, at) for track in self.shown)])
        self.shown = ()
        self._missed = ()

    def all(self) -> list[TextTrack]:
        """Every track by its start; those of one keyframe in reading order."""
        tracks = (*self._ended, *self._missed, *self.shown)
        return sorted(tracks, key=lambda track: (track.start, *_reading_order(track)))

    def at(self, when: float) -> tuple[TextTrack, ...]:
        """The tracks shown at session second `when`, in reading order."""
        tracks = itertools.chain(self._ended, self._missed, self.shown)
        shown = (track for track in tracks if track.start <= when and (track.end is None or when < track.end))
        return tuple(sorted(shown, key=_reading_order))

    def _keep_ended(self, tracks: Sequence[TextTrack]) -> None:
        self._ended.extend(map(_compact, tracks))
        over = max(0, len(self._ended) - self._limit)
        del self._ended[:over]
        self.dropped += over


def _compact(track: TextTrack) -> TextTrack:
    """The track with its score and place to the thousandth, in numbers that all tracks share."""
    score, x, y, w, h = (
        _THOUSANDTHS[round(1000 * min(1.0, max(0.0, share)))]
        for share in (track.score, track.x, track.y, track.w, track.h)
    )
    return replace(track, score=score, x=x, y=y, w=w, h=h)


def follow(
    tracks: Sequence[TextTrack], lines: Sequence[TextLine], at: float
) -> tuple[list[TextTrack], list[TextTrack]]:
    """Match the lines of a new reading to tracks.

    Args:
        tracks: shown until now.
        lines: shown now.
        at: session seconds of the reading.

    Returns:
        The tracks of `lines`, continued or new, in their order; and the tracks that no line continues.
    """
    matches: dict[int, TextTrack] = {}  # index in `lines` -> its track
    left = list(tracks)
    shifts = dict.fromkeys([_NO_SHIFT, page_shift(tracks, lines)])
    # Equal texts first: of two lines that differ by one letter, each keeps its own track.
    for same, shift in itertools.product((_equal_text, same_text), shifts):
        for n, line in enumerate(lines):
            if n in matches:
                continue
            track = next((old for old in left if _same_place(old, line, shift) and same(old, line)), None)
            if track is not None:
                left.remove(track)
                matches[n] = track
    shown = [
        _continued(matches[n], line, at) if n in matches else _started(line, tracks, at)
        for n, line in enumerate(lines)
    ]
    return shown, left


def page_shift(tracks: Sequence[TextTrack], lines: Sequence[TextLine]) -> Shift:
    """How far most of the page has moved: a vote of the lines whose text is unique, one vote a letter."""
    before = dict(_unique(tracks))
    after = dict(_unique(lines))
    moves = [
        (after[text].x - track.x, after[text].y - track.y, len(text))
        for text, track in before.items()
        if text in after and not _same_place(track, after[text], _NO_SHIFT)
    ]

    def votes(move: tuple[float, float, int]) -> int:
        return sum(
            letters
            for x, y, letters in moves
            if abs(x - move[0]) < SHIFT_TOLERANCE and abs(y - move[1]) < SHIFT_TOLERANCE
        )

    best = max(moves, key=votes, default=None)
    return (best[0], best[1]) if best is not None and votes(best) >= MIN_SHIFT_LETTERS else _NO_SHIFT


def same_text(one: TextTrack | TextLine, other: TextTrack | TextLine) -> bool:
    """Whether two readings may be of one text. A changed digit is an edit; a letter is if both are sure."""
    a, b = normalized(one.text), normalized(other.text)
    if a == b:
        return _equal_text(one, other)
    return min(one.score, other.score) < SURE_SCORE and same_letters(one.text, other.text)


def same_letters(one: str, other: str) -> bool:
    """Whether two texts are the same but for letters that may be misread; with another digit they are not."""
    a, b = normalized(one), normalized(other)
    digits = [re.findall(r"\d", text) for text in (one, other)]
    return digits[0] == digits[1] and _edit_distance(a, b) <= max(len(a), len(b)) // LETTERS_PER_ERROR


def normalized(text: str) -> str:
    """Letters and digits only, case-folded, with letters that OCR confuses (0 and o, 1 and l) made equal."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in plain if letter.isalnum() or letter == "|").translate(_CONFUSABLE)


def _continued(track: TextTrack, line: TextLine, at: float) -> TextTrack:
    """A track with the newest place, and with the better of its reading and the line's."""
    best, frame = (track, track.frame) if track.score >= line.score else (line, at)
    return TextTrack(best.text, best.score, line.x, line.y, line.w, line.h, track.start, None, frame)


def _started(line: TextLine, tracks: Sequence[TextTrack], at: float) -> TextTrack:
    start = _earlier_start(line, tracks)
    start = at if start is None else start
    return TextTrack(line.text, line.score, line.x, line.y, line.w, line.h, start, None, at)


def _ended(track: TextTrack, at: float) -> TextTrack:
    return track if track.end is not None else replace(track, end=max(track.start, at))


def _reading_order(track: TextTrack) -> tuple[float, float]:
    return (round(track.middle, 2), track.x)


def _equal_text(one: TextTrack | TextLine, other: TextTrack | TextLine) -> bool:
    a, b = normalized(one.text), normalized(other.text)
    return a == b if a or b else one.text == other.text


def _edit_distance(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for n, letter in enumerate(a, 1):
        corner, row[0] = row[0], n
        for m, other in enumerate(b, 1):
            corner, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, corner + (letter != other))
    return row[-1]


def _unique(lines: Sequence[AnyLine]) -> list[tuple[str, AnyLine]]:
    """Lines whose normalized text occurs once, with that text."""
    texts = [normalized(line.text) for line in lines]
    count = Counter(texts)
    return [(text, line) for text, line in zip(texts, lines, strict=True) if text and count[text] == 1]


def _same_place(old: TextTrack | TextLine, new: TextTrack | TextLine, shift: Shift) -> bool:
    """Whether a line is where the old one would be after a shift of the page."""
    if abs(old.y + old.h / 2 + shift[1] - new.y - new.h / 2) > _SAME_HEIGHT * min(old.h, new.h):
        return False
    left = max(old.x + shift[0], new.x)
    right = min(old.x + shift[0] + old.w, new.x + new.w)
    return right - left >= _SAME_WIDTH * min(old.w, new.w)


def _covers(outer: TextTrack | TextLine, inner: TextTrack | TextLine, share: float) -> bool:
    """Whether a share of a line's area lies in another's box."""
    w = min(outer.x + outer.w, inner.x + inner.w) - max(outer.x, inner.x)
    h = min(outer.y + outer.h, inner.y + inner.h) - max(outer.y, inner.y)
    return w > 0 and h > 0 and w * h >= share * inner.w * inner.h


def _earlier_start(line: TextLine, tracks: Sequence[TextTrack]) -> float | None:
    """Start of the track that had a line's words as a part, or of several: OCR cuts lines differently."""
    words = _words(line.text)
    wholes = [
        track.start
        for track in tracks
        if _covers(track, line, _INSIDE) and f" {words} " in f" {_words(track.text)} "
    ]
    if words and wholes:
        return min(wholes)
    parts = sorted((track for track in tracks if _covers(line, track, _INSIDE)), key=lambda track: track.x)
    if len(parts) > 1 and " ".join(_words(track.text) for track in parts) == words:
        return max(track.start for track in parts)
    return None


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
