"""Search through one session: by words at once, and by meaning as far as the vectors of its documents are there.

The first search starts the embedding: who never searches pays nothing, and half an hour of talk takes about a second. Each later one has
embedded what came since. What a search cannot wait for is embedded after it, and until then found by its words alone. Pictures have got
their vectors when they were looked at, where there is a vision-text model: a search asks that for the query alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence
from streamsvc.timeline.ranking import Hit, passages, search
from streamsvc.timeline.text import terms

log = structlog.get_logger()
PATIENCE = 1.0  # seconds that a search waits for vectors
BATCH = 16  # texts of one call: another search's query waits for no longer than that, about 40 ms
BATCH_SECONDS = 10.0  # until a batch must have come; the first one loads the model
AS_A_PICTURE = (
    "{}",
    "a photo of {}.",
)  # how a query is put to a vision-text model; the mean of what these say counts

Picture = tuple[Evidence, NDArray[np.float16]]  # with Sight.clip
Vector = NDArray[np.float16]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Index:
    """The vectors of one session's documents: not more than it has documents, and only what can be made again.

    Args:
        embed: the role with the op "texts"; None: searches go by words alone.
        see: the role whose op "texts" is a vision-text model's; None: pictures are found by their labels.
    """

    def __init__(self, embed: Role | None = None, see: Role | None = None) -> None:
        self._embed, self._see = embed, see
        self._vectors: dict[str, Vector] = {}  # of each text, shape (d,), unit length
        self._missing: list[str] = []  # texts to be embedded, the newest first
        self._filling: asyncio.Task[None] | None = None

    async def search(
        self,
        lines: Iterable[Evidence],
        query: str,
        limit: int,
        spawn: Spawn,
        pictures: Sequence[Picture] = (),
    ) -> list[Hit]:
        """What fits a query, best first; without vectors (no model, no worker, no time) by words alone.

        Args:
            lines: of the session, by time.
            query: plain words; without a content word nothing is found.
            limit: how many hits at most.
            spawn: starts the task that embeds, and cancels it when the service ends.
            pictures: of the session, by time, those with a vector; each replaces the line that tells of it.
        """
        told = {picture.frame for picture, _ in pictures}
        documents = passages(line for line in lines if line.kind != "sight" or line.frame not in told)
        documents += [picture for picture, _ in pictures]
        if not documents or not terms(query):
            return []
        texts = [document.quote for document in documents if document.quote]
        asked, shown = await asyncio.gather(self._prepare(texts, query, spawn), self._shown(query, pictures))
        return await asyncio.to_thread(_found, documents, query, asked, self._vectors, limit, shown, pictures)

    async def _prepare(self, texts: Sequence[str], query: str, spawn: Spawn) -> Vector | None:
        """The query's vector; the texts' vectors are made meanwhile, as many as there is time for."""
        if self._embed is None or not texts:
            return None
        until = clock.now() + PATIENCE
        newest = dict.fromkeys(reversed(texts))
        self._vectors = {text: vector for text in newest if (vector := self._vectors.get(text)) is not None}
        self._missing = [text for text in newest if text not in self._vectors]
        if self._missing and (self._filling is None or self._filling.done()):
            self._filling = spawn(self._fill())
        asked = await _embedded(self._embed, [query], PATIENCE)
        if asked is None:
            return None
        if self._filling is not None:
            await asyncio.wait({self._filling}, timeout=max(0.0, until - clock.now()))
        first: Vector = asked[0]
        return first

    async def _shown(self, query: str, pictures: Sequence[Picture]) -> Vector | None:
        """The query's vector among pictures."""
        if self._see is None or not pictures:
            return None
        asked = await _embedded(self._see, [way.format(query) for way in AS_A_PICTURE], PATIENCE)
        return None if asked is None else asked.mean(axis=0)

    async def _fill(self) -> None:
        while self._embed is not None and (batch := self._missing[:BATCH]):
            vectors = await _embedded(self._embed, batch, BATCH_SECONDS)
            if vectors is None:
                return  # the next search tries again
            self._vectors.update(zip(batch, vectors, strict=True))
            self._missing = [text for text in self._missing if text not in self._vectors]


async def _embedded(role: Role, texts: Sequence[str], seconds: float) -> Vector | None:
    """float16 (n, d), or None where the model cannot be asked."""
    try:
        result = await role.call("texts", {"texts": list(texts)}, deadline_in_s=seconds)
    except StreamsvcError as error:
        log.warning("searching by words alone", reason=error.code)
        return None
    vectors: Vector = np.asarray(result["vectors"], dtype=np.float16)
    return vectors


def _found(
    documents: Sequence[Evidence],
    query: str,
    asked: Vector | None,
    vectors: Mapping[str, Vector],
    limit: int,
    shown: Vector | None,
    pictures: Sequence[Picture],
) -> list[Hit]:
    """Search, on a thread: of hours of talk it takes a tenth of a second. The pictures are the last documents."""
    likeness = standing = None
    if asked is not None:
        likeness = np.full(len(documents), np.nan, np.float32)
        known = [
            (place, vector)
            for place, document in enumerate(documents)
            if (vector := vectors.get(document.quote)) is not None
        ]
        if known:
            likeness[[place for place, _ in known]] = _products([vector for _, vector in known], asked)
    if pictures:
        standing = np.full(len(documents), np.nan, np.float32)
        standing[-len(pictures) :] = (
            0.0 if shown is None else _products([vector for _, vector in pictures], shown)
        )
    return search(documents, query, likeness, limit, standing)


def _products(vectors: Sequence[Vector], asked: Vector) -> NDArray[np.float32]:
    products: NDArray[np.float32] = np.stack(vectors).astype(np.float32) @ asked.astype(np.float32)
    return products
