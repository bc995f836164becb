"""Paraphrases as topics of watches: how many passages fire, and how many others (load_tests/search.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engines import embed
from streamsvc.answers import topic_score
from streamsvc.core.types import Evidence
from streamsvc.timeline.text_vectors import CHANCE_QUERIES


def scores(
    encoder: embed.Encoder,
    ranker: embed.Ranker,
    queries: Sequence[tuple[str, list[int]]],
    texts: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """The score of each text for each query as the topic of a watch."""
    means = (
        encoder.vectors(list(some), kind).mean(axis=0)
        for some, kind in ((CHANCE_QUERIES, "query"), (topic_score.BACKGROUND, "passage"))
    )
    of_topics, of_passages = means
    passages = encoder.vectors(list(texts), "passage")
    near_passages = topic_score.centred(passages, of_passages)
    of: dict[str, NDArray[np.float32]] = {}
    for query, _ in queries:
        vector = encoder.vectors([query])
        plain, cosines = passages @ vector[0], near_passages @ topic_score.centred(vector, of_topics)[0]
        near = np.flatnonzero(cosines >= topic_score.NEAR).tolist()
        logits = (
            dict(zip(near, ranker.scores(query, [texts[n] for n in near]), strict=True)) if len(near) else {}
        )
        of[query] = np.array(
            [topic_score.score(float(plain[n]), float(c), logits.get(n)) for n, c in enumerate(cosines)],
            np.float32,
        )
    return of


def show(
    name: str,
    documents: Sequence[Evidence],
    queries: Sequence[tuple[str, list[int]]],
    of: Mapping[str, NDArray[np.float32]],
    threshold: float = topic_score.ON_TOPIC,
) -> None:
    """The paraphrases as topics of watches: true and false alerts; neighbours of the target count as true."""
    spoken = np.array([document.kind == "speech" for document in documents])
    hours = (max(document.end for document in documents) - documents[0].start) / 3600
    true = false = 0
    for query, right in queries:
        near = (of[query] >= threshold) & spoken
        allowed = {place + shift for place in right for shift in (-1, 0, 1)}
        true += any(near[place] for place in right)
        false += sum(place not in allowed for place in np.flatnonzero(near))
    targets = sum(spoken[right].any() for _, right in queries)
    print(
        f"as topics of watches ({name}), from {threshold}: {true} of {targets} found, "
        f"{false / len(queries) / hours:.1f} false alarms an hour and watch"
    )
