"""Topic matching for watches: speech compared with topics by the cosine similarity of sentence vectors.

"Talks about money" so matches speech without the word. Each sentence is embedded together with the one before
it; `watch_evaluation.TOPIC_SIMILARITY` is the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock, metrics
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.latency import WAIT
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence, Stages, Word

MAX_SENTENCE = 24  # words, where no punctuation ends it
MAX_QUEUED = 8  # passages; when full the oldest is dropped, since a late alert is of no use
TIMEOUT = 3.0  # seconds, of the model

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passage:
    """What was said, when it arrived (monotonic seconds), and what its time went to so far."""

    evidence: Evidence
    arrived: float
    stages: Stages


OnSimilarity = Callable[[Mapping[str, float], Passage], None]


class TopicMatcher:
    """Compares the speech of one session with the topics of its watches.

    Args:
        embed: the role with the op "texts"; None: nothing is compared.
        topics: returns the current topics of all watches.
        on_similarity: called with the cosine of each topic, and the passage.
    """

    def __init__(
        self, embed: Role | None, topics: Callable[[], Collection[str]], on_similarity: OnSimilarity
    ) -> None:
        self._embed = embed
        self._topics = topics
        self._on_similarity = on_similarity
        self._vectors: dict[str, NDArray[np.float32]] = {}  # topic -> unit vector, shape (d,)
        self._sentence: list[Word] = []
        self._previous: list[Word] = []  # the sentence before
        self._queue: Ring[Passage] = Ring(MAX_QUEUED, lambda item: _count_missed("dropped"))

    def on_words(self, words: Sequence[Word], arrived: float, stages: Stages = ()) -> None:
        """Add newly stable words; queues a passage at the end of each sentence."""
        for word in words:
            self._sentence.append(word)
            if ends_sentence(word) or len(self._sentence) >= MAX_SENTENCE:
                passage = self._previous + self._sentence
                self._previous = self._sentence
                self._sentence = []
                if self._embed is not None and self._topics():
                    quote = " ".join(item.text for item in passage)
                    evidence = Evidence(passage[0].start, passage[-1].end, "speech", quote)
                    self._queue.put(Passage(evidence, arrived, stages))

    def close(self) -> None:
        """Close the queue; queued passages are still compared."""
        self._queue.close()

    async def run(self) -> None:
        """Compare queued passages until closed."""
        with suppress(Closed):
            while True:
                for passage in await self._queue.take(1):
                    stages = (*passage.stages, (WAIT, clock.now()))
                    similarity = await self._similarity(passage.evidence.quote)
                    self._on_similarity(similarity, replace(passage, stages=stages))

    async def _similarity(self, quote: str) -> dict[str, float]:
        """The cosine of a text to each topic; {} where the model fails."""
        topics = sorted(self._topics())
        self._vectors = {topic: vector for topic, vector in self._vectors.items() if topic in topics}
        new = [topic for topic in topics if topic not in self._vectors]
        if self._embed is None or not topics:
            return {}
        try:
            (quote_vector,) = await _embedded(self._embed, [quote], "passage")
            if new:
                self._vectors |= dict(zip(new, await _embedded(self._embed, new, "query"), strict=True))
        except StreamsvcError as error:
            log.warning("topic matching failed; watches match by words only", reason=error.code)
            _count_missed("failed")
            return {}
        return {topic: float(vector @ quote_vector) for topic, vector in self._vectors.items()}


def ends_sentence(word: Word) -> bool:
    """Whether a word ends a sentence by its punctuation."""
    return word.text.rstrip("\"'”’)")[-1:] in (".", "?", "!")


async def _embedded(embed: Role, texts: Sequence[str], kind: str) -> NDArray[np.float32]:
    result = await embed.call("texts", {"texts": list(texts), "kind": kind}, deadline_in_s=TIMEOUT)
    return np.asarray(result["vectors"], dtype=np.float32)


def _count_missed(outcome: str) -> None:
    metrics.deadline_missed.labels("topic", outcome).inc()
