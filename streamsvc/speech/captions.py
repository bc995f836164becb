"""Words -> cues -> WebVTT, SubRip and JSON. Pure.

A cue is closed as soon as it can be, and never changed again: at the end of a sentence, when it is full, or when the
speaker pauses. Reading rules: at most LINES lines of WIDTH characters, at most LONGEST seconds of speech; on display at
least SHORTEST seconds, and no faster than SPEED characters a second where the next cue leaves room.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamsvc.core.compact_words import NO_STAGES, CompactWords
from streamsvc.core.types import SPACELESS, Cue, Translation, Word, Words

Shown = Cue | Translation  # what the formats write

WIDTH, LINES = 42, 2  # characters, lines
SHORTEST, LONGEST = 1.0, 7.0  # seconds
SPEED = 20.0  # characters a second
SENTENCE = 15  # characters: a shorter sentence waits for the next one, so that "Yes." is no cue of its own
FRESH = 1.2  # seconds: a full cue is cut at punctuation only this far back, so that its last word is not old
ENDS, CLAUSES = (".", "!", "?", "。", "！", "？"), (",", ";", ":", "—", "、", "，")
_NO_BLANK = re.compile(rf"(?<=[{SPACELESS}]) | (?=[{SPACELESS}])")
ABBREVIATIONS = frozenset({"mr.", "mrs.", "ms.", "dr.", "st.", "prof.", "no.", "vs.", "jr.", "sr."})


@dataclass(frozen=True, slots=True)
class _Heard:
    """A stable word and when its last sample arrived (monotonic seconds)."""

    word: Word
    arrived: float


class Cues:
    """Turns the words of one track into captions. Every stable word is in exactly one closed cue, in order."""

    def __init__(self, session: str, track: str = "main") -> None:
        self._session, self._track = session, track
        self._open: list[_Heard] = []

    def push(self, words: Words) -> list[Cue]:
        """Take what was heard; returns the cues that close, and last the open one, if there is one."""
        stable, tail = words.words[: words.stable], words.words[words.stable :]
        last = (stable or tail)[-1].end if words.words else 0.0
        self._open += [_Heard(word, words.arrived - max(0.0, last - word.end)) for word in stable]
        cues = []
        while count := self._cut():
            cues.append(self._cue(words, self._take(count), (), final=True))
        if words.final and self._open:
            cues.append(self._cue(words, self._take(len(self._open)), (), final=True))
        elif self._open or tail:
            cues.append(
                self._cue(
                    words,
                    self._open,
                    [_Heard(word, words.arrived + word.end - last) for word in tail],
                    final=False,
                )
            )
        return cues

    def _take(self, count: int) -> list[_Heard]:
        taken, self._open = self._open[:count], self._open[count:]
        return taken

    def _cut(self) -> int:
        """How many open words make a closed cue now; 0: none."""
        words = [heard.word for heard in self._open]
        size = 0
        for count, word in enumerate(words, 1):
            if count > 1 and not (fits(words[:count]) and word.end - words[0].start <= LONGEST):
                return _clause(words[: count - 1])
            size += len(word.text) + 1
            if size > SENTENCE and _ends_sentence(word.text):
                return count
        return 0

    def _cue(self, words: Words, stable: Sequence[_Heard], tail: Sequence[_Heard], *, final: bool) -> Cue:
        all_heard = (*stable, *tail)
        spoken = tuple(heard.word for heard in all_heard)
        return Cue(
            self._session,
            self._track,
            spoken[0].start,
            all_heard[-1].arrived,
            text_of(spoken),
            spoken,
            len(stable),
            final,
            words.language,
            words.stages,
        )


def light(cue: Cue) -> Cue:
    """A closed cue as it is kept for hours; its stages have been told."""
    return replace(cue, words=CompactWords(cue.words), stages=NO_STAGES)


def text_of(words: Sequence[Word]) -> str:
    """The words as one line of text, with blanks where their script has some."""
    return _NO_BLANK.sub("", " ".join(word.text for word in words))


def fits(words: Sequence[Word]) -> bool:
    """Whether the words fit on the lines of one cue."""
    return len(wrap(text_of(words))) <= LINES


def wrap(text: str) -> list[str]:
    """The text in as few lines as it takes, of at most WIDTH characters, about equally long."""
    lines = textwrap.wrap(text, WIDTH)
    for width in range(len(text) // max(1, len(lines)), WIDTH) if len(lines) > 1 else ():
        balanced = textwrap.wrap(text, width, break_long_words=False)
        if len(balanced) == len(lines) and all(len(line) <= WIDTH for line in balanced):
            return balanced
    return lines


def _ends_sentence(text: str) -> bool:
    bare = text.rstrip("\"'”’)")
    return bare.endswith(ENDS) and bare.lower() not in ABBREVIATIONS and not re.fullmatch(r"\w\.", bare)


def _clause(words: Sequence[Word]) -> int:
    """Where to cut words that fill a cue: behind the last punctuation, unless that is long ago."""
    for count in range(len(words), 0, -1):
        if words[-1].end - words[count - 1].end > FRESH:
            break
        if words[count - 1].text.endswith(CLAUSES + ENDS):
            return count
    return len(words)


# --- formats ------------------------------------------------------------------------------------------------------


def timed(cues: Sequence[Shown]) -> Iterator[tuple[float, float, Shown]]:
    """Closed cues with the times at which they are shown: sorted, end after start, never overlapping. Seconds."""
    closed = sorted((cue for cue in cues if cue.final), key=lambda cue: cue.start)
    starts: list[float] = []
    for cue in closed:
        starts.append(
            max(round(cue.start, 3), starts[-1] + 0.001) if starts else max(0.0, round(cue.start, 3))
        )
    for place, (start, cue) in enumerate(zip(starts, closed, strict=True)):
        end = max(cue.end, start + SHORTEST, start + min(LONGEST, len(cue.text) / SPEED))
        if place + 1 < len(starts):
            end = min(end, starts[place + 1])
        yield start, max(end, start + 0.001), cue


def to_vtt(cues: Sequence[Shown]) -> str:
    """WebVTT (W3C): whole and valid at every instant."""
    return "\n".join([VTT_HEAD, *(vtt_block(start, end, cue.text) for start, end, cue in timed(cues))])


def to_srt(cues: Sequence[Shown]) -> str:
    """SubRip: whole and valid at every instant."""
    return "\n".join(
        srt_block(number, start, end, cue.text) for number, (start, end, cue) in enumerate(timed(cues), 1)
    )


class Following:
    """The same formats cue by cue, as the cues close: what is written is never changed.

    Nobody knows yet when the next cue begins, so a cue is shown for as long as it was spoken, at least SHORTEST, and the next one
    after that. The pieces joined are a whole, valid file at every instant.

    Args:
        form: "vtt" or "srt".
    """

    def __init__(self, form: str) -> None:
        self.head = VTT_HEAD if form == "vtt" else ""
        self._vtt = form == "vtt"
        self._count, self._end = 0, 0.0

    def write(self, start: float, end: float, text: str) -> str:
        """The next cue as text: spoken from `start` to `end`, in session seconds."""
        start = max(round(start, 3), self._end)
        self._end = end = max(round(end, 3), start + SHORTEST)
        self._count += 1
        block = vtt_block(start, end, text) if self._vtt else srt_block(self._count, start, end, text)
        return f"\n{block}" if self._vtt or self._count > 1 else block


VTT_HEAD = "WEBVTT\n"


def vtt_block(start: float, end: float, text: str) -> str:
    """One cue of a WebVTT file; times in seconds."""
    return (
        f"{stamp(start, '.')} --> {stamp(end, '.')}\n"
        + "\n".join(html.escape(line, quote=False) for line in _shown(text))
        + "\n"
    )


def srt_block(number: int, start: float, end: float, text: str) -> str:
    """One cue of a SubRip file. The format cannot escape: players take <b> for markup, so angle brackets become quotation marks."""
    lines = "\n".join(line.replace("<", "\u2039").replace(">", "\u203a") for line in _shown(text))
    return f"{number}\n{stamp(start, ',')} --> {stamp(end, ',')}\n{lines}\n"


def to_json(cues: Sequence[Shown]) -> list[dict[str, Any]]:
    """Closed cues with their words, as JSON values; times in seconds."""
    return [
        {
            "start": round(start, 3),
            "end": round(end, 3),
            "text": cue.text,
            "language": cue.language,
            "words": [
                {
                    "text": word.text,
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                    "probability": round(word.probability, 3),
                }
                for word in cue.words
            ],
        }
        for start, end, cue in timed(cues)
    ]


def stamp(seconds: float, mark: str) -> str:
    """HH:MM:SS and milliseconds behind `mark`."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"


def _shown(text: str) -> list[str]:
    """A cue's lines, without the characters that no subtitle may hold; never empty."""
    return wrap("".join(char if char.isprintable() else " " for char in text)) or ["…"]
