"""Captions as HLS: WebVTT segments of 6 s and their playlists (RFC 8216, 3.5 and 4.3). Pure.

    closed cues, speech under way -> LiveSegments: a segment is settled once, then never changes -> playlist
    closed cues of an ended session -> recorded: any segment, made when it is asked for

Segment `number` of a live session covers the SECONDS from `start_of(number)` on. The first LEAD ones lie
before the session, so that a player that comes with the first words finds a playlist that is long enough.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from streamsvc.core.types import Cue, Speech, Word
from streamsvc.core.units import Unit
from streamsvc.events.caption_posts import timestamp
from streamsvc.speech.captions import (
    READING_SPEED,
    SECONDS_MAX,
    SECONDS_MIN,
    Caption,
    text_of,
    timed,
    vtt_block,
)

SECONDS = 6  # of a segment; the target duration
HOLD = 12.0  # seconds after its end, at which a segment is settled with the words that are stable by then
LISTED = 20  # segments in a live playlist
KEPT = 2 * LISTED  # what has left the playlist stays for as long as the playlist is (RFC 8216, 6.2.2)
LEAD = 3  # empty segments before the session: a live playlist should have three (RFC 8216, 6.2.2)
MARGIN = 2.0  # seconds by which speech may be detected after its start, beside the backlog
LONGEST = 15.0  # seconds on display, more than any cue has
CLOCK = 90_000  # ticks of an MPEG-2 timestamp in a second
WRAP = 1 << 33  # where these timestamps begin again
_SAME = 0.0005  # seconds: times of closed cues are rounded to milliseconds


@dataclass(frozen=True, slots=True)
class Line:
    """A closed cue in one language. Session seconds.

    text: None: its translation may still come. words: of the spoken text; none of a translation.
    """

    start: float
    end: float
    text: str | None
    words: Sequence[Word] = ()

    @property
    def mark(self) -> float:
        """The start of its last word, up to which a reader has everything."""
        return self.words[-1].start if self.words else self.start


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session is known. Session seconds.

    now: the present. known: before this, no word comes any more. open: the stable words of the open cue.
    """

    now: float
    known: float
    open: tuple[Word, ...] = ()


class OpenSpeech:
    """Follows which speech of a session is not in a closed cue yet."""

    def __init__(self) -> None:
        self._since: float | None = None  # session seconds; of the utterance under way
        self._closed = 0.0  # end of the last closed cue
        self._open: Cue | None = None

    def take(self, unit: Unit) -> None:
        """Take one unit of the session; those that are no speech change nothing."""
        match unit:
            case Speech(active=True):
                self._since = unit.at
            case Speech():
                self._since = self._open = None
            case Cue(final=True):
                self._closed, self._open = unit.end, None
            case Cue():
                self._open = unit

    @property
    def since(self) -> float | None:
        """Session seconds from which on an utterance under way is in no closed cue; None: there is none."""
        return None if self._since is None else max(self._since, self._closed)

    @property
    def language(self) -> str:
        """Of the open cue; "": there is none."""
        return self._open.language if self._open is not None else ""

    def progress(self, now: float, backlog: float) -> Progress:
        """What is known at session second `now`, `backlog` seconds of audio being unheard."""
        known = now - backlog - MARGIN
        stable = tuple(self._open.words[: self._open.stable]) if self._open is not None else ()
        if stable:
            known = min(known, stable[0].start)
        elif self._since is not None or self._open is not None:
            since = self._since if self._since is not None else self._closed
            known = min(known, max(since, self._closed))
        return Progress(now, known, stable)


@dataclass(frozen=True, slots=True)
class Shown:
    """A cue with its time on display, the same in each segment that it reaches into."""

    start: float
    end: float
    text: str


def start_of(number: int) -> float:
    """Session seconds at which a segment of a live session begins."""
    return float(SECONDS * (number - LEAD))


