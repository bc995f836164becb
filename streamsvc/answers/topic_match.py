"""What is said beside what watches are about, by meaning: "someone talks about money" also where nobody says "money".

Sentences are embedded two at a time as they become stable; `watch.CLOSE` says from when on a topic has come up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import metrics
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence, Word

LONG = 24  # words of a sentence without an end
WAITING = 8  # passages that wait for the model; the oldest go first, for an alert that is late tells nothing
SECONDS = 3.0  # for the model

log = structlog.get_logger(__name__)
Tell = Callable[[Mapping[str, float], Evidence, float], None]


class Topics:
    """The topics of one session's watches.

    Args:
        embed: the role with the op "texts"; None: nothing is found by meaning.
        wanted: the topics of all watches, as they stand.
        tell: takes the cosine of each topic with a passage, the passage, and when it arrived (monotonic seconds).
    """

    def __init__(self, embed: Role | None, wanted: Callable[[], Collection[str]], tell: Tell) -> None:
        self._embed, self._wanted, self._tell = embed, wanted, tell
        self._vectors: dict[str, NDArray[np.float32]] = {}  # of the topics
        self._sentence: list[Word] = []
        self._before: list[Word] = []  # the sentence before it
        self._waiting: Ring[tuple[Evidence, float]] = Ring(WAITING, lambda item: _missed("dropped"))

    def heard(self, words: Sequence[Word], arrived: float) -> None:
        """Take newly stable words."""
        for word in words:
            self._sentence.append(word)
            if word.text.rstrip("\"'”’)")[-1:] in ".?!" or len(self._sentence) >= LONG:
                whole = self._before + self._sentence
                self._before, self._sentence = self._sentence, []
                if self._embed is not None and self._wanted():
                    quote = " ".join(each.text for each in whole)
                    self._waiting.put((Evidence(whole[0].start, whole[-1].end, "speech", quote), arrived))

    def close(self) -> None:
        """Nothing more is said; what waits is still looked at."""
        self._waiting.close()

    async def run(self) -> None:
        """Compare what is heard, until it is closed."""
        with suppress(Closed):
            while True:
                for passage, arrived in await self._waiting.take(1):
                    self._tell(await self._likeness(passage.quote), passage, arrived)

    async def _likeness(self, quote: str) -> dict[str, float]:
        """Of each topic; {} where the model cannot be asked."""
        topics = sorted(self._wanted())
        self._vectors = {topic: vector for topic, vector in self._vectors.items() if topic in topics}
        new = [topic for topic in topics if topic not in self._vectors]
        if self._embed is None or not topics:
            return {}
        try:
            result = await self._embed.call("texts", {"texts": [quote, *new]}, deadline_in_s=SECONDS)
        except StreamsvcError as error:
            log.warning("watching by words alone", reason=error.code)
            _missed("failed")
            return {}
        said, *others = np.asarray(result["vectors"], dtype=np.float32)
        self._vectors |= dict(zip(new, others, strict=True))
        return {topic: float(vector @ said) for topic, vector in self._vectors.items()}


def _missed(how: str) -> None:
    metrics.deadline_missed.labels("topic", how).inc()
