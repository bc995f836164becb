"""Search through one session: by words at once, and by meaning as far as the vectors of its documents are there.

The first search starts the embedding: who never searches pays nothing, and half an hour of talk takes about a second. Each later one has
embedded what came since. What a search cannot wait for is embedded after it, and until then found by its words alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc import clock
from streamsvc.errors import StreamsvcError
from streamsvc.search import Hit, passages, search
from streamsvc.types import Evidence
from streamsvc.words import terms
from streamsvc.worker import Role

log = structlog.get_logger()
PATIENCE = 1.0  # seconds that a search waits for vectors
BATCH = 16  # texts of one call: another search's query waits for no longer than that, about 40 ms
BATCH_SECONDS = 10.0  # until a batch must have come; the first one loads the model

Vector = NDArray[np.float16]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Index:
    """The vectors of one session's documents: not more than it has documents, and only what can be made again.

    Args:
        embed: the role with the op "texts"; None: searches go by words alone.
    """

    def __init__(self, embed: Role | None = None) -> None:
        self._embed = embed
        self._vectors: dict[str, Vector] = {}  # of each text, shape (d,), unit length
        self._missing: list[str] = []  # texts to be embedded, the newest first
        self._filling: asyncio.Task[None] | None = None

    async def search(self, lines: Iterable[Evidence], query: str, limit: int, spawn: Spawn) -> list[Hit]:
        """What fits a query, best first; without vectors (no model, no worker, no time) by words alone.

        Args:
            lines: of the session, by time.
            query: plain words; without a content word nothing is found.
            limit: how many hits at most.
            spawn: starts the task that embeds, and cancels it when the service ends.
        """
        documents = passages(lines)
        asked = None
        if self._embed is not None and documents and terms(query):
            asked = await self._prepare([document.quote for document in documents], query, spawn)
        return await asyncio.to_thread(_found, documents, query, asked, self._vectors, limit)

    async def _prepare(self, texts: Sequence[str], query: str, spawn: Spawn) -> Vector | None:
        """The query's vector; the texts' vectors are made meanwhile, as many as there is time for."""
        until = clock.now() + PATIENCE
        newest = dict.fromkeys(reversed(texts))
        self._vectors = {text: vector for text in newest if (vector := self._vectors.get(text)) is not None}
        self._missing = [text for text in newest if text not in self._vectors]
        if self._missing and (self._filling is None or self._filling.done()):
            self._filling = spawn(self._fill())
        asked = await self._embedded([query], PATIENCE)
        if asked is None:
            return None
        if self._filling is not None:
            await asyncio.wait({self._filling}, timeout=max(0.0, until - clock.now()))
        first: Vector = asked[0]
        return first

    async def _fill(self) -> None:
        while batch := self._missing[:BATCH]:
            vectors = await self._embedded(batch, BATCH_SECONDS)
            if vectors is None:
                return  # the next search tries again
            self._vectors.update(zip(batch, vectors, strict=True))
            self._missing = [text for text in self._missing if text not in self._vectors]

    async def _embedded(self, texts: Sequence[str], seconds: float) -> Vector | None:
        """float16 (n, d), or None where the model cannot be asked."""
        assert self._embed is not None
        try:
            result = await self._embed.call("texts", {"texts": list(texts)}, deadline_in_s=seconds)
        except StreamsvcError as error:
            log.warning("searching by words alone", reason=error.code)
            return None
        vectors: Vector = np.asarray(result["vectors"], dtype=np.float16)
        return vectors


def _found(documents: Sequence[Evidence], query: str, asked: Vector | None, vectors: Mapping[str, Vector], limit: int) -> list[Hit]:
    """Search, on a thread: of hours of talk it takes a tenth of a second."""
    if asked is None:
        return search(documents, query, limit=limit)
    likeness = np.full(len(documents), np.nan, np.float32)
    known = [(place, vector) for place, document in enumerate(documents) if (vector := vectors.get(document.quote)) is not None]
    if known:
        likeness[[place for place, _ in known]] = np.stack([vector for _, vector in known]).astype(np.float32) @ asked.astype(np.float32)
    return search(documents, query, likeness, limit)
