"""Search in one session: by words at once, by meaning where vectors are ready.

The first search starts the embedding of the session's texts; later ones embed what is new. Texts not embedded
in time are found by their words alone, and embedded afterwards. Pictures have vectors from their sights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence
from streamsvc.timeline import ranking
from streamsvc.timeline.ranking import Hit, passages
from streamsvc.timeline.text import terms

log = structlog.get_logger()
MAX_WAIT = 1.0  # seconds that a search waits for vectors
BATCH = 16  # texts a call: the query of another search waits for one batch at most, about 40 ms
BATCH_TIMEOUT = 10.0  # seconds; the first batch loads the model
# Prompts of a vision-text model; a query's vector is their mean.
PICTURE_PROMPTS = ("{}", "a photo of {}.")

Vector = NDArray[np.float16]
Picture = tuple[Evidence, Vector]  # with `Sight.clip`
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(frozen=True, slots=True)
class _Query:
    """A query with its vectors, None where not known; `picture_vector` is of the vision-text model."""

    text: str
    limit: int
    vector: Vector | None
    picture_vector: Vector | None


class Index:
    """Search index of one session: a cache of text vectors, bounded by the session's documents.

    Args:
        embed: role with the op "texts"; None: search by words alone.
        see: role whose op "texts" is of a vision-text model; None: pictures are found by their labels.
    """

    def __init__(self, embed: Role | None = None, see: Role | None = None) -> None:
        self._embed = embed
        self._see = see
        self._vectors: dict[str, Vector] = {}  # text -> unit vector, shape (d,)
        self._missing: list[str] = []  # texts to be embedded, the newest first
        self._embedding: asyncio.Task[None] | None = None

    async def search(
        self,
        lines: Iterable[Evidence],
        query: str,
        limit: int,
        spawn: Spawn,
        pictures: Sequence[Picture] = (),
    ) -> list[Hit]:
        """The passages and pictures that match a query, best first. Never fails for want of a model.

        Args:
            lines: of the session, by time.
            query: plain words; without a content word there is no hit.
            limit: hits at most.
            spawn: starts the embedding task, and cancels it when the service ends.
            pictures: of the session, by time; each replaces the line with its labels.
        """
        frames = {picture.frame for picture, _ in pictures}
        documents = passages(line for line in lines if line.kind != "sight" or line.frame not in frames)
        documents += [picture for picture, _ in pictures]
        if not documents or not terms(query):
            return []
        texts = [document.quote for document in documents if document.quote]
        vector, picture_vector = await asyncio.gather(
            self._text_vector(texts, query, spawn), self._picture_vector(query, pictures)
        )
        # On a thread: hours of speech take a tenth of a second.
        with_vectors = _Query(query, limit, vector, picture_vector)
        return await asyncio.to_thread(_rank, documents, pictures, self._vectors, with_vectors)

    async def _text_vector(self, texts: Sequence[str], query: str, spawn: Spawn) -> Vector | None:
        """The query's vector. Meanwhile the texts are embedded, as many as `MAX_WAIT` allows."""
        if self._embed is None or not texts:
            return None
        deadline = clock.now() + MAX_WAIT
        newest_first = dict.fromkeys(reversed(texts))
        self._vectors = {text: self._vectors[text] for text in newest_first if text in self._vectors}
        self._missing = [text for text in newest_first if text not in self._vectors]
        if self._missing and (self._embedding is None or self._embedding.done()):
            self._embedding = spawn(self._embed_missing())
        vectors = await _embed(self._embed, [query], MAX_WAIT)
        if vectors is None:
            return None
        if self._embedding is not None:
            await asyncio.wait({self._embedding}, timeout=max(0.0, deadline - clock.now()))
        vector: Vector = vectors[0]
        return vector

    async def _picture_vector(self, query: str, pictures: Sequence[Picture]) -> Vector | None:
        if self._see is None or not pictures:
            return None
        vectors = await _embed(self._see, [prompt.format(query) for prompt in PICTURE_PROMPTS], MAX_WAIT)
        return None if vectors is None else vectors.mean(axis=0)

    async def _embed_missing(self) -> None:
        while self._embed is not None and (batch := self._missing[:BATCH]):
            vectors = await _embed(self._embed, batch, BATCH_TIMEOUT)
            if vectors is None:
                return  # the next search tries again
            self._vectors.update(zip(batch, vectors, strict=True))
            self._missing = [text for text in self._missing if text not in self._vectors]


async def _embed(role: Role, texts: Sequence[str], timeout: float) -> Vector | None:
    """Vectors of texts, float16 (n, d); None if the model is not available in time."""
    try:
        result = await role.call("texts", {"texts": list(texts)}, deadline_in_s=timeout)
    except StreamsvcError as error:
        log.warning("searching by words alone", reason=error.code)
        return None
    vectors: Vector = np.asarray(result["vectors"], dtype=np.float16)
    return vectors


def _rank(
    documents: Sequence[Evidence],
    pictures: Sequence[Picture],
    vectors: Mapping[str, Vector],
    query: _Query,
) -> list[Hit]:
    """Rank documents, of which the last are the pictures; `vectors` are those of texts."""
    similarity = deviations = None
    if query.vector is not None:
        similarity = np.full(len(documents), np.nan, np.float32)
        known = [n for n, document in enumerate(documents) if document.quote in vectors]
        if known:
            similarity[known] = _products([vectors[documents[n].quote] for n in known], query.vector)
    if pictures:
        deviations = np.full(len(documents), np.nan, np.float32)
        deviations[-len(pictures) :] = 0.0
        if query.picture_vector is not None:
            deviations[-len(pictures) :] = _products([vector for _, vector in pictures], query.picture_vector)
    return ranking.search(documents, query.text, similarity, query.limit, deviations)


def _products(vectors: Sequence[Vector], query: Vector) -> NDArray[np.float32]:
    products: NDArray[np.float32] = np.stack(vectors).astype(np.float32) @ query.astype(np.float32)
    return products
