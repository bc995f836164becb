"""Everything seen and heard of one session on one time line, and the sliding window of it that a model is shown. Pure.

Nothing here waits or reads a clock. The line is bounded: beyond each limit the oldest goes, and is counted in `dropped`. Of talk one
sentence stays for each stretch, so that a stream of days is remembered from its beginning, if not to the word.
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.compact_words import NO_STAGES, CompactWords
from streamsvc.core.types import Cue, Evidence, Gap, Keyframe, Scene, ScreenText, Sight, Speech, Window, Word
from streamsvc.timeline.text_tracks import MOST, Line, Lines, folded

PAUSE = 1.5  # seconds between words that end a sentence without a full stop
LONGEST = 40  # words of one sentence, for readers who never stop
SAME_SCREEN = 0.9  # share of equal text from which two readings are of the same screen
SENTENCES, SHOWN, SCREENS, SPEECHES, GAPS, SCENES = (
    6000,
    4000,
    1500,
    4000,
    1000,
    1000,
)  # limits: hours of talk
STRETCH, FOLDED = (
    60.0,
    3000,
)  # seconds for which one sentence stands beyond the limit; and how many of these there are: two days of talk
AFTER = 200  # sentences after a stretch, beside which it is judged
OPEN_WORDS = 400  # words of an open sentence and an open caption; a cue has about 14
OVERHEAD = 8  # tokens of a line's time stamp and line break
CHARS_PER_TOKEN = 3.0  # English runs at 4 and more; names and figures at less

_UNUSED = np.empty(
    0, np.float32
)  # nobody asks the line for a picture's embedding, and it is most of what a picture takes

_STOP_MARK = re.compile(r"[.?!…][\"'”’»)\]]*$")
_ABBREVIATION = re.compile(r"^(?:[A-Za-z]\.)+$|^(?:mr|mrs|ms|dr|st|prof|vs|etc|no)\.$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """What was said from one full stop to the next, with its words' times."""

    words: CompactWords

    @property
    def start(self) -> float:
        """Session seconds of the first word's start."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """Session seconds of the last word's end."""
        return self.words[-1].end

    @property
    def text(self) -> str:
        """The words with blanks between."""
        return " ".join(self.words.texts)

    def evidence(self) -> Evidence:
        """The sentence as evidence."""
        return Evidence(self.start, self.end, "speech", self.text)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one keyframe showed, from its time until the next one. `sight` None: not looked at (yet). `end` None: it is shown now."""

    start: float
    end: float | None
    sight: Sight | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Screen:
    """One screen of text, from when it was first seen until it differed. `end` None: it is shown now."""

    start: float
    end: float | None
    title: str | None
    lines: tuple[str, ...]
    frame: float  # `at` of the keyframe it was read from

    @property
    def text(self) -> str:
        """All lines, one below the other."""
        return "\n".join(self.lines)


Fold = Callable[
    [Sequence[Sentence], Sequence[Sentence]], Sentence
]  # (a stretch, what came after it) -> the one that stands for it


class Timeline:
    """The time line of one session.

    Args:
        fold: chooses what stays of the oldest talk, beyond the limit of sentences; None: nothing does.
        limits: of how many of each kind are kept, by name ("sentences", "folded" for what stays of older ones, "shown", "screens", "lines",
            "speeches", "gaps", "scenes").
    """

    def __init__(self, fold: Fold | None = None, **limits: int) -> None:
        self._limits = {
            "sentences": SENTENCES,
            "shown": SHOWN,
            "screens": SCREENS,
            "lines": MOST,
            "speeches": SPEECHES,
            "gaps": GAPS,
            "scenes": SCENES,
            "folded": FOLDED,
            **limits,
        }
        self.dropped: Counter[str] = Counter()
        self.shown: list[Shown] = []  # by time
        self.screens: list[Screen] = []
        self.text = Lines(self._limits["lines"])  # the lines of the screens, each with its own times
        self.speeches: list[Speech] = []
        self.gaps: list[Gap] = []
        self.scenes: list[Scene] = []
        self.latest = 0.0  # session seconds of the newest thing known
        self.heard_any = False
        self.thin = -1.0  # session seconds up to which not every sentence is held
        self._fold = fold
        self._folded: list[Sentence] = []  # each stands for a stretch
        self._leaving: list[Sentence] = []  # beyond the limit, not yet a stretch
        self._closed: list[Sentence] = []
        self._pending: list[Word] = []  # of closed captions, after the last full stop
        self._open: tuple[Word, ...] = ()  # stable words of the open caption

    # --- what comes in ---

    def add(self, unit: Cue | Sight | Keyframe | ScreenText | Speech | Gap | Scene) -> None:
        """Put a unit on the line. Units of one kind come in order of time; kinds may come in any order."""
        self.latest = max(self.latest, unit.at)
        match unit:
            case Cue():
                self._hear(unit)
            case Keyframe():
                self._picture(Shown(unit.at, None, None, unit.reason))
            case Sight():
                self._see(unit)
            case ScreenText():
                self._read(unit)
            case Speech():
                self.speeches.append(unit)
                self._trim(self.speeches, "speeches")
            case Gap():
                self.latest = max(self.latest, unit.end)
                self.gaps.append(unit)
                self._trim(self.gaps, "gaps")
            case Scene():
                self.scenes.append(unit)
                self._trim(self.scenes, "scenes")

    def tail(self, words: Sequence[Word]) -> None:
        """The stable words of the caption that is still open, from its start: they replace those told before."""
        fresh = tuple(words)[-OPEN_WORDS:]
        last = self._pending[-1] if self._pending else self._closed[-1].words[-1] if self._closed else None
        self._open = tuple(word for word in fresh if last is None or word.end > last.end)
        if self._open:
            self.heard_any = True
            self.latest = max(self.latest, self._open[-1].end)

    def _hear(self, cue: Cue) -> None:
        if not cue.words:
            return
        if not cue.final:
            self.tail(cue.words[: cue.stable])
            return
        self.heard_any = True
        self.latest = max(self.latest, cue.end)
        self._open = tuple(word for word in self._open if word.start >= cue.end)
        self._pending.extend(cue.words)
        *whole, rest = sentences(self._pending)
        self._closed.extend(whole)
        self._pending = list(rest.words)
        over = max(0, len(self._closed) - self._limits["sentences"])
        leaving = self._closed[:over]
        del self._closed[:over]
        for sentence in leaving:
            self._leave(sentence)

    def _leave(self, sentence: Sentence) -> None:
        """Take the oldest sentence of all that are held to the word."""
        if self._fold is None:
            self._forget([sentence], [])
            return
        if self._leaving and sentence.end - self._leaving[0].start > STRETCH:
            stands = self._fold(self._leaving, self._closed[:AFTER])
            opening = (
                [] if self._folded or stands is self._leaving[0] else self._leaving[:1]
            )  # how it all began is asked for
            self._forget(self._leaving, [*opening, stands])
            self._leaving = []
        self._leaving.append(sentence)

    def _forget(self, stretch: Sequence[Sentence], kept: Sequence[Sentence]) -> None:
        self.thin = stretch[-1].end
        self._folded += kept
        over = max(0, len(self._folded) - self._limits["folded"])
        del self._folded[:over]
        self.dropped["sentences"] += len(stretch) - len(kept) + over

    def _picture(self, shown: Shown) -> None:
        if self.shown and shown.start <= self.shown[-1].start:
            return  # the same picture again, or one that came too late
        if self.shown:
            self.shown[-1] = replace(self.shown[-1], end=shown.start)
        self.shown.append(shown)
        if len(self.shown) > self._limits["shown"]:
            half = max(1, self._limits["shown"] // 2)
            older = _joined(
                self.shown[:half]
            )  # what is shown again and again is one; where nothing is, the oldest goes
            if len(older) == half:
                del older[:1]
                self.dropped["shown"] += 1
            self.shown[:half] = older

    def _see(self, sight: Sight) -> None:
        sight = replace(sight, embedding=_UNUSED, stages=NO_STAGES)
        for index in range(len(self.shown) - 1, -1, -1):
            if abs(self.shown[index].start - sight.at) < 1e-3:
                self.shown[index] = replace(self.shown[index], sight=sight)
                break
            if self.shown[index].start < sight.at:
                self._picture(Shown(sight.at, None, sight))
                break
        else:
            if not self.shown:
                self._picture(Shown(sight.at, None, sight))
        if (
            sight.blank
            and self.screens
            and self.screens[-1].end is None
            and self.screens[-1].start < sight.at
        ):
            self.screens[-1] = replace(self.screens[-1], end=sight.at)
            self.text.clear(sight.at)

    def _read(self, read: ScreenText) -> None:
        seen = min(read.first_seen, read.at)
        self.text.read(read.lines, seen)
        self.dropped["lines"] = self.text.dropped
        lines = tuple(line.text for line in self.text.shown)
        last = self.screens[-1] if self.screens else None
        if last is not None and last.end is None and lines and _same(last.lines, lines):
            kept = last.title is not None and folded(last.title) in folded("".join(lines))
            self.screens[-1] = replace(
                last, lines=lines, title=last.title if kept else read.title or last.title
            )
            return
        if last is not None and last.end is None:
            if seen <= last.start:  # the same screen, read again after it was complete
                self.screens[-1] = Screen(last.start, None, read.title, lines, read.at)
                return
            self.screens[-1] = replace(last, end=seen)
        if lines:
            self.screens.append(Screen(seen, None, read.title, lines, read.at))
            if len(self.screens) > self._limits["screens"]:
                older = self.screens[
                    : self._limits["screens"] // 2
                ]  # of these, slides stay longer: they are asked for by their titles
                del self.screens[
                    next((place for place, screen in enumerate(older) if screen.title is None), 0)
                ]
                self.dropped["screens"] += 1

    def _trim(self, items: list, name: str) -> None:  # type: ignore[type-arg]
        over = len(items) - self._limits[name]
        if over > 0:
            del items[:over]
            self.dropped[name] += over

    # --- what is asked of it ---

    @property
    def empty(self) -> bool:
        """Whether nothing at all has been seen or heard."""
        return not (self.heard_any or any(item.sight for item in self.shown) or self.screens)

    @property
    def said(self) -> list[Sentence]:
        """All sentences by time, the unfinished last one included; up to `thin` only those that stand for others."""
        return self._folded + self._leaving + self._closed + sentences([*self._pending, *self._open])

    @property
    def talks(self) -> list[list[Sentence]]:
        """The sentences in stretches of talk, cut at pauses of 5 s and more; up to `thin` nobody knows the pauses any more."""
        found: list[list[Sentence]] = []
        for sentence in self.said:
            if found and (sentence.start - found[-1][-1].end < 5.0 or found[-1][-1].end <= self.thin):
                found[-1].append(sentence)
            else:
                found.append([sentence])
        return found

    def words_between(self, start: float, end: float) -> list[Word]:
        """The words of which more than a tenth of a second was spoken between two times."""
        return [
            word
            for sentence in self.said
            if sentence.end > start and sentence.start < end
            for word in sentence.words
            if min(word.end, end) - max(word.start, start) > 0.1
        ]

    def end_of(self, item: Shown | Screen | Line) -> float:
        """When something ceased to be shown; of what is shown now: the newest time known."""
        return max(item.start, self.latest) if item.end is None else item.end

    def at(self, when: float) -> Shown | None:
        """What was shown at a time."""
        return next((item for item in reversed(self.shown) if item.start <= when), None)

    def screen_at(self, when: float) -> Screen | None:
        """The screen of text that was shown at a time."""
        return next(
            (
                item
                for item in reversed(self.screens)
                if item.start <= when and (item.end is None or when < item.end)
            ),
            None,
        )

    def lines(self) -> list[Evidence]:
        """Speech, lines of screens and what pictures show, by time; `frame`: of the keyframe that was shown when it began, if any."""
        frames = [item.start for item in self.shown]

        def shown(when: float) -> float | None:
            place = bisect.bisect_right(frames, when)
            return frames[place - 1] if place else None

        found = [
            replace(line, frame=shown(line.start)) for line in (sentence.evidence() for sentence in self.said)
        ]
        found += [line.evidence(self.latest) for line in self.text.all()]
        for item in self.shown:
            if item.sight is not None and (told := labels_of(item.sight)):
                found.append(Evidence(item.start, self.end_of(item), "sight", told, item.start))
        return sorted(found, key=lambda line: line.start)

    def pictures(self) -> list[tuple[Evidence, NDArray[np.float16]]]:
        """What a vision-text model has looked at, by time, with `Sight.clip`; a quote is empty where nothing has a name."""
        return [
            (
                Evidence(item.start, self.end_of(item), "sight", labels_of(item.sight), item.start),
                item.sight.clip,
            )
            for item in self.shown
            if item.sight is not None and item.sight.clip is not None
        ]

    def window(self, now: float, tokens: int, names: Iterable[str] | None = None) -> Window:
        """The newest of all that is known before `now` and fits a budget, in order of time, without a hole.

        Args:
            now: session seconds; nothing that begins later is shown.
            tokens: budget, by `estimate`.
            names: kinds to show ("speech", "screen", "sight"); None: all.
        """
        kinds = set(names) if names is not None else {"speech", "screen", "sight"}
        found: list[tuple[float, Evidence, Sight | None]] = []
        if "speech" in kinds:
            for sentence in self.said:
                heard = (
                    sentence
                    if sentence.end <= now
                    else Sentence(CompactWords([word for word in sentence.words if word.end <= now]))
                )
                if heard.words:
                    found.append((heard.end, heard.evidence(), None))
        if "screen" in kinds:
            found += [
                (
                    min(now, self.end_of(screen)),
                    Evidence(
                        screen.start,
                        min(now, self.end_of(screen)),
                        "screen",
                        " / ".join(screen.lines),
                        screen.frame,
                    ),
                    None,
                )
                for screen in self.screens
                if screen.start <= now
            ]
        if "sight" in kinds:
            for item in self.shown:
                told = labels_of(item.sight) if item.sight is not None else ""
                if told and item.start <= now:
                    end = min(now, self.end_of(item))
                    found.append((end, Evidence(item.start, end, "sight", told, item.start), item.sight))
        chosen: list[tuple[Evidence, Sight | None]] = []
        left = tokens
        for _, line, sight in sorted(found, key=lambda entry: (entry[0], entry[1].start), reverse=True):
            cost = estimate(line.quote)
            if cost > left:
                if not chosen and left > OVERHEAD + 1:  # even the newest is too long: its end
                    chosen.append(
                        (
                            replace(line, quote=line.quote[-int((left - OVERHEAD - 1) * CHARS_PER_TOKEN) :]),
                            None,
                        )
                    )
                    left -= estimate(chosen[0][0].quote)
                break
            chosen.append((line, sight))
            left -= cost
        chosen.sort(key=lambda entry: (entry[0].start, entry[0].end))
        start = min((line.start for line, _ in chosen), default=now)
        return Window(
            tuple(line for line, _ in chosen),
            tuple(sight for _, sight in chosen if sight is not None),
            start,
            now,
            tokens - left,
        )


def estimate(text: str) -> int:
    """Tokens that a line will cost a model, its time stamp included; never too few for plain text."""
    return OVERHEAD + int(len(text) / CHARS_PER_TOKEN) + 1


def labels_of(sight: Sight) -> str:
    """The labels of one picture, as a line of text."""
    if sight.blank:
        return "blank picture"
    counts = Counter(box.label for box in sight.boxes)
    told = [f"{count} {label}" if count > 1 else label for label, count in counts.items()]
    return ", ".join(told + [tag.label for tag in sight.tags if tag.label not in counts])


def _joined(items: Sequence[Shown]) -> list[Shown]:
    """Pictures one after the other that show the same are one, from the first one's start to the last one's end."""
    found: list[Shown] = []
    told: str | None = None
    for item in items:
        before, told = told, labels_of(item.sight) if item.sight is not None else None
        if found and before is not None and before == told:
            found[-1] = replace(found[-1], end=item.end)
        else:
            found.append(item)
    return found


def sentences(words: Sequence[Word]) -> list[Sentence]:
    """Cut words into sentences: at full stops, at pauses, and at the last comma of an overlong one. The last may be unfinished."""
    found: list[Sentence] = []
    run: list[Word] = []
    for index, word in enumerate(words):
        run.append(word)
        following = words[index + 1] if index + 1 < len(words) else None
        stops = _STOP_MARK.search(word.text) is not None and not _ABBREVIATION.match(word.text)
        if following is not None and (stops or following.start - word.end > PAUSE):
            found.append(Sentence(CompactWords(run)))
            run = []
        elif len(run) >= LONGEST:
            cut = next(
                (n for n in range(len(run), LONGEST // 2, -1) if run[n - 1].text[-1:] in ",;:"), len(run)
            )
            found.append(Sentence(CompactWords(run[:cut])))
            run = run[cut:]
    if run:
        found.append(Sentence(CompactWords(run)))
    return found


def _same(one: Sequence[str], other: Sequence[str]) -> bool:
    a, b = (re.sub(r"\W+", "", "".join(lines)).lower() for lines in (one, other))
    return a == b or difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= SAME_SCREEN
