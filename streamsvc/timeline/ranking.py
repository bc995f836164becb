"""Retrieval over what was said and shown: BM25 on stems, beside the likeness of meaning and of pictures where vectors are known. Pure.

Source: S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with k1 = 1.2 and
b = 0.5 (passages are short and of about one length). A document is an `Evidence`: a passage of speech, a line of a screen, what a
picture shows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import Evidence
from streamsvc.timeline.text import terms

K1, B = 1.2, 0.5
MOST_DOCUMENTS = 20_000  # the newest are searched; a search stays below about 0.1 s
SHORT = 6  # words: a shorter sentence is joined with its neighbour, alone it seldom tells what it is about
LONG = 30  # words of a passage at most, unless one sentence has more: a hit is to be read at a glance
PAUSE = 3.0  # seconds of silence that no passage bridges
# Chosen on one half of the queries of load_tests/search.py, held against the other.
UNLIKE = 0.25  # cosine up to which two texts have nothing in common
WEIGHT = 0.75  # of likeness, beside a coverage of 1
# Not measured: no weights of such a model were at hand. Among 4000 normal numbers five are beyond 3 by chance, and none beyond 5.
CHANCE, CERTAIN = (
    3.0,
    5.0,
)  # standard deviations by which a text stands out for a picture: no sign yet; as good as equal meaning
FADED = 0.5  # share of the best picture's score from which a picture beside it is found together with it
UNNAMED = "picture"  # the text of a picture in which nothing has a name


@dataclass(frozen=True, slots=True)
class Hit:
    """What was found. start, end: session seconds; score: comparable within one search only; frame: `at` of the keyframe shown then."""

    start: float
    end: float
    kind: str
    text: str
    score: float
    frame: float | None = None


def passages(lines: Iterable[Evidence]) -> list[Evidence]:
    """Documents of lines: short sentences are joined with their neighbours, and what is shown again at once is one document.

    Args:
        lines: by time; the passages of what does not change do not change either.
    """
    found: list[Evidence] = []
    last: dict[str, int] = {}  # kind -> place of its newest document
    for line in lines:
        place = last.get(line.kind)
        if place is not None and _one(found[place], line):
            before = found[place]
            quote = f"{before.quote} {line.quote}" if line.kind == "speech" else before.quote
            found[place] = replace(before, end=line.end, quote=quote)
        else:
            last[line.kind] = len(found)
            found.append(line)
    return found[-MOST_DOCUMENTS:]


def _one(before: Evidence, line: Evidence) -> bool:
    if line.kind != "speech":
        return line.quote == before.quote
    had, more = len(before.quote.split()), len(line.quote.split())
    return min(had, more) < SHORT and had + more <= LONG and line.start - before.end < PAUSE


def search(
    documents: Sequence[Evidence],
    query: str,
    likeness: NDArray[np.float32] | None = None,
    limit: int = 10,
    standing: NDArray[np.float32] | None = None,
) -> list[Hit]:
    """The documents that fit a query, best first; of two equals the newer one.

    Args:
        documents: what may be found. Pictures that follow each other and are found by the same query are one hit: the best of them,
            from the first one's start to the last one's end.
        query: plain words. Without a content word nothing is found.
        likeness: the cosine of each document's vector with the query's, shape (n,), NaN where none is known; None: none is known.
        limit: how many hits at most.
        standing: by how many standard deviations the query stands out for each picture, shape (n,), NaN where a document is none; pictures
            are together, by time. None: there are no pictures.
    """
    wanted = list(dict.fromkeys(terms(query)))
    if not wanted or not documents:
        return []
    scores = ranked([document.quote for document in documents], wanted, likeness, standing)
    pictures = np.zeros(len(documents), bool) if standing is None else ~np.isnan(standing)
    taken = scores <= 0
    found: list[Hit] = []
    for n in sorted(np.flatnonzero(~taken).tolist(), key=lambda n: (-scores[n], -documents[n].start)):
        if len(found) == limit:
            break
        if taken[n]:
            continue
        first = last = n
        if pictures[n]:
            alike = pictures & ~taken & (scores >= FADED * scores[n])
            while first > 0 and alike[first - 1]:
                first -= 1
            while last + 1 < len(documents) and alike[last + 1]:
                last += 1
        taken[first : last + 1] = True
        best = documents[n]
        text = best.quote or UNNAMED
        found.append(
            Hit(
                documents[first].start,
                documents[last].end,
                best.kind,
                text,
                round(float(scores[n]), 4),
                best.frame,
            )
        )
    return found


def ranked(
    texts: Sequence[str],
    wanted: Sequence[str],
    likeness: NDArray[np.float32] | None = None,
    standing: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """A score of each text, shape (n,), 0: not found; `likeness` and `standing` as in `search`.

    The words found, as BM25's share of what a text would have that held each wanted term without end; and the meaning shared, beyond what
    any two texts share. A text that holds every term comes before all that do not: likeness buries nothing that was asked for by its words;
    terms that no text holds are not counted there, if two remain.
    """
    bags = [Counter(terms(text)) for text in texts]
    mean = sum(sum(bag.values()) for bag in bags) / len(bags) or 1.0
    held = {term: sum(term in bag for bag in bags) for term in wanted}
    weight = {term: rarity(count, len(bags)) for term, count in held.items()}
    most = sum(weight.values()) * (K1 + 1)
    known = [term for term, count in held.items() if count]
    named = known if len(known) >= min(2, len(wanted)) else wanted

    def words(bag: Counter[str]) -> float:
        norm = K1 * (1 - B + B * sum(bag.values()) / mean)
        share = (
            sum(weight[term] * bag[term] * (K1 + 1) / (bag[term] + norm) for term in known if term in bag)
            / most
        )
        return share + all(term in bag for term in named) * (1 + WEIGHT)

    scores = np.array([words(bag) for bag in bags])
    if likeness is not None:
        scores += WEIGHT * np.clip((np.nan_to_num(likeness.astype(np.float64)) - UNLIKE) / (1 - UNLIKE), 0, 1)
    if standing is not None:
        scores += WEIGHT * np.clip(
            (np.nan_to_num(standing.astype(np.float64)) - CHANCE) / (CERTAIN - CHANCE), 0, 1
        )
    return scores


def rarity(count: int, of: int) -> float:
    """Inverse document frequency of a term that `count` of `of` documents hold; always above 0."""
    return math.log(1 + (of - count + 0.5) / (count + 0.5))
