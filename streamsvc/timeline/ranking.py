"""Ranking of documents for a query: BM25 on stems, plus similarity of vectors where they are known. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from streamsvc.core.types import Evidence
from streamsvc.timeline.text import terms

K1 = 1.2
B = 0.5  # passages are short and of about one length
MAX_DOCUMENTS = 20_000  # the newest are searched; a search stays below about 0.1 s
SHORT_SENTENCE = 6  # words; a shorter one is joined with its neighbour, alone it lacks context
MAX_PASSAGE = 30  # words, unless one sentence has more
MAX_PAUSE = 3.0  # seconds of silence within a passage
# Chosen on one half of the queries of load_tests/search.py, tested on the other.
UNRELATED = 0.8  # cosine similarity of unrelated texts (e5)
# By how much a text must be nearer to a query than to unrelated ones (e5: two standard deviations of that),
# and the best text nearer than both it and the query are to unrelated ones: else nothing here is meant.
CHANCE = 0.025
CHANCE_BEST = 0.06
SIMILARITY_WEIGHT = 1.0  # relative to a text that holds every term, which has 1
# Not measured: no weights of a vision-text model were at hand. Of 4000 normal deviates 5 exceed 3, none 5.
Z_CHANCE = 3.0  # deviations up to which a picture does not match
Z_CERTAIN = 5.0  # deviations from which a picture counts as much as equal meaning
NEIGHBOUR_SHARE = 0.5  # of the best picture's score: neighbours from this on join its hit
UNNAMED = "picture"  # text of a picture without labels


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. start, end: session seconds; frame: `at` of its keyframe; score: within one search."""

    start: float
    end: float
    kind: str
    text: str
    score: float
    frame: float | None = None


def documents(lines: Iterable[Evidence]) -> list[Evidence]:
    """Documents made of lines: short sentences are joined, repeated screens and sights are one.

    Args:
        lines: by time. Later lines change only the last document of their kind.
    """
    joined: list[Evidence] = []
    newest: dict[str, int] = {}  # kind -> index of its newest document
    for line in lines:
        index = newest.get(line.kind)
        if index is not None and _joins(joined[index], line):
            before = joined[index]
            quote = f"{before.quote} {line.quote}" if line.kind == "speech" else before.quote
            joined[index] = replace(before, end=line.end, quote=quote)
        else:
            newest[line.kind] = len(joined)
            joined.append(line)
    return joined[-MAX_DOCUMENTS:]


def _joins(document: Evidence, line: Evidence) -> bool:
    if line.kind != "speech":
        return line.quote == document.quote
    before = len(document.quote.split())
    words = len(line.quote.split())
    is_short = min(before, words) < SHORT_SENTENCE and before + words <= MAX_PASSAGE
    return is_short and line.start - document.end < MAX_PAUSE


def search(
    documents: Sequence[Evidence],
    query: str,
    similarity: NDArray[np.float32] | None = None,
    limit: int = 10,
    deviations: NDArray[np.float32] | None = None,
) -> list[Hit]:
    """The documents that match a query, best first; of equal scores the newest first.

    Args:
        documents: matching pictures that follow each other are one hit, from first start to last end.
        query: plain words. Without a content word there is no hit.
        similarity: cosine similarity of each document with the query, shape (n,), NaN where not known.
        limit: hits at most.
        deviations: standard deviations by which each picture matches the query, shape (n,), NaN for other
            documents. Pictures are the last documents, by time.
    """
    query_terms = list(dict.fromkeys(terms(query)))
    if not query_terms or not documents:
        return []
    scores = score([document.quote for document in documents], query_terms, similarity, deviations)
    is_picture = np.zeros(len(documents), bool) if deviations is None else ~np.isnan(deviations)
    taken = scores <= 0
    hits: list[Hit] = []
    for n in sorted(np.flatnonzero(~taken).tolist(), key=lambda n: (-scores[n], -documents[n].start)):
        if len(hits) == limit:
            break
        if taken[n]:
            continue
        first = last = n
        if is_picture[n]:
            first, last = _run(is_picture & ~taken & (scores >= NEIGHBOUR_SHARE * scores[n]), n)
        taken[first : last + 1] = True
        best = documents[n]
        start, end = documents[first].start, documents[last].end
        hits.append(Hit(start, end, best.kind, best.quote or UNNAMED, round(float(scores[n]), 4), best.frame))
    return hits


