"""Retrieval in one session: passages for a question, hits of a search.

Words (BM25) and sentence vectors each propose passages; a cross-encoder reads the question with the best of
both and ranks them. What is not ready in time is left out, so the result gets poorer and never late: without
the cross-encoder it is in the order of both proposals, without vectors by words alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.types import Evidence
from streamsvc.timeline import ranking
from streamsvc.timeline.passages import Passage, distinct, limited, margin, screen_passages, spoken_passages
from streamsvc.timeline.ranking import Hit, WordIndex
from streamsvc.timeline.text import terms
from streamsvc.timeline.text_vectors import TextVectors, Vector, embedded
from streamsvc.timeline.timeline import Timeline

log = structlog.get_logger()
MAX_WAIT = 1.0  # seconds that a search waits for vectors
# Chosen on the develop half of ../shared/questions (load_tests/retrieval.py); more of each changed nothing.
PROPOSED = 10  # passages by words, and as many by vectors
MAX_PAIRS = 16  # passages that the cross-encoder reads, 10 to 20 ms each
RECENT = 2.0  # added to the score of what was over just now, for the order alone: questions follow the stream
RECENT_SECONDS = 60.0  # within which that falls to a third
CHUNK = 4  # pairs a call, so that a deadline cuts between them
VECTOR_SHARE = 0.3  # of a question's time, for texts that no idle time has embedded yet
GONE_THROUGH = 400  # passages a second by `settle`, 6 ms of a core
WARM_TIMEOUT = 10.0  # seconds; the first call loads the cross-encoder
# Prompts of a vision-text model; a query's vector is their mean.
PICTURE_PROMPTS = ("{}", "a photo of {}.")
NO_SCORE = -math.inf

Picture = tuple[Evidence, Vector]  # with `Sight.clip`
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Query:
    """A query of a search with its vectors, None where not known; `picture_vector`: of a vision model."""

    text: str
    limit: int
    vector: Vector | None
    picture_vector: Vector | None


class Index:
    """Search index of one session.

    Args:
        timeline: what is searched.
        embed: role with the ops "texts" and "rank"; None: by words alone.
        see: role whose op "texts" is of a vision-text model; None: pictures are found by their labels.
        tape: of the session.
    """

    def __init__(
        self, timeline: Timeline, embed: Role | None = None, see: Role | None = None, tape: Tape = LIVE
    ) -> None:
        self._timeline = timeline
        self._tape = tape
        self._embed = embed
        self._see = see
        self._vectors = TextVectors(embed)
        self._words: tuple[list[str], WordIndex] = ([], WordIndex([]))  # of these texts
        self._warm = False  # whether the cross-encoder has been loaded
        self._embedding: asyncio.Task[None] | None = None
        self._known = 0  # passages, at the last `settle`

    # --- passages for a question ---

    async def passages(
        self,
        query: str,
        *,
        limit: int = 3,
        seconds: float = 1.0,
        until: float | None = None,
        span: Span | None = None,
        before: str = "",
    ) -> list[Passage]:
        """The passages that answer a question best, none of which overlap. Never fails for want of a model.

        Args:
            query: the question.
            limit: passages at most.
            seconds: the time it may take; about 0.5 s lets the cross-encoder read all of `MAX_PAIRS`.
            until: session second of the question; what was not over by then is left out. None: now.
            span: (start, end) in session seconds that a passage must overlap.
            before: the asker's question before, where this one follows it up.
        """
        deadline = clock.now() + seconds
        await self._tape.point("passages")
        known = await self._documents()
        found = limited(known, until, span)
        asked = f"{before} {query}".strip()
        if not found or not query.strip():
            return []
        self._vectors.want("passages", [passage.text for passage in known])
        candidates = await self._candidates(found, asked, seconds)
        scores = await self._scores(asked, candidates, deadline)
        now = self._timeline.latest if until is None else until
        ranked = [replace(passage, score=score) for passage, score in zip(candidates, scores, strict=False)]
        ranked.sort(key=lambda passage: -passage.score - _recency(passage, now))
        best = distinct(ranked or [replace(each, score=NO_SCORE) for each in candidates], limit)
        if before and ranked:
            own = await self._scores(query, best, max(deadline, clock.now() + 0.1))
            best = [
                replace(passage, own=own[n] if n < len(own) else NO_SCORE) for n, passage in enumerate(best)
            ]
        return [self._with_frames(replace(passage, margin=margin(passage, ranked))) for passage in best]

    async def rank(self, query: str, texts: Sequence[str], seconds: float) -> list[float] | None:
        """The cross-encoder's score of each text for a query, logits; None if it is not there in time."""
        scores = await self._scores(query, [_text_only(text) for text in texts], clock.now() + seconds)
        return scores if len(scores) == len(texts) else None

    async def settle(self) -> int:
        """Embed a few texts that came in since, in idle time (up to 0.1 s); how many are left.

        The caller calls again while some are left and nobody asks.
        """
        if self._embed is None:
            return 0
        latest = self._timeline.sentences[-1:]
        unfinished = latest[0].end if latest else -1.0
        known = await self._documents()
        self._known = len(known)
        settled = [each for each in known if each.kind != "speech" or each.end < unfinished]
        self._vectors.want("passages", [passage.text for passage in settled])
        left = await self._vectors.embed_some() or await self._vectors.embed_chance()
        if not left and not self._warm and settled:
            self._warm = bool(await self._scores("", [_text_only("")], clock.now() + WARM_TIMEOUT))
        return left

    @property
    def pause(self) -> float:
        """Seconds before the next `settle`, once none is left: the longer, the more it goes through."""
        return self._known / GONE_THROUGH

    async def _documents(self) -> list[Passage]:
        """The passages of all that is known, speech by time, then screens by time."""
        timeline = self._timeline
        talks, folded_until, latest = timeline.talks, timeline.folded_until, timeline.latest
        screens, tracks = list(timeline.screens), timeline.text_tracks.all()

        def build() -> list[Passage]:
            said = [[sentence.evidence() for sentence in talk] for talk in talks]
            return spoken_passages(said, folded_until) + screen_passages(screens, tracks, latest)

        return await asyncio.to_thread(build)  # hours of speech take 0.1 s

    async def _candidates(self, found: Sequence[Passage], query: str, seconds: float) -> list[Passage]:
        """What words and vectors propose, in the order of both together."""
        texts = [passage.text for passage in found]
        by_words = asyncio.to_thread(self._by_words, texts, query)
        proposed, vector = await asyncio.gather(by_words, self._vectors.query(query, seconds * VECTOR_SHARE))
        rankings = [proposed]
        if vector is not None:
            await self._vectors.embed_for(seconds * VECTOR_SHARE)
            similarity = await asyncio.to_thread(self._vectors.similarity, texts, vector)
            rankings.append(ranking.best(similarity, PROPOSED))
        return [found[n] for n in ranking.fused(*rankings)[:MAX_PAIRS]]

    def _by_words(self, texts: list[str], query: str) -> list[int]:
        known, index = self._words
        if known != texts:  # another question's thread may do the same
            index = WordIndex(texts)
            self._words = (texts, index)
        return ranking.best(index.scores(list(dict.fromkeys(terms(query)))), PROPOSED)

    async def _scores(self, query: str, passages: Sequence[Passage], deadline: float) -> list[float]:
        """Scores of as many of the first passages as there is time for."""
        scores: list[float] = []
        while self._embed is not None and len(scores) < len(passages) and clock.now() < deadline:
            texts = [passage.text for passage in passages[len(scores) : len(scores) + CHUNK]]
            try:
                result = await self._embed.call(
                    "rank", {"query": query, "texts": texts}, deadline_in_s=deadline - clock.now()
                )
            except StreamsvcError as error:
                log.info("passages are not ranked to the end", reason=error.code, ranked=len(scores))
                break
            scores += [float(score) for score in result["scores"]]
        return scores

    def _with_frames(self, passage: Passage) -> Passage:
        """The passage with the keyframe shown at the start of each sentence."""
        shown = [self._timeline.at(part.start) if part.frame is None else None for part in passage.parts]
        parts = tuple(
            part if picture is None else replace(part, frame=picture.start)
            for part, picture in zip(passage.parts, shown, strict=True)
        )
        return replace(passage, parts=parts)

    # --- hits of a search ---

    async def search(self, query: str, limit: int, spawn: Spawn, *, with_pictures: bool = False) -> list[Hit]:
        """The lines and pictures that match a query, best first. Never fails for want of a model.

        Args:
            query: plain words; without a content word there is no hit.
            limit: hits at most.
            spawn: starts the embedding of what has no vector yet, and cancels it when the service ends.
            with_pictures: search pictures by their vectors too; each replaces the line with its labels.
        """
        pictures = self._timeline.pictures() if with_pictures else []
        lines = self._timeline.lines()
        frames = {picture.frame for picture, _ in pictures}
        documents = ranking.documents(
            line for line in lines if line.kind != "sight" or line.frame not in frames
        )
        documents += [picture for picture, _ in pictures]
        if not documents or not terms(query):
            return []
        texts = [document.quote for document in documents if document.quote]
        vector, picture_vector = await asyncio.gather(
            self._text_vector(texts, query, spawn), self._picture_vector(query, pictures)
        )
        # On a thread: hours of speech take a tenth of a second.
        with_vectors = _Query(query, limit, vector, picture_vector)
        return await asyncio.to_thread(_hits, documents, pictures, self._vectors, with_vectors)

    async def _text_vector(self, texts: Sequence[str], query: str, spawn: Spawn) -> Vector | None:
        """The query's vector. Meanwhile the texts are embedded, as many as `MAX_WAIT` allows."""
        if self._embed is None or not texts:
            return None
        deadline = clock.now() + MAX_WAIT
        self._vectors.want("search", texts)
        is_whole = not self._vectors.missing and self._vectors.chance is not None
        if not is_whole and (self._embedding is None or self._embedding.done()):
            self._embedding = spawn(self._embed_missing())
        vector = await self._vectors.query(query, MAX_WAIT)
        if vector is not None and self._embedding is not None:
            await asyncio.wait({self._embedding}, timeout=max(0.0, deadline - clock.now()))
        return vector

    async def _embed_missing(self) -> None:
        while await self._vectors.embed_some() or await self._vectors.embed_chance():
            pass

    async def _picture_vector(self, query: str, pictures: Sequence[Picture]) -> Vector | None:
        if self._see is None or not pictures:
            return None
        prompts = [prompt.format(query) for prompt in PICTURE_PROMPTS]
        vectors = await embedded(self._see, prompts, MAX_WAIT, "query")
        return None if vectors is None else vectors.mean(axis=0)


