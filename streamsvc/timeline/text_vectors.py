"""Sentence vectors of the texts of one session, made in small batches and kept while the texts are known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role

log = structlog.get_logger()
BATCH = 4  # texts a call, 40 to 100 ms: a query waits for one batch at most
BATCH_TIMEOUT = 10.0  # seconds; the first batch loads the model
# Queries that have nothing to do with each other: a text is as near to them as it is to any query by chance.
CHANCE_QUERIES = (
    *(
        "weather",
        "lawyer",
        "soup",
        "winter",
        "engine",
        "music",
        "hospital",
        "garden",
        "money",
        "school",
        "wedding",
    ),
    *(
        "paint",
        "ocean",
        "bread",
        "tax",
        "dream",
        "train",
        "insect",
        "shirt",
        "history",
        "battery",
        "football",
    ),
    *("election", "furniture"),
)

Vector = NDArray[np.float16]  # (d,) of unit length


@dataclass(frozen=True, slots=True)
class Chance:
    """What is as near as any query.

    `mean`: the mean vector of unrelated queries, shape (d,); its product with another is how near that is to
    any of them. `level`: the mean of their products with each other.
    """

    mean: Vector
    level: float

    def excess(self, query: Vector) -> float:
        """How much nearer a query is to unrelated ones than these are to each other."""
        return float(self.mean.astype(np.float32) @ query.astype(np.float32)) - self.level


def chance_of(vectors: NDArray[np.float32]) -> Chance:
    """The `Chance` of at least two unrelated queries, shape (n, d), unit length."""
    count, mean = len(vectors), vectors.mean(axis=0)
    level = (count * float(mean @ mean) - 1) / (count - 1)  # without each one's product with itself
    return Chance(mean.astype(np.float16), level)


class TextVectors:
    """A cache of vectors by text, bounded by the texts that its users want.

    Args:
        embed: role with the op "texts"; None: no text has a vector.
    """

    def __init__(self, embed: Role | None) -> None:
        self._embed = embed
        self._wanted: dict[str, list[str]] = {}  # user -> its texts, the newest first
        self._vectors: dict[str, Vector] = {}
        self._chance: list[Vector] = []  # of the first of CHANCE_QUERIES
        self._turn = asyncio.Lock()  # no batch is sent twice

    def want(self, user: str, texts: Sequence[str]) -> None:
        """Keep and make the vectors of `texts`, by time, for `user` ("passages", "search"), and no others."""
        self._wanted[user] = list(dict.fromkeys(reversed(texts)))
        kept = {text for wanted in self._wanted.values() for text in wanted}
        self._vectors = {text: vector for text, vector in self._vectors.items() if text in kept}

    @property
    def missing(self) -> list[str]:
        """Texts without a vector, each user's newest first."""
        if self._embed is None:
            return []
        return [text for wanted in self._wanted.values() for text in wanted if text not in self._vectors]

    async def embed_some(self, seconds: float = BATCH_TIMEOUT) -> int:
        """Make vectors of one batch; how many texts are left, 0 too where the model fails."""
        async with self._turn:
            batch = self.missing[:BATCH]
            vectors = await embedded(self._embed, batch, seconds, "passage") if batch else None
            if vectors is None:
                return 0  # the next call tries again
            self._vectors.update(zip(batch, vectors, strict=True))
            return len(self.missing)

    async def embed_chance(self, seconds: float = BATCH_TIMEOUT) -> int:
        """Make vectors of one batch of CHANCE_QUERIES; how many are left, 0 too where the model fails.

        They are not needed before a text has a vector.
        """
        async with self._turn:
            batch = CHANCE_QUERIES[len(self._chance) :][:BATCH] if self._vectors else ()
            vectors = await embedded(self._embed, batch, seconds, "query") if batch else None
            if vectors is None:
                return 0  # the next call tries again
            self._chance.extend(vectors)
            return len(CHANCE_QUERIES) - len(self._chance)

    @property
    def chance(self) -> Chance | None:
        """What is as near as any query; None: not all of CHANCE_QUERIES are known yet."""
        if not self._chance or len(self._chance) < len(CHANCE_QUERIES):
            return None
        return chance_of(np.stack(self._chance).astype(np.float32))

    async def embed_for(self, seconds: float) -> None:
        """Make vectors of the newest texts for at most about that long."""
        deadline = clock.now() + seconds
        while (left := deadline - clock.now()) > 0 and self.missing:
            if not await self.embed_some(left):
                return

    async def query(self, text: str, seconds: float) -> Vector | None:
        """The vector of a query, shape (d,); None if it is not there in time."""
        vectors = await embedded(self._embed, [text], seconds, "query")
        return None if vectors is None else vectors[0]

    def similarity(self, texts: Sequence[str], query: Vector) -> NDArray[np.float32]:
        """Product of each text's vector with a query's, shape (n,), NaN where not known."""
        similarity = np.full(len(texts), np.nan, np.float32)
        known = [
            (n, vector) for n, text in enumerate(texts) if (vector := self._vectors.get(text)) is not None
        ]
        if known:
            rows = np.stack([vector for _, vector in known]).astype(np.float32)
            similarity[[n for n, _ in known]] = rows @ query.astype(np.float32)
        return similarity


async def embedded(
    role: Role | None, texts: Sequence[str], seconds: float, kind: Literal["query", "passage"]
) -> Vector | None:
    """Vectors of texts, float16 (n, d); None if there is no model, or it is not available in time."""
    if role is None:
        return None
    try:
        result = await role.call("texts", {"texts": list(texts), "kind": kind}, deadline_in_s=seconds)
    except StreamsvcError as error:
        log.info("a search is by words alone", reason=error.code)
        return None
    return np.asarray(result["vectors"], dtype=np.float16)