def above_chance(
    similarity: NDArray[np.float32], to_any: NDArray[np.float32], excess: float
) -> NDArray[np.float32]:
    """Similarities with a query, NaN where a text is as near to any other query; all NaN where the best is.

    Args:
        similarity: of each text with the query, shape (n,).
        to_any: mean similarity of each text with unrelated queries, shape (n,).
        excess: mean similarity of the query with unrelated ones, less that of these with each other.
    """
    margin = similarity - to_any
    floor = CHANCE if np.nanmax(margin, initial=-1.0) - excess >= CHANCE_BEST else np.inf
    return np.where(margin < floor, np.float32(np.nan), similarity)


def _run(mask: NDArray[np.bool_], index: int) -> tuple[int, int]:
    """First and last index of the run of true values around `index`."""
    first = last = index
    while first > 0 and mask[first - 1]:
        first -= 1
    while last + 1 < len(mask) and mask[last + 1]:
        last += 1
    return first, last


def score(
    texts: Sequence[str],
    query_terms: Sequence[str],
    similarity: NDArray[np.float32] | None = None,
    deviations: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Score of each text, shape (n,); 0 is no match. `similarity` and `deviations` as in `search`.

    BM25 as a share of its upper bound, plus similarity over `UNRELATED`. A text that holds every term comes
    before all others, whatever their similarity. Terms that no text holds are ignored there, if two remain.
    """
    index = WordIndex(texts)
    scores = index.scores(query_terms) + index.has_all(query_terms) * (1 + SIMILARITY_WEIGHT)
    if similarity is not None:
        scores += SIMILARITY_WEIGHT * _scaled(similarity, UNRELATED, 1)
    if deviations is not None:
        scores += SIMILARITY_WEIGHT * _scaled(deviations, Z_CHANCE, Z_CERTAIN)
    return scores


class WordIndex:
    """BM25 over the stems of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._bags = [terms(text) or ("",) for text in texts]
        self._bm25 = _BM25(self._bags, k1=K1, b=B) if self._bags else None

    def scores(self, query_terms: Sequence[str]) -> NDArray[np.float64]:
        """BM25 of each text as a share of its upper bound, shape (n,); 0: it holds none of the terms."""
        if self._bm25 is None or not query_terms:
            return np.zeros(len(self._bags))
        # A term that no text holds lowers the share as the rarest would.
        weight = [self._bm25.idf.get(term, self._bm25.weight(0)) for term in query_terms]
        scores: NDArray[np.float64] = self._bm25.get_scores(query_terms) / (sum(weight) * (K1 + 1))
        return scores

    def has_all(self, query_terms: Sequence[str]) -> NDArray[np.bool_]:
        """Whether a text holds every term, shape (n,). Terms that none holds are ignored, if two remain."""
        known = [term for term in query_terms if self._bm25 is not None and term in self._bm25.idf]
        required = set(known if len(known) >= min(2, len(query_terms)) else query_terms)
        return np.array([required.issubset(bag) for bag in self._bags], bool)


class _BM25(BM25Okapi):  # type: ignore[misc]
    """Okapi BM25 with weights above 0 (as Lucene's), so a word of most texts never counts against one."""

    idf: dict[str, float]

    def _calc_idf(self, nd: Mapping[str, int]) -> None:
        self.idf = {term: self.weight(count) for term, count in nd.items()}

    def weight(self, count: int) -> float:
        """The weight of a term that `count` texts hold."""
        return idf(count, int(self.corpus_size))


def fused(*rankings: Sequence[int]) -> list[int]:
    """Indices of several rankings, each best first, in one order by the sum of their reciprocal ranks.

    Source: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion" (2009), with its k of 60.
    """
    sums: dict[int, float] = {}
    for ranking in rankings:
        for rank, index in enumerate(ranking, 1):
            sums[index] = sums.get(index, 0.0) + 1 / (60 + rank)
    return sorted(sums, key=lambda index: -sums[index])


def best(scores: NDArray[Any], count: int) -> list[int]:
    """The indices of the largest scores that are numbers above 0, the largest first."""
    order = np.argsort(-np.nan_to_num(scores, nan=0.0), kind="stable")[:count]
    return [int(index) for index in order if scores[index] > 0]


def _scaled(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """Values from `low` to `high` scaled to 0 to 1 and clipped; NaN counts as 0 before scaling."""
    scaled: NDArray[np.float64] = np.clip(
        (np.nan_to_num(values.astype(np.float64)) - low) / (high - low), 0, 1
    )
    return scaled


def idf(count: int, of: int) -> float:
    """Inverse document frequency of a term in `count` of `of` documents; always above 0."""
    return math.log(1 + (of - count + 0.5) / (count + 0.5))