def _recency(passage: Passage, now: float) -> float:
    """What is added to a passage's score for its place in the order."""
    return RECENT * math.exp(-max(0.0, now - passage.end) / RECENT_SECONDS)


def _text_only(text: str) -> Passage:
    return Passage((Evidence(0.0, 0.0, "speech", text),))


def _hits(
    documents: Sequence[Evidence], pictures: Sequence[Picture], vectors: TextVectors, query: _Query
) -> list[Hit]:
    """Rank documents, of which the last are the pictures."""
    similarity = deviations = None
    if query.vector is not None:
        quotes = [document.quote for document in documents]
        similarity = vectors.similarity(quotes, query.vector)
        if (chance := vectors.chance) is not None:
            to_any = vectors.similarity(quotes, chance.mean)
            similarity = ranking.above_chance(similarity, to_any, chance.excess(query.vector))
    if pictures:
        deviations = np.full(len(documents), np.nan, np.float32)
        deviations[-len(pictures) :] = 0.0
        if query.picture_vector is not None:
            deviations[-len(pictures) :] = _products([vector for _, vector in pictures], query.picture_vector)
    return ranking.search(documents, query.text, similarity, query.limit, deviations)


def _products(vectors: Sequence[Vector], query: Vector) -> NDArray[np.float32]:
    products: NDArray[np.float32] = np.stack(vectors).astype(np.float32) @ query.astype(np.float32)
    return products
