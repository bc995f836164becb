"""Words -> cues -> WebVTT, SubRip and JSON. Pure.

A cue closes as early as possible and then never changes: at the end of a sentence, when it is full, or at the
end of an utterance. Reading rules: at most LINES lines of WIDTH characters, at most SECONDS_MAX seconds of
speech; displayed for at least SECONDS_MIN, and at most at READING_SPEED where the next cue leaves time.
"""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamsvc.core.compact_words import NO_STAGES, CompactWords
from streamsvc.core.printable import is_extender, printable
from streamsvc.core.types import SPACELESS, Cue, Translation, Word, Words

Caption = Cue | Translation  # what the formats write

WIDTH = 42  # characters of a line
LINES = 2  # lines of a cue
SECONDS_MIN = 1.0  # on display
SECONDS_MAX = 7.0  # of speech
READING_SPEED = 20.0  # characters a second
SENTENCE_MIN = 15  # characters; a shorter sentence waits for the next, so that "Yes." is no cue of its own
CUT_BACK = 1.2  # seconds; a full cue is cut at punctuation only so far back, so that its last word is not old
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")
CLAUSE_ENDS = (",", ";", ":", "—", "、", "，")
ABBREVIATIONS = frozenset({"mr.", "mrs.", "ms.", "dr.", "st.", "prof.", "no.", "vs.", "jr.", "sr."})
ZERO_WIDTH_JOINER = "\u200d"
VTT_HEAD = "WEBVTT\n"
_NO_BLANK = re.compile(rf"(?<=[{SPACELESS}]) | (?=[{SPACELESS}])")


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A word, and when its last sample arrived (monotonic seconds)."""

    word: Word
    arrived: float


class Cues:
    """Segments the words of one track into cues.

    Every stable word is in exactly one closed cue, in order.
    """

    def __init__(self, session: str, track: str = "main") -> None:
        self._session = session
        self._track = track
        self._open: list[_Arrived] = []  # stable words of the open cue

    def push(self, words: Words) -> list[Cue]:
        """Add words; returns the cues that close, then the open cue if there is one."""
        stable = words.words[: words.stable]
        tail = words.words[words.stable :]
        last = (stable or tail)[-1].end if words.words else 0.0
        self._open += [_Arrived(word, words.arrived - max(0.0, last - word.end)) for word in stable]
        cues = []
        while count := self._cut():
            cues.append(self._cue(words, self._take(count), (), final=True))
        if words.final and self._open:
            cues.append(self._cue(words, self._take(len(self._open)), (), final=True))
        elif self._open or tail:
            tentative = [_Arrived(word, words.arrived + word.end - last) for word in tail]
            cues.append(self._cue(words, self._open, tentative, final=False))
        return cues

    def _take(self, count: int) -> list[_Arrived]:
        taken = self._open[:count]
        self._open = self._open[count:]
        return taken

    def _cut(self) -> int:
        """How many first words of the open cue make a closed cue now; 0 if none."""
        words = [item.word for item in self._open]
        size = 0
        for count, word in enumerate(words, 1):
            if count > 1 and not (fits(words[:count]) and word.end - words[0].start <= SECONDS_MAX):
                return _clause(words[: count - 1])
            size += len(word.text) + 1
            if size > SENTENCE_MIN and _ends_sentence(word.text):
                return count
        return 0

    def _cue(self, words: Words, stable: Sequence[_Arrived], tail: Sequence[_Arrived], *, final: bool) -> Cue:
        items = (*stable, *tail)
        spoken = tuple(item.word for item in items)
        return Cue(
            self._session,
            self._track,
            spoken[0].start,
            items[-1].arrived,
            text_of(spoken),
            spoken,
            len(stable),
            final,
            words.language,
            words.stages,
        )


def compact(cue: Cue) -> Cue:
    """A closed cue with compact words and without stages, to be stored for hours."""
    return replace(cue, words=CompactWords(cue.words), stages=NO_STAGES)


def text_of(words: Sequence[Word]) -> str:
    """The words as one line of text, with blanks where their script uses them."""
    return _NO_BLANK.sub("", " ".join(word.text for word in words))


def fits(words: Sequence[Word]) -> bool:
    """Whether the words fit on the lines of one cue."""
    return len(wrap(text_of(words))) <= LINES


def wrap(text: str) -> list[str]:
    """The text in as few lines of at most WIDTH characters as possible, of similar length."""
    lines = _whole_characters(textwrap.wrap(text, WIDTH))
    for width in range(len(text) // max(1, len(lines)), WIDTH) if len(lines) > 1 else ():
        balanced = textwrap.wrap(text, width, break_long_words=False)
        if len(balanced) == len(lines) and all(len(line) <= WIDTH for line in balanced):
            return balanced
    return lines


def _whole_characters(lines: list[str]) -> list[str]:
    """The lines with each break moved before the character that it would cut (base, joiner and marks)."""
    for index in range(len(lines) - 1):
        line, rest = lines[index], lines[index + 1]
        while len(line) > 1 and (is_extender(rest[0]) or line[-1] == ZERO_WIDTH_JOINER):
            line, rest = line[:-1], line[-1] + rest
        if len(rest) <= WIDTH:
            lines[index], lines[index + 1] = line, rest
    return lines


def _ends_sentence(text: str) -> bool:
    bare = text.rstrip("\"'”’)")
    return (
        bare.endswith(SENTENCE_ENDS) and bare.lower() not in ABBREVIATIONS and not re.fullmatch(r"\w\.", bare)
    )


def _clause(words: Sequence[Word]) -> int:
    """How many words of a full cue to take: to the last punctuation in CUT_BACK seconds, or all."""
    for count in range(len(words), 0, -1):
        if words[-1].end - words[count - 1].end > CUT_BACK:
            break
        if words[count - 1].text.endswith(CLAUSE_ENDS + SENTENCE_ENDS):
            return count
    return len(words)


# --- formats


def timed(captions: Sequence[Caption]) -> Iterator[tuple[float, float, Caption]]:
    """Closed captions with start and end of display in seconds: sorted, without overlap."""
    closed = sorted((caption for caption in captions if caption.final), key=lambda caption: caption.start)
    starts: list[float] = []
    for caption in closed:
        start = round(caption.start, 3)
        starts.append(max(start, starts[-1] + 0.001) if starts else max(0.0, start))
    for index, (start, caption) in enumerate(zip(starts, closed, strict=True)):
        reading_time = min(SECONDS_MAX, len(caption.text) / READING_SPEED)
        end = max(caption.end, start + SECONDS_MIN, start + reading_time)
        if index + 1 < len(starts):
            end = min(end, starts[index + 1])
        yield start, max(end, start + 0.001), caption


def to_vtt(captions: Sequence[Caption]) -> str:
    """A complete WebVTT file (W3C)."""
    blocks = (vtt_block(start, end, caption.text) for start, end, caption in timed(captions))
    return "\n".join([VTT_HEAD, *blocks])


def to_srt(captions: Sequence[Caption]) -> str:
    """A complete SubRip file."""
    return "\n".join(
        srt_block(number, start, end, caption.text)
        for number, (start, end, caption) in enumerate(timed(captions), 1)
    )


class SubtitleWriter:
    """Writes WebVTT or SubRip incrementally, cue by cue; what is written never changes.

    The start of the next cue is unknown, so a cue is displayed for as long as it was spoken, at least
    SECONDS_MIN, and the next one after that. The concatenated blocks are a complete, valid file at any time.

    Args:
        form: "vtt" or "srt".

    Attributes:
        head: what the file starts with.
    """

    def __init__(self, form: str) -> None:
        self.head = VTT_HEAD if form == "vtt" else ""
        self._vtt = form == "vtt"
        self._count = 0
        self._end = 0.0  # seconds; of the last cue

    def write(self, start: float, end: float, text: str) -> str:
        """The next cue as text: spoken from `start` to `end`, in session seconds."""
        start = max(round(start, 3), self._end)
        end = max(round(end, 3), start + SECONDS_MIN)
        self._end = end
        self._count += 1
        block = vtt_block(start, end, text) if self._vtt else srt_block(self._count, start, end, text)
        return f"\n{block}" if self._vtt or self._count > 1 else block


def vtt_block(start: float, end: float, text: str) -> str:
    """One cue of a WebVTT file; times in seconds."""
    lines = "\n".join(html.escape(line, quote=False) for line in _displayed(text))
    return f"{timestamp(start, '.')} --> {timestamp(end, '.')}\n{lines}\n"


def srt_block(number: int, start: float, end: float, text: str) -> str:
    """One cue of a SubRip file; times in seconds.

    SubRip has no escapes and players interpret <b> as markup, so angle brackets become quotation marks.
    """
    lines = "\n".join(line.replace("<", "\u2039").replace(">", "\u203a") for line in _displayed(text))
    return f"{number}\n{timestamp(start, ',')} --> {timestamp(end, ',')}\n{lines}\n"


def to_json(captions: Sequence[Caption]) -> list[dict[str, Any]]:
    """Closed captions with their words, as JSON values; times in seconds."""
    return [
        {
            "start": round(start, 3),
            "end": round(end, 3),
            "text": caption.text,
            "language": caption.language,
            "words": [
                {
                    "text": word.text,
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                    "probability": round(word.probability, 3),
                }
                for word in caption.words
            ],
        }
        for start, end, caption in timed(captions)
    ]


def timestamp(seconds: float, separator: str) -> str:
    """HH:MM:SS, the separator, and milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{separator}{milliseconds % 1000:03}"


def _displayed(text: str) -> list[str]:
    """A cue's lines without control characters; never empty nor blank."""
    lines = [line for line in wrap(printable(text)) if any(_is_visible(char) for char in line)]
    return lines or ["…"]


def _is_visible(char: str) -> bool:
    return not char.isspace() and unicodedata.category(char) != "Cf"
