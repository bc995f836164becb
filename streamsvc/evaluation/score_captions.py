"""Scores live captions: word errors, latency of each word, erasure. Pure.

The definitions are streambench's. The input is a list of snapshots of the screen. The latency of a word is
the time of the first snapshot from which on it stays in its place until the end, minus the time of its last
sample. "First": among all shown words; "commit": among the stable words, which must not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# seconds since the first sample, all committed text so far, the tentative text behind it
Snapshot = tuple[float, str, str]
Figures = Mapping[str, float | None]

_WORD = re.compile(
    r"[\u0e00-\u109f\u3040-\u30ff\u3400-\u9fff]|[^\W_\u0e00-\u109f\u3040-\u30ff\u3400-\u9fff]+"
)  # Thai to Myanmar, kana, Han
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
AHEAD = 0.6  # seconds by which a word may be shown before its marked end: the marks are inexact
PAUSE = 1.5  # seconds between the ends of two words of one span of speech
MARGIN = 1.0  # seconds around a span of speech that still count as speech
PIECE = 20  # words of the reference in one piece of the bootstrap
RESAMPLES = 2000
SEED = 7
Counts = NDArray[np.int64]


def norm(text: str) -> list[str]:
    """The words of a text as they are compared: lower case, no punctuation, titles spelt out.

    In scripts without spaces between words, the characters.
    """
    plain = text.lower().replace("\u2019", "'").replace("'", "")
    return [TITLES.get(word, word) for word in _WORD.findall(plain)]


# --- alignment ----------------------------------------------------------------------------------------------


class Aligner:
    """Edit distance of growing hypotheses to one reference.

    Rows of the common prefix of two hypotheses are reused.

    Of alignments with the same number of edits it takes streambench's: match or substitution, then insertion,
    then deletion.
    """

    def __init__(self, reference: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        self._reference = np.array([self._id(word) for word in reference], dtype=np.int64)
        self._steps = np.arange(len(reference) + 1)
        self._hypothesis: list[int] = []
        # row i, column j: edits between the first i words of the hypothesis and the first j of the reference
        self._rows: list[Counts] = [self._steps.copy()]

    def _id(self, word: str) -> int:
        return self._ids.setdefault(word, len(self._ids))

    def _push(self, word: int) -> None:
        above = self._rows[-1]
        row = above + 1
        row[1:] = np.minimum(row[1:], above[:-1] + (self._reference != word))
        self._rows.append(np.minimum.accumulate(row - self._steps) + self._steps)

    def match(self, words: Sequence[str], most: int | None = None) -> tuple[list[tuple[int, int]], int]:
        """Equal words as (index in the reference, index in `words`), and the number of edits.

        Args:
            words: the hypothesis.
            most: match the prefix of the reference of at most so many words that has the fewest edits; None:
                the whole reference.
        """
        hypothesis = [self._id(word) for word in words]
        same = common_prefix(self._hypothesis, hypothesis)
        del self._rows[same + 1 :]
        for word in hypothesis[same:]:
            self._push(word)
        self._hypothesis = hypothesis
        last = self._rows[-1]
        i = len(hypothesis)
        j = len(self._reference) if most is None else int(np.argmin(last[: most + 1]))
        edits = int(last[j])
        pairs = []
        while i and j:
            here, above = self._rows[i], self._rows[i - 1]
            equal = self._reference[j - 1] == hypothesis[i - 1]
            if here[j] == above[j - 1] + (not equal):
                i, j = i - 1, j - 1
                if equal:
                    pairs.append((j, i))
            elif here[j] == above[j] + 1:
                i -= 1
            else:
                j -= 1
        return pairs[::-1], edits


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """Equal words as (index in reference, index in hypothesis), and the number of edits."""
    return Aligner(reference).match(hypothesis)


def common_prefix(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the common prefix of two sequences."""
    shorter = min(len(first), len(second))
    return next((index for index in range(shorter) if first[index] != second[index]), shorter)


def errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """The edits at each word of a reference, shape (n,); their sum is the edit distance.

    An insertion counts at the next word.
    """
    counts = np.zeros(len(reference), np.int64)
    last_i, last_j = -1, -1  # the last pair of equal words
    for i, j in [*align(reference, hypothesis)[0], (len(reference), len(hypothesis))]:
        missed = i - last_i - 1
        inserted = j - last_j - 1
        counts[last_i + 1 : i] = 1
        if inserted > missed and len(reference):
            counts[min(i, len(reference) - 1)] += inserted - missed
        last_i, last_j = i, j
    return counts


# --- one run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference transcript.

    `words`: see `norm`. `ends`: seconds of the last sample of each word, ascending. `true`: a human
    transcript; else the output of a model, and edits against it are no word errors.
    """

    words: tuple[str, ...]
    ends: tuple[float, ...]
    true: bool = True


@dataclass(frozen=True, slots=True)
class Score:
    """Counts and times of one run, or of several (see `pool`); input of `figures`.

    `right`: reference words that were committed. `committed`: words committed at the end. `shown`: all words
    that were ever shown. `erased`: shown words that later changed or disappeared; `revised`: committed ones
    that did. `invented`: words committed outside of speech. `first`, `commit`: latencies in seconds. `gap`:
    longest time without a change of the screen during speech. `end_lag`: from the end of the last word to the
    last commit; None: no right word was committed.
    """

    edits: int
    words: int
    right: int
    committed: int
    shown: int
    erased: int
    revised: int
    invented: int
    events: int
    first: tuple[float, ...]
    commit: tuple[float, ...]
    gap: float
    end_lag: float | None
    true: bool


def score(
    shown: Iterable[Snapshot], reference: Reference, spoken: Sequence[tuple[float, float]] = ()
) -> Score:
    """Score one run.

    Args:
        shown: the snapshots, in order.
        reference: the transcript.
        spoken: start and end of each committed word, by the recogniser; only for `invented`.
    """
    truth = reference.words
    ends = np.array(reference.ends)
    showing = Aligner(truth)
    committing = Aligner(truth)
    first: dict[int, float] = {}  # index in the reference -> time from which on the word is in place
    commit: dict[int, float] = {}
    display: list[str] = []
    stable: list[str] = []
    times = []
    put = 0
    erased = 0
    revised = 0
    for at, committed, tentative in shown:
        stable_now = norm(committed)
        display_now = stable_now + norm(tentative)
        if display_now == display and stable_now == stable:
            continue
        times.append(at)
        spoken_by_now = int(np.searchsorted(ends, at + AHEAD))
        if display_now != display:
            first = {index: first.get(index, at) for index, _ in showing.match(display_now, spoken_by_now)[0]}
        if stable_now != stable:
            commit = {
                index: commit.get(index, at) for index, _ in committing.match(stable_now, spoken_by_now)[0]
            }
        same = common_prefix(display, display_now)
        erased += len(display) - same
        put += len(display_now) - same
        revised += len(stable) - common_prefix(stable, stable_now)
        display = display_now
        stable = stable_now
    pairs, edits = align(truth, stable)
    right = [index for index, _ in pairs]
    settled = [commit[index] for index in right if index in commit]
    return Score(
        edits=edits,
        words=len(truth),
        right=len(right),
        committed=len(stable),
        shown=put,
        erased=erased,
        revised=revised,
        invented=words_outside(spoken, speech_spans(reference.ends)),
        events=len(times),
        first=tuple(float(first[index] - ends[index]) for index in right if index in first),
        commit=tuple(float(commit[index] - ends[index]) for index in right if index in commit),
        gap=longest_gap(times, reference.ends),
        end_lag=float(max(settled) - ends[-1]) if settled else None,
        true=reference.true,
    )


def speech_spans(ends: Sequence[float]) -> list[tuple[float, float]]:
    """Spans of speech without a PAUSE: the ends of their first and last words, seconds."""
    spans: list[tuple[float, float]] = []
    for end in ends:
        if spans and end - spans[-1][1] <= PAUSE:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((end, end))
    return spans


def longest_gap(times: Sequence[float], ends: Sequence[float]) -> float:
    """The longest time without an event inside one span of speech, seconds.

    The ends of a span count as events.
    """
    longest = 0.0
    for start, end in speech_spans(ends):
        marks = [start, *(at for at in times if start < at < end), end]
        longest = max(longest, *np.diff(marks).tolist())
    return longest


def words_outside(spoken: Iterable[tuple[float, float]], speech: Sequence[tuple[float, float]]) -> int:
    """Number of words (start, end) farther than MARGIN from all spans of speech."""
    return sum(
        all(end < begin - MARGIN or start > finish + MARGIN for begin, finish in speech)
        for start, end in spoken
    )


# --- figures ------------------------------------------------------------------------------------------------


def pool(scores: Sequence[Score]) -> Score:
    """Several runs as one: counts and latencies joined, the worst gap and end lag. At least one run."""
    lags = [one.end_lag for one in scores if one.end_lag is not None]
    judged = [one for one in scores if one.true] or scores  # word errors: of the runs with a human transcript
    return Score(
        edits=sum(one.edits for one in judged),
        words=sum(one.words for one in judged),
        right=sum(one.right for one in judged),
        committed=sum(one.committed for one in scores),
        shown=sum(one.shown for one in scores),
        erased=sum(one.erased for one in scores),
        revised=sum(one.revised for one in scores),
        invented=sum(one.invented for one in scores),
        events=sum(one.events for one in scores),
        first=tuple(late for one in scores for late in one.first),
        commit=tuple(late for one in scores for late in one.commit),
        gap=max(one.gap for one in scores),
        end_lag=max(lags, default=None),
        true=any(one.true for one in scores),
    )


def figures(scored: Score) -> Figures:
    """Figures by name; wer is a fraction, latencies are seconds. None: there is nothing to measure."""
    return {
        "wer": round(scored.edits / scored.words, 4) if scored.true and scored.words else None,
        "words": scored.words,
        "words_ok": scored.right,
        "committed": scored.committed,
        "first_p50": percentile(scored.first, 50),
        "first_p95": percentile(scored.first, 95),
        "commit_p50": percentile(scored.commit, 50),
        "commit_p95": percentile(scored.commit, 95),
        "commit_max": percentile(scored.commit, 100),
        "erasure": round(scored.erased / max(1, scored.committed), 3),
        "flicker_share": round(scored.erased / max(1, scored.shown), 3),
        "commit_erased": scored.revised,
        "non_speech_words": scored.invented,
        "longest_gap_s": round(scored.gap, 2),
        "end_lag_s": None if scored.end_lag is None else round(scored.end_lag, 2),
        "events": scored.events,
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """A percentile to the millisecond; None without values."""
    return round(float(np.percentile(values, share)), 3) if len(values) else None


# --- two systems --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Word error rate of one system minus another's: `points` (a fraction) and its upper 95 % bound."""

    points: float
    upper: float
    pieces: int


def pieces(counts: NDArray[np.float64] | Counts) -> NDArray[np.float64]:
    """Edits per word, shape (n,) -> (edits, words) of pieces of about PIECE words, shape (k, 2)."""
    if not len(counts):
        return np.zeros((0, 2))
    cut = np.array_split(counts, max(1, round(len(counts) / PIECE)))
    return np.array([(part.sum(), len(part)) for part in cut], dtype=np.float64)


def compare(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Difference | None:
    """Paired bootstrap over pieces (see `pieces`); None without pieces.

    Both systems are resampled alike, so the difficulty of a piece cancels out. The bound is one-sided.
    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
    2004.
    """
    if not len(ours):
        return None
    more, words = ours[:, 0] - theirs[:, 0], ours[:, 1]
    drawn = np.random.default_rng(SEED).integers(0, len(words), (RESAMPLES, len(words)))
    resampled = more[drawn].sum(axis=1) / words[drawn].sum(axis=1)
    return Difference(float(more.sum() / words.sum()), float(np.percentile(resampled, 95)), len(words))
