"""What a viewer was shown of a talk -> figures: word errors, the latency of each word, steadiness. Pure.

The definitions are streambench's. What was shown is a list of snapshots; the latency of a word is the time of the first
snapshot since which it stands in the right place, and stays there until the end, minus the time at which its last sample had
been spoken. First shown: among all words; committed: among those that are said never to change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Snapshot = tuple[
    float, str, str
]  # seconds since the first sample, all committed text so far, the tentative text behind it
Figures = Mapping[str, float | None]

_WORD = re.compile(
    r"[\u0e00-\u109f\u3040-\u30ff\u3400-\u9fff]|[^\W_\u0e00-\u109f\u3040-\u30ff\u3400-\u9fff]+"
)  # Thai to Myanmar, kana, Han
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
AHEAD = (
    0.6  # seconds: a word of the truth may be shown so long before its marked end (marks are only so good)
)
PAUSE = 1.5  # seconds between the ends of two words that lie in one stretch of speech
MARGIN = 1.0  # seconds around a stretch of speech that still count as speech
PIECE = 20  # words of the truth in one piece of the bootstrap
RESAMPLES, SEED = 2000, 7
Counts = NDArray[np.int64]


def norm(text: str) -> list[str]:
    """The words of a text as they are compared: lower case, no punctuation, titles spelt out; where none are parted, the characters."""
    plain = text.lower().replace("\u2019", "'").replace("'", "")
    return [TITLES.get(word, word) for word in _WORD.findall(plain)]


# --- alignment ----------------------------------------------------------------------------------------------------


class Aligner:
    """Edit distance of growing hypotheses to one truth; what two consecutive ones have in common is computed once."""

    def __init__(self, truth: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        self._truth = np.array([self._id(word) for word in truth], dtype=np.int64)
        self._steps = np.arange(len(truth) + 1)
        self._heard: list[int] = []
        self._rows: list[Counts] = [
            self._steps.copy()
        ]  # row i, column j: edits between the first i heard and the first j true words

    def _id(self, word: str) -> int:
        return self._ids.setdefault(word, len(self._ids))

    def _push(self, word: int) -> None:
        above = self._rows[-1]
        row = above + 1
        row[1:] = np.minimum(row[1:], above[:-1] + (self._truth != word))
        self._rows.append(np.minimum.accumulate(row - self._steps) + self._steps)

    def match(self, words: Sequence[str], most: int | None = None) -> tuple[list[tuple[int, int]], int]:
        """Equal words as (index in the truth, index in `words`), and the number of edits.

        most: how many first words of the truth can have been heard; the best match of any so many is taken. None: all of them.
        """
        heard = [self._id(word) for word in words]
        same = common(self._heard, heard)
        del self._rows[same + 1 :]
        for word in heard[same:]:
            self._push(word)
        self._heard = heard
        last = self._rows[-1]
        i, j = len(heard), len(self._truth) if most is None else int(np.argmin(last[: most + 1]))
        edits, pairs = int(last[j]), []
        while i and j:
            here, above = self._rows[i], self._rows[i - 1]
            equal = self._truth[j - 1] == heard[i - 1]
            if here[j] == above[j - 1] + (not equal):
                i, j = i - 1, j - 1
                if equal:
                    pairs.append((j, i))
            elif here[j] == above[j] + 1:
                i -= 1
            else:
                j -= 1
        return pairs[::-1], edits


def align(truth: Sequence[str], heard: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """Equal words as (index in truth, index in heard), and the number of edits."""
    return Aligner(truth).match(heard)


def common(before: Sequence[object], now: Sequence[object]) -> int:
    """How many first items two sequences share."""
    shorter = min(len(before), len(now))
    return next((place for place in range(shorter) if before[place] != now[place]), shorter)


def errors(truth: Sequence[str], heard: Sequence[str]) -> Counts:
    """The edits at each word of a truth, shape (n,); their sum is the edit distance. Words too many count at the word after them."""
    counts = np.zeros(len(truth), np.int64)
    before, there = -1, -1  # the last words that are equal, in the truth and in what was heard
    for place, other in [*align(truth, heard)[0], (len(truth), len(heard))]:
        missed, more = place - before - 1, other - there - 1
        counts[before + 1 : place] = 1
        if more > missed and len(truth):
            counts[min(place, len(truth) - 1)] += more - missed
        before, there = place, other
    return counts


# --- one run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """What was said.

    `words`: as `norm` gives them. `ends`: seconds at which the last sample of each had been spoken, ascending. `true`: somebody
    wrote them down; else a model heard them, and the edits towards them are no word errors.
    """

    words: tuple[str, ...]
    ends: tuple[float, ...]
    true: bool = True


@dataclass(frozen=True, slots=True)
class Score:
    """The counts and times of one run, or of several (see `pool`); `figures` makes figures of them.

    `right`: words of the truth that were committed. `committed`, `shown`: words committed at the end, words put on the screen in all.
    `erased`: shown words that were changed or taken back later; `revised`: committed ones. `invented`: words committed where nobody
    spoke. `first`, `commit`: latencies in seconds. `gap`: the longest time without a change on the screen while somebody spoke.
    `end_lag`: from the end of the last word to the last commit; None: nothing right was committed.
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
        reference: what was said.
        spoken: start and end of each committed word, as the recogniser has them; only for `invented`.
    """
    truth, ends = reference.words, np.array(reference.ends)
    showing, committing = Aligner(truth), Aligner(truth)
    first: dict[int, float] = {}  # word of the truth -> since when it stands there
    commit: dict[int, float] = {}
    display: list[str] = []
    stable: list[str] = []
    times, put, erased, revised = [], 0, 0, 0
    for at, committed, tentative in shown:
        stable_now = norm(committed)
        display_now = stable_now + norm(tentative)
        if display_now == display and stable_now == stable:
            continue
        times.append(at)
        heard = int(np.searchsorted(ends, at + AHEAD))
        if display_now != display:
            first = {place: first.get(place, at) for place, _ in showing.match(display_now, heard)[0]}
        if stable_now != stable:
            commit = {place: commit.get(place, at) for place, _ in committing.match(stable_now, heard)[0]}
        same = common(display, display_now)
        erased, put = erased + len(display) - same, put + len(display_now) - same
        revised += len(stable) - common(stable, stable_now)
        display, stable = display_now, stable_now
    pairs, edits = align(truth, stable)
    right = [place for place, _ in pairs]
    settled = [commit[place] for place in right if place in commit]
    return Score(
        edits=edits,
        words=len(truth),
        right=len(right),
        committed=len(stable),
        shown=put,
        erased=erased,
        revised=revised,
        invented=outside(spoken, stretches(reference.ends)),
        events=len(times),
        first=tuple(float(first[place] - ends[place]) for place in right if place in first),
        commit=tuple(float(commit[place] - ends[place]) for place in right if place in commit),
        gap=longest_gap(times, reference.ends),
        end_lag=float(max(settled) - ends[-1]) if settled else None,
        true=reference.true,
    )


def stretches(ends: Sequence[float]) -> list[tuple[float, float]]:
    """Where somebody speaks without a pause: the end of the first and of the last word of each stretch, seconds."""
    found: list[tuple[float, float]] = []
    for end in ends:
        found = (
            [*found[:-1], (found[-1][0], end)]
            if found and end - found[-1][1] <= PAUSE
            else [*found, (end, end)]
        )
    return found


def longest_gap(times: Sequence[float], ends: Sequence[float]) -> float:
    """The longest time without an event inside one stretch of speech, seconds; its first word's end and its last's count as events."""
    longest = 0.0
    for start, end in stretches(ends):
        marks = [start, *(at for at in times if start < at < end), end]
        longest = max(longest, *np.diff(marks).tolist())
    return longest


def outside(spoken: Iterable[tuple[float, float]], speech: Sequence[tuple[float, float]]) -> int:
    """How many words (start, end) lie farther than MARGIN from all stretches of speech."""
    return sum(
        all(end < begin - MARGIN or start > finish + MARGIN for begin, finish in speech)
        for start, end in spoken
    )


# --- figures ------------------------------------------------------------------------------------------------------


def pool(scores: Sequence[Score]) -> Score:
    """Several runs as one: counts and latencies joined, the worst gap and end lag. At least one run."""
    lags = [each.end_lag for each in scores if each.end_lag is not None]
    judged = [each for each in scores if each.true]  # word errors are those of the runs that have a truth
    return Score(
        edits=sum(each.edits for each in judged or scores),
        words=sum(each.words for each in judged or scores),
        right=sum(each.right for each in judged or scores),
        committed=sum(each.committed for each in scores),
        shown=sum(each.shown for each in scores),
        erased=sum(each.erased for each in scores),
        revised=sum(each.revised for each in scores),
        invented=sum(each.invented for each in scores),
        events=sum(each.events for each in scores),
        first=tuple(late for each in scores for late in each.first),
        commit=tuple(late for each in scores for late in each.commit),
        gap=max(each.gap for each in scores),
        end_lag=max(lags, default=None),
        true=bool(judged),
    )


def figures(of: Score) -> Figures:
    """The figures by name. None: there is nothing to measure. wer is a fraction, latencies are seconds."""
    return {
        "wer": round(of.edits / of.words, 4) if of.true and of.words else None,
        "words": of.words,
        "words_ok": of.right,
        "committed": of.committed,
        "first_p50": percentile(of.first, 50),
        "first_p95": percentile(of.first, 95),
        "commit_p50": percentile(of.commit, 50),
        "commit_p95": percentile(of.commit, 95),
        "commit_max": percentile(of.commit, 100),
        "erasure": round(of.erased / max(1, of.committed), 3),
        "flicker_share": round(of.erased / max(1, of.shown), 3),
        "commit_erased": of.revised,
        "non_speech_words": of.invented,
        "longest_gap_s": round(of.gap, 2),
        "end_lag_s": None if of.end_lag is None else round(of.end_lag, 2),
        "events": of.events,
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """A percentile to the millisecond; None without values."""
    return round(float(np.percentile(values, share)), 3) if len(values) else None


# --- two systems --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """The word error rate of one system minus that of another: `points` (a fraction), and what it is below in 95 of 100 resamples."""

    points: float
    upper: float
    pieces: int


def pieces(counts: NDArray[np.float64] | Counts) -> NDArray[np.float64]:
    """Edits per word -> (edits, words) of each piece of about PIECE words, shape (k, 2). No words: no pieces."""
    if not len(counts):
        return np.zeros((0, 2))
    cut = np.array_split(counts, max(1, round(len(counts) / PIECE)))
    return np.array([(part.sum(), len(part)) for part in cut], dtype=np.float64)


def compare(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Difference | None:
    """Paired bootstrap over pieces (see `pieces`): the same resampled pieces for both, so what is hard for both cancels out.

    The bound is one-sided. None: there is nothing to compare. Source: Bisani and Ney, "Bootstrap estimates for confidence intervals
    in ASR performance evaluation", 2004.
    """
    if not len(ours):
        return None
    more, words = ours[:, 0] - theirs[:, 0], ours[:, 1]
    drawn = np.random.default_rng(SEED).integers(0, len(words), (RESAMPLES, len(words)))
    resampled = more[drawn].sum(axis=1) / words[drawn].sum(axis=1)
    return Difference(float(more.sum() / words.sum()), float(np.percentile(resampled, 95)), len(words))