class LiveSegments:
    """The settled segments of a live session in one language; the last KEPT ones are held.

    A segment is settled once no speech that reaches into it is open, or HOLD seconds after its end with the
    stable words. A cue is in each segment that it reaches into, with the same times. What was left when a
    segment had to be settled early comes in the next one, if it reaches into that; else it is `dropped`.
    """

    def __init__(self) -> None:
        self.dropped = 0  # cues that came after their segments were settled
        self._next = LEAD  # number of the first one that is not settled
        self._bodies: deque[str] = deque([""] * LEAD, KEPT)
        self._mark = -math.inf  # session seconds; the start of the last word that was taken
        self._carried: list[Shown] = []  # cues of the last segment that reach into the next one
        self._begin = -math.inf  # session seconds; what ended before was passed over

    @property
    def last(self) -> int:
        """The number of the last settled segment."""
        return self._next - 1

    @property
    def listed(self) -> range:
        """The numbers in the playlist."""
        return range(max(self._next - LISTED, self._next - len(self._bodies)), self._next)

    def body(self, number: int) -> str | None:
        """The cues of a segment as WebVTT; None: it is not settled yet, or no longer held."""
        first = self._next - len(self._bodies)
        return self._bodies[number - first] if first <= number < self._next else None

    def advance(self, progress: Progress, lines: Callable[[float], Sequence[Line]]) -> None:
        """Settle what can be settled now.

        Args:
            progress: how far the session is known.
            lines: the closed cues whose last word began after a session second, by start.
        """
        self._skip_unseen(progress.now)
        while (end := start_of(self._next + 1)) <= progress.now:
            forced = progress.now >= end + HOLD
            if not forced and end > progress.known:
                return
            fresh = lines(self._mark)
            if not forced and any(line.text is None for line in fresh if line.start < end):
                return
            self._settle(fresh, progress, end, forced=forced)

    def _skip_unseen(self, now: float) -> None:
        """Pass over what has left the playlist before anybody has asked for it."""
        first = int((now - HOLD) // SECONDS) + LEAD - LISTED
        if first > self._next:
            self._next = first
            self._bodies.clear()
            self._carried.clear()
            self._begin = start_of(first)
            self._mark = max(self._mark, self._begin - LONGEST)

    def _settle(self, fresh: Sequence[Line], progress: Progress, end: float, *, forced: bool) -> None:
        begin = end - SECONDS
        taken = [rest for line in fresh if line.start < end and (rest := self._rest(line)) is not None]
        following = next((line.start for line in fresh if line.start >= end), None)
        limits = [line.start for line in taken[1:]] + ([] if following is None else [following])
        if forced and following is None and (stable := self._stable(progress.open, end)) is not None:
            taken.append(stable)
            limits.append(stable.start)
        shown = [cue for cue in self._carried if cue.end > begin]
        for number, line in enumerate(taken):
            self._mark = max(self._mark, line.mark)
            limit = limits[number] if number < len(limits) else None
            cue = _displayed(line, limit, progress.known)
            if cue is None or cue.end <= begin:
                self.dropped += line.end > self._begin
            else:
                shown.append(cue)
        self._carried = [cue for cue in shown if cue.end > end]
        self._bodies.append(_blocks(shown))
        self._next += 1

    def _rest(self, line: Line) -> Line | None:
        """What of a line is in no segment yet; None: nothing."""
        if line.mark <= self._mark + _SAME:
            return None
        if not line.words or line.start > self._mark + _SAME:
            return line
        return _of_words([word for word in line.words if word.start > self._mark + _SAME])

    def _stable(self, words: Sequence[Word], end: float) -> Line | None:
        """The stable words of the open cue before `end`, that are in no segment yet; None: there are none."""
        ready = [word for word in words if self._mark + _SAME < word.start < end]
        return _of_words(ready) if ready else None


def _of_words(words: Sequence[Word]) -> Line:
    return Line(words[0].start, words[-1].end, text_of(words), words)


def _displayed(line: Line, following: float | None, known: float) -> Shown | None:
    """When a line is shown: by the reading rules (speech/captions.py), until the next one begins.

    following: where that is, if it is known; else none begins before `known`. None: there is no text.
    """
    if not line.text:
        return None
    start = max(0.0, line.start)
    end = max(line.end, start + SECONDS_MIN, start + min(SECONDS_MAX, len(line.text) / READING_SPEED))
    end = min(end, following) if following is not None else max(line.end, min(end, known))
    return Shown(round(start, 3), round(max(end, start + 0.001), 3), line.text)


def _blocks(shown: Iterable[Shown]) -> str:
    """Cues as WebVTT; each ends in a blank line: players may read segments as one file."""
    return "".join(f"{vtt_block(cue.start, cue.end, cue.text)}\n" for cue in shown)


# --- an ended session ---


@dataclass(frozen=True, slots=True)
class Grid:
    """The segments of an ended session: from one session second, which may be below 0, to another."""

    first: float
    end: float

    @property
    def count(self) -> int:
        """How many there are; one at least."""
        return max(1, math.ceil((self.end - self.first) / SECONDS - _SAME))

    def span(self, number: int) -> tuple[float, float]:
        """Session seconds of the start and the end of one."""
        begin = self.first + SECONDS * number
        return begin, min(begin + SECONDS, max(self.end, begin + 0.001))


def recorded(cues: Sequence[Caption], begin: float, end: float) -> str:
    """The cues of an ended session that reach into a segment, as WebVTT. `cues`: all, by start."""
    first = bisect.bisect_left(cues, begin - LONGEST, key=lambda cue: cue.start)
    last = bisect.bisect_left(cues, end, key=lambda cue: cue.start)
    # One more, for the next cue limits the display of the one before.
    near = [Shown(start, stop, cue.text) for start, stop, cue in timed(cues[first : last + 1])]
    return _blocks(cue for cue in near if cue.start < end and cue.end > begin)


# --- files ---


def segment(body: str, mpegts: int = 0) -> str:
    """A WebVTT segment. `mpegts`: the timestamp of session second 0 in the video (RFC 8216, 3.5)."""
    return f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{mpegts % WRAP}\n\n{body}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment in a playlist: its number, length and start (seconds; the second of the session)."""

    number: int
    seconds: float
    start: float
    discontinuity: bool = False  # another publisher than before


@dataclass(frozen=True, slots=True)
class PlaylistHead:
    """What a playlist says beside its segments.

    zero_utc: of session second 0, in the video's time. discontinuities: before the first segment. ended: no
    segment will be added. whole: it has all segments, from the first on.
    """

    zero_utc: datetime
    discontinuities: int = 0
    ended: bool = False
    whole: bool = False


def playlist(head: PlaylistHead, entries: Sequence[Entry], address: Callable[[int], str]) -> str:
    """A media playlist. `address`: of a segment, by its number."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:3",
        f"#EXT-X-TARGETDURATION:{SECONDS}",
        f"#EXT-X-MEDIA-SEQUENCE:{entries[0].number if entries else 0}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{head.discontinuities}",
    ]
    if head.whole:
        lines.append("#EXT-X-PLAYLIST-TYPE:VOD")
    for place, entry in enumerate(entries):
        if entry.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        if entry.discontinuity or place == 0:
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{timestamp(head.zero_utc, entry.start)}Z")
        lines += [f"#EXTINF:{entry.seconds:.3f},", address(entry.number)]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if head.ended else []), ""])


def live_entries(segments: LiveSegments, changes: Sequence[float]) -> tuple[list[Entry], int]:
    """The entries of a live playlist, and the discontinuities before the first.

    changes: session seconds at which another publisher took over; the segment in which that was begins anew.
    """
    numbers = segments.listed
    marked = {int(at // SECONDS) + LEAD for at in changes}
    entries = [Entry(number, SECONDS, start_of(number), number in marked) for number in numbers]
    before = sum(number < numbers.start for number in marked)
    if entries and entries[0].discontinuity:  # nothing is listed before it
        entries[0] = replace(entries[0], discontinuity=False)
        before += 1
    return entries, before
