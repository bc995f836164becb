"""The transcript of one session: captions joined to sentences, the oldest speech thinned out. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamsvc.core.compact_words import CompactWords
from streamsvc.core.types import Cue, Evidence, Word

PAUSE = 1.5  # seconds between words that end a sentence without a full stop
MAX_SENTENCE_WORDS = 40  # speakers who never pause are cut at a comma, else here
MAX_OPEN_WORDS = 400  # words of the open caption; a cue has about 14
STRETCH = 60.0  # seconds of old speech that one sentence stands for
LOOK_AHEAD = 200  # sentences after a stretch that `Fold` may compare it with
TALK_PAUSE = 5.0  # seconds of silence between two talks
_MIN_OVERLAP = 0.1  # seconds of a word within a range of time

_FULL_STOP = re.compile(r"[.?!…][\"'”’»)\]]*$")
_ABBREVIATION = re.compile(r"^(?:[A-Za-z]\.)+$|^(?:mr|mrs|ms|dr|st|prof|vs|etc|no)\.$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Speech from one full stop to the next, with word times."""

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
        """The words, separated by blanks."""
        return " ".join(self.words.texts)

    @property
    def complete(self) -> bool:
        """Whether it ends with a full stop."""
        return _ends_sentence(self.words[-1])

    def evidence(self) -> Evidence:
        """The sentence as evidence."""
        return Evidence(self.start, self.end, "speech", self.text)


# (sentences of a stretch, sentences that follow it) -> the sentence that stands for the stretch
Fold = Callable[[Sequence[Sentence], Sequence[Sentence]], Sentence]


class Transcript:
    """Sentences of one session: recent ones complete, older ones one per `STRETCH` seconds.

    Args:
        limit: complete sentences kept.
        folded_limit: older sentences kept.
        fold: chooses the sentence that stands for a stretch; None: older sentences are dropped.
    """

    def __init__(self, limit: int, folded_limit: int, fold: Fold | None = None) -> None:
        self.dropped = 0  # sentences
        self.has_words = False  # whether there was speech at all
        self.end = 0.0  # session seconds of the newest word
        self.folded_until = -1.0  # session seconds up to which the transcript is not complete
        self._limit = limit
        self._folded_limit = folded_limit
        self._fold = fold
        self._folded: list[Sentence] = []  # one per stretch
        self._stretch: list[Sentence] = []  # over the limit, not yet a whole stretch
        self._closed: list[Sentence] = []
        self._pending: list[Word] = []  # of closed captions, after the last full stop
        self._open: tuple[Word, ...] = ()  # stable words of the open caption

    @property
    def sentences(self) -> list[Sentence]:
        """All sentences by time, the unfinished one included."""
        unfinished = split_sentences([*self._pending, *self._open])
        return self._folded + self._stretch + self._closed + unfinished

    @property
    def closed_sentences(self) -> list[Sentence]:
        """All sentences of closed captions by time; the last may be unfinished."""
        return self._folded + self._stretch + self._closed + split_sentences(self._pending)

    @property
    def talks(self) -> list[list[Sentence]]:
        """Sentences grouped by pauses of `TALK_PAUSE`; pauses before `folded_until` are not known."""
        groups: list[list[Sentence]] = []
        for sentence in self.sentences:
            previous = groups[-1][-1].end if groups else None
            if previous is not None and (
                sentence.start - previous < TALK_PAUSE or previous <= self.folded_until
            ):
                groups[-1].append(sentence)
            else:
                groups.append([sentence])
        return groups

    def words_between(self, start: float, end: float) -> list[Word]:
        """Words of which more than 0.1 s lies between two session seconds."""
        return [
            word
            for sentence in self.sentences
            if sentence.end > start and sentence.start < end
            for word in sentence.words
            if min(word.end, end) - max(word.start, start) > _MIN_OVERLAP
        ]

    def add(self, cue: Cue) -> None:
        """Add the words of a final cue, or the stable words of a partial one."""
        if not cue.words:
            return
        if not cue.final:
            self.set_open_words(cue.words[: cue.stable])
            return
        self.has_words = True
        self.end = max(self.end, cue.end)
        self._open = tuple(word for word in self._open if word.start >= cue.end)
        self._pending.extend(cue.words)
        *closed, unfinished = split_sentences(self._pending)
        self._closed.extend(closed)
        self._pending = list(unfinished.words)
        over = max(0, len(self._closed) - self._limit)
        oldest = self._closed[:over]
        del self._closed[:over]
        for sentence in oldest:
            self._thin(sentence)

    def set_open_words(self, words: Sequence[Word]) -> None:
        """Replace the stable words of the open caption; words that are in a closed one are left out."""
        last = self._pending[-1] if self._pending else self._closed[-1].words[-1] if self._closed else None
        newest = tuple(words)[-MAX_OPEN_WORDS:]
        self._open = tuple(word for word in newest if last is None or word.end > last.end)
        if self._open:
            self.has_words = True
            self.end = max(self.end, self._open[-1].end)

    def _thin(self, sentence: Sentence) -> None:
        """Move the oldest complete sentence to its stretch, and fold the stretch before if that is whole."""
        if self._fold is None:
            self._replace([sentence], [])
            return
        if self._stretch and sentence.end - self._stretch[0].start > STRETCH:
            standing = self._fold(self._stretch, self._closed[:LOOK_AHEAD])
            # The opening sentence of a session stays too: questions ask how it began.
            keep_first = not self._folded and standing is not self._stretch[0]
            opening = self._stretch[:1] if keep_first else []
            self._replace(self._stretch, [*opening, standing])
            self._stretch = []
        self._stretch.append(sentence)

    def _replace(self, stretch: Sequence[Sentence], standing: Sequence[Sentence]) -> None:
        self.folded_until = stretch[-1].end
        self._folded += standing
        over = max(0, len(self._folded) - self._folded_limit)
        del self._folded[:over]
        self.dropped += len(stretch) - len(standing) + over


def split_sentences(words: Sequence[Word]) -> list[Sentence]:
    """Cut words at full stops and pauses, overlong runs at a comma. The last sentence may be unfinished."""
    sentences: list[Sentence] = []
    run: list[Word] = []
    for index, word in enumerate(words):
        run.append(word)
        following = words[index + 1] if index + 1 < len(words) else None
        if following is not None and (_ends_sentence(word) or following.start - word.end > PAUSE):
            sentences.append(Sentence(CompactWords(run)))
            run = []
        elif len(run) >= MAX_SENTENCE_WORDS:
            cut = _last_comma(run)
            sentences.append(Sentence(CompactWords(run[:cut])))
            run = run[cut:]
    if run:
        sentences.append(Sentence(CompactWords(run)))
    return sentences


def _ends_sentence(word: Word) -> bool:
    return _FULL_STOP.search(word.text) is not None and not _ABBREVIATION.match(word.text)


def _last_comma(run: Sequence[Word]) -> int:
    """Number of words up to the last comma in the second half of a run; without one, all of them."""
    commas = (n for n in range(len(run), MAX_SENTENCE_WORDS // 2, -1) if run[n - 1].text[-1:] in ",;:")
    return next(commas, len(run))
