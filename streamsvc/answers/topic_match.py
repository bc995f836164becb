"""Topic matching for watches: speech compared with topics by sentence vectors and a cross-encoder.

"Talks about money" so matches speech without the word. Each sentence is compared alone and together with the
one before it; what counts is the nearer one. The score is `topic_score`, ON_TOPIC the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.answers import topic_score
from streamsvc.core import clock, metrics
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.latency import WAIT
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence, Stages, Word
from streamsvc.timeline.text_vectors import CHANCE_QUERIES

MAX_SENTENCE = 24  # words, where no punctuation ends it
MAX_QUEUED = 8  # passages; when full the oldest is dropped, since a late alert is of no use
MAX_RANKED = 4  # topics that the cross-encoder is asked of a passage, the nearest
TIMEOUT = 3.0  # seconds, of the model

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passage:
    """What was said, when it arrived (monotonic seconds), and what its time went to so far.

    `newest`: its last sentence.
    """

    evidence: Evidence
    arrived: float
    stages: Stages
    newest: str = ""

    @property
    def texts(self) -> list[str]:
        """What is compared: all of it, and its last sentence alone."""
        return list(dict.fromkeys((self.evidence.quote, self.newest or self.evidence.quote)))


OnSimilarity = Callable[[Mapping[str, float], Passage], None]


class TopicMatcher:
    """Compares the speech of one session with the topics of its watches.

    Args:
        embed: the role with the op "texts"; None: nothing is compared.
        topics: returns the current topics of all watches.
        on_similarity: called with the score of each topic, and the passage.
    """

    def __init__(
        self, embed: Role | None, topics: Callable[[], Collection[str]], on_similarity: OnSimilarity
    ) -> None:
        self._embed = embed
        self._topics = topics
        self._on_similarity = on_similarity
        self._vectors: dict[str, NDArray[np.float32]] = {}  # topic -> unit vector, shape (d,)
        self._means: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None  # of topics, of passages
        self._sentence: list[Word] = []
        self._previous: list[Word] = []  # the sentence before
        self._queue: Ring[Passage] = Ring(MAX_QUEUED, lambda item: _count_missed("dropped"))

    def on_words(self, words: Sequence[Word], arrived: float, stages: Stages = ()) -> None:
        """Add newly stable words; queues a passage at the end of each sentence."""
        for word in words:
            self._sentence.append(word)
            if ends_sentence(word) or len(self._sentence) >= MAX_SENTENCE:
                passage = self._previous + self._sentence
                self._previous, newest = self._sentence, _text(self._sentence)
                self._sentence = []
                if self._embed is not None and self._topics():
                    evidence = Evidence(passage[0].start, passage[-1].end, "speech", _text(passage))
                    self._queue.put(Passage(evidence, arrived, stages, newest))

    def close(self) -> None:
        """Close the queue; queued passages are still compared."""
        self._queue.close()

    async def run(self) -> None:
        """Compare queued passages until closed."""
        with suppress(Closed):
            while True:
                for passage in await self._queue.take(1):
                    stages = (*passage.stages, (WAIT, clock.now()))
                    similarity = await self._similarity(passage.texts)
                    self._on_similarity(similarity, replace(passage, stages=stages))

    async def _similarity(self, texts: Sequence[str]) -> dict[str, float]:
        """The score of a passage, by the best of its texts, for each topic; {} where the model fails."""
        topics = sorted(self._topics())
        self._vectors = {topic: vector for topic, vector in self._vectors.items() if topic in topics}
        new = [topic for topic in topics if topic not in self._vectors]
        if self._embed is None or not topics:
            return {}
        try:
            of_topics, of_passages = await self._centres(self._embed)
            said = await _embedded(self._embed, texts, "passage")
            if new:
                self._vectors |= dict(zip(new, await _embedded(self._embed, new, "query"), strict=True))
        except StreamsvcError as error:
            log.warning("topic matching failed; watches match by words only", reason=error.code)
            _count_missed("failed")
            return {}
        vectors = np.stack([self._vectors[topic] for topic in topics])
        plain = (vectors @ said.T).max(axis=1)
        near = topic_score.centred(vectors, of_topics) @ topic_score.centred(said, of_passages).T
        asked = near.max(axis=1).argsort()[::-1][:MAX_RANKED]
        scores = {}
        for row, topic in enumerate(topics):
            cosine = float(near[row].max())
            logit = None
            if row in asked and cosine >= topic_score.NEAR:
                logit = await self._logit(self._embed, topic, texts[int(near[row].argmax())])
            scores[topic] = topic_score.score(float(plain[row]), cosine, logit)
        return scores

    async def _centres(self, embed: Role) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean vectors of topics and of passages, once a session: a recording holds the calls."""
        if self._means is None:
            topics = await _embedded(embed, CHANCE_QUERIES, "query")
            passages = await _embedded(embed, topic_score.BACKGROUND, "passage")
            self._means = topics.mean(axis=0), passages.mean(axis=0)
        return self._means

    async def _logit(self, embed: Role, topic: str, text: str) -> float | None:
        """What the cross-encoder says; None where it fails, or there is none."""
        try:
            result = await embed.call("rank", {"query": topic, "texts": [text]}, deadline_in_s=TIMEOUT)
        except StreamsvcError:
            _count_missed("unranked")
            return None
        return float(result["scores"][0])


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def ends_sentence(word: Word) -> bool:
    """Whether a word ends a sentence by its punctuation."""
    return word.text.rstrip("\"'”’)")[-1:] in (".", "?", "!")


async def _embedded(embed: Role, texts: Sequence[str], kind: str) -> NDArray[np.float32]:
    result = await embed.call("texts", {"texts": list(texts), "kind": kind}, deadline_in_s=TIMEOUT)
    return np.asarray(result["vectors"], dtype=np.float32)


def _count_missed(outcome: str) -> None:
    metrics.deadline_missed.labels("topic", outcome).inc()
