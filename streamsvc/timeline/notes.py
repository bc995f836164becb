"""Extractive notes: what stands for lines that have left the window. Pure; knows no language.

Every note is quoted: central sentences, titles of screens, labels of sights. Source: G. Erkan and D. Radev,
"LexRank: Graph-based Lexical Centrality as Salience in Text Summarization" (2004), degree without the walk.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import Evidence
from streamsvc.timeline.lines import Line, clipped

CountTokens = Callable[[str], int]
TOKENS_PER_SENTENCE = 200  # of leaving speech, for which a note quotes one sentence
MAX_SENTENCES = 4  # of one note
MAX_TITLES = 8
MAX_LABELS = 12
NOTHING_SEEN = "nothing that is known"
UNLABELLED = "a picture"
_TITLE = 60  # characters
QUOTED_WORDS = 24  # of a line that a note quotes
_WORD = re.compile(r"\w{4,}")  # shorter words seldom tell what a line is about


def central(parts: Sequence[Evidence], most: int) -> list[Evidence]:
    """At most `most` of the parts, by time: of each of as many stretches of equal size the most central one.

    Central is what is like all others: by the mean cosine similarity of words, weighted by their rarity.
    """
    if len(parts) <= most:
        return list(parts)
    scores = centrality([part.quote for part in parts])
    edges = np.linspace(0, len(parts), most + 1).round().astype(int)
    chosen = [start + int(np.argmax(scores[start:end])) for start, end in itertools.pairwise(edges)]
    return [parts[n] for n in chosen]


def centrality(texts: Sequence[str]) -> NDArray[np.float64]:
    """Mean cosine similarity of each text to all others, shape (n,); 0 for one without a long word."""
    bags = [Counter(_WORD.findall(text.casefold())) for text in texts]
    frequency = Counter(word for bag in bags for word in bag)
    index = {word: n for n, word in enumerate(frequency)}
    vectors = np.zeros((len(texts), max(1, len(index))))
    for row, bag in enumerate(bags):
        for word in bag:
            vectors[row, index[word]] = math.log(1 + len(texts) / frequency[word])
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1.0)
    similarity = vectors @ vectors.sum(axis=0) - (norms[:, 0] > 0)  # without the text itself
    result: NDArray[np.float64] = similarity / max(1, len(texts) - 1)
    return result


def quoted(part: Evidence) -> Evidence:
    """The part with at most QUOTED_WORDS of its words."""
    words = part.quote.split()
    if len(words) <= QUOTED_WORDS:
        return part
    return replace(part, quote=" ".join(words[:QUOTED_WORDS]) + " …")


def distinct(parts: Sequence[Evidence], most: int) -> list[Evidence]:
    """The first of the parts of each quote, at most `most`; the newest of them, by time."""
    first: dict[str, Evidence] = {}
    for part in parts:
        first.setdefault(part.quote.casefold(), part)
    return sorted(first.values(), key=lambda part: part.start)[-most:]


def tokens(lines: Iterable[Line], count_tokens: CountTokens) -> int:
    """Tokens of lines."""
    return sum(count_tokens(line.rendered) for line in lines)


def notes_of(leaving: Sequence[Line], size: int) -> list[Line]:
    """Notes on lines of `size` tokens together, not numbered yet: central sentences, titles, labels."""
    evidence = [line.evidence() for line in leaving]
    spoken = [part for part in evidence if part.kind == "speech"]
    most = max(1, min(MAX_SENTENCES, round(size / TOKENS_PER_SENTENCE)))
    titles = [
        replace(part, quote=part.quote.split(" / ")[0][:_TITLE]) for part in evidence if part.kind == "screen"
    ]
    labels = [
        replace(part, quote=label)
        for part in evidence
        if part.kind == "sight"
        for label in part.quote.split(", ")
        if label not in (NOTHING_SEEN, UNLABELLED)
    ]
    groups = (
        [quoted(part) for part in central(spoken, most)],
        distinct(titles, MAX_TITLES),
        distinct(labels, MAX_LABELS),
    )
    covers = (min(line.number for line in leaving), max(line.number for line in leaving))
    start, end = min(line.start for line in leaving), max(line.end for line in leaving)
    return [_note(start, end, covers, group) for group in groups if group]


def _note(start: float, end: float, covers: tuple[int, int], parts: Sequence[Evidence]) -> Line:
    text = ("; " if parts[0].kind == "speech" else " / ").join(part.quote for part in parts)
    return Line(0, start, end, "note", clipped(text), parts[0].frame, "", covers, tuple(parts))


def merged(standing: list[Line], count_tokens: CountTokens, most: int) -> list[Line]:
    """Notes of at most `most` tokens: the two oldest of one kind become one with half of their quotes.

    It is not numbered yet; the others keep their numbers.
    """
    while len(standing) > 1 and tokens(standing, count_tokens) > most:
        pair = _oldest_pair(standing)
        if pair is None:
            del standing[0]
            continue
        one, other = pair
        parts = [*one.parts, *other.parts]
        half = max(1, len(parts) // 2)
        kept = central(parts, half) if parts[0].kind == "speech" else distinct(parts, half)
        covers = [*(one.covers or ()), *(other.covers or ())]
        joined = _note(
            min(one.start, other.start),
            max(one.end, other.end),
            (min(covers), max(covers)),
            kept,
        )
        place = standing.index(one)
        standing[place] = joined
        standing.remove(other)
    return standing


def _oldest_pair(standing: Sequence[Line]) -> tuple[Line, Line] | None:
    """The first two notes of one kind that follow each other; None: no two are of one kind."""
    newest: dict[str, Line] = {}
    for note in standing:
        kind = note.parts[0].kind
        if kind in newest:
            return newest[kind], note
        newest[kind] = note
    return None
