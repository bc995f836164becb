"""The language model that sees, for one session: keyframes are encoded before anybody asks, and it is asked what no rule answers.

    eye -> pictures -> encode -> the engine's names of them --\
    question -> what has been told so far (fusion.py) --> generate -> clause by clause -> reason.answer

Its failure or lateness costs its words alone: whoever asks falls back on what the rules say.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import structlog

from streamsvc.answers.grounding import TOKENS, AnswerFilter, Clause
from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.visual_questions import Way
from streamsvc.core import clock, metrics
from streamsvc.core.config import Settings
from streamsvc.core.errors import DeadlineMissed, InvalidRequest, StreamsvcError
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence, Question
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.vlm_context import Item, Told, grown, sights

log = structlog.get_logger()
Picture = tuple[float, bytes]  # a keyframe: session seconds, JPEG

LEAST_SECONDS = 0.4  # before the deadline: with less left the model is not asked
ENCODE_SECONDS = 10.0  # for one picture; one that fails is tried again until a newer one waits,
TRIES = 12  # ... and at most so often: together longer than a worker may take to load its model
PAUSE = 1.0  # seconds between tries
WAIT = 0.3  # seconds that a question waits for pictures, in all
AHEAD = 64  # pictures that wait where the source can wait (a file read as fast as possible); else the newest alone
KEPT = 256  # names of pictures
READ_EVERY, READ_SECONDS = 2.0, 2.0  # seconds between readings ahead, at least, and for one
_ADAPTER = re.compile(r"[A-Za-z0-9_-]{1,64}")
SENT = "the picture that came with the question"
_HINTS: dict[Way, str] = {
    "look": "Asked at second {now:.1f}. Answer in one short sentence what the pictures show.",
    "text": "Answer in one short sentence, in the words that were said or written.",
}


def check_adapter(name: str | None, settings: Settings) -> None:
    """Raises InvalidRequest: the model that sees has no adapter of this name ("no_adapter"); None is the model as it is."""
    if name is None:
        return
    if settings.models.profile != "gpu":
        raise InvalidRequest(
            f"the profile {settings.models.profile} has no adapters: they are of the profile gpu",
            code="no_adapter",
        )
    found = (settings.models.dir / "models" / "adapters").glob(
        "*/adapter_model.safetensors"
    )  # where engines/vlm.py looks
    known = sorted(path.parent.name for path in found if _ADAPTER.fullmatch(path.parent.name))
    if name not in known:
        raise InvalidRequest(
            f"there is no adapter {name[:64]!r}; there are: {', '.join(known) or 'none'}", code="no_adapter"
        )


class VlmSession:
    """What a session shows and asks the model.

    Args:
        session: its id.
        think: the role with the ops `encode`, `extend` and `generate` (engines/vlm.py).
        timeline: all that is known.
        lossless: the source can wait: more pictures wait for the model.
        reads: the engine keeps what it has read, so it reads ahead of questions.
        adapter: of the model, by name; None: as it is.

    `pictures`: where keyframes are put; a newer one takes the place of one that waits, which is counted as dropped.
    """

    def __init__(
        self,
        session: str,
        think: Role,
        timeline: Timeline,
        *,
        lossless: bool = False,
        reads: bool = False,
        adapter: str | None = None,
    ) -> None:
        dropped = metrics.frames.labels("dropped_picture")
        self.pictures: Ring[Picture] = Ring(AHEAD if lossless else 1, lambda picture: dropped.inc())
        self._session, self._think, self._timeline, self._reads = session, think, timeline, reads
        self._by = {"adapter": adapter} if adapter else {}
        self._names: dict[float, str] = {}  # of the pictures that the engine has seen, by session second
        self._newest: bytes | None = None  # the picture of the last name
        self._told = Told()
        self._turn = (
            asyncio.Lock()
        )  # one question at a time: there is one window, and one memory of it in the engine
        self._idle = asyncio.Event()  # no picture is being encoded
        self._idle.set()
        self._next = 0.0  # monotonic seconds at which it may read ahead again

    # --- pictures ---

    async def encode(self) -> None:
        """Keyframes through the model's eye, until `pictures` is closed and empty; one that fails costs itself alone."""
        async for batch in self.pictures.batches(1):
            at, jpeg = batch[0]
            self._idle.clear()
            try:
                self._names[at] = await self.encoded(jpeg, self.pictures)
            except StreamsvcError as error:
                metrics.deadline_missed.labels("encode", "skipped").inc()
                log.warning(
                    "keyframe not shown to the language model", session=self._session, reason=error.code
                )
                if (
                    self.pictures.closed
                ):  # the stream has ended, and the model is away: nobody waits for it picture by picture
                    metrics.deadline_missed.labels("encode", "skipped").inc(len(self.pictures))
                    break
            else:
                self._newest = jpeg
                while len(self._names) > KEPT:
                    del self._names[next(iter(self._names))]
            if not len(self.pictures):
                self._idle.set()
                await self._read_ahead(at)
        self._idle.set()

    async def encoded(self, jpeg: bytes, newer: Ring[Any]) -> str:
        """The engine's name of a picture; one that fails is tried again until a newer one waits.

        Raises:
            StreamsvcError: the engine's last failure.
        """
        for _ in range(TRIES - 1):
            try:
                return await self._encode(jpeg, ENCODE_SECONDS)
            except StreamsvcError as error:
                if not error.retryable or len(newer) or newer.closed:
                    raise
                await clock.sleep(PAUSE)
        return await self._encode(jpeg, ENCODE_SECONDS)

    async def _encode(self, jpeg: bytes, seconds: float) -> str:
        payload = {"jpeg": np.frombuffer(jpeg, dtype=np.uint8)}
        return str(
            (await self._think.call("encode", payload, deadline_in_s=seconds, affinity=self._session))[
                "picture"
            ]
        )

    async def _read_ahead(self, at: float) -> None:
        """Let the engine read what is known, while nobody asks: all but the picture of second `at`, what is in it may not be known yet."""
        if not self._reads or self._turn.locked() or clock.now() < self._next:
            return
        self._next = clock.now() + READ_EVERY
        async with self._turn:
            told = grown(
                self._told,
                self._timeline,
                {when: name for when, name in self._names.items() if when < at},
                at,
            )
            if told is self._told:
                return
            self._told = told
            payload = {"session": self._session, "items": told.payload("look"), **self._by}
            with contextlib.suppress(StreamsvcError):  # then it is read with the next question
                await self._think.call("extend", payload, deadline_in_s=READ_SECONDS, affinity=self._session)

    # --- what nobody waits for ---

    def aside(
        self, items: Sequence[Item], question: str, tokens: int, seconds: float
    ) -> AsyncIterator[dict[str, Any]]:
        """The engine's pieces of an answer that nobody waits for, of these items alone: it takes no room for it that questions need.

        Raises:
            StreamsvcError: it fails, or is late.
        """
        told = {
            "session": f"{self._session} aside",
            "items": [item.payload() for item in items],
            "aside": True,
        }
        asked = {**told, "question": question, "max_tokens": tokens, **self._by}
        return self._think.stream("generate", asked, deadline_in_s=seconds, affinity=self._session)

    # --- questions ---

    async def clauses(self, question: Question, way: Way, *, words: int) -> AsyncGenerator[Clause, None]:
        """What the model says to a question, as far as it may be shown, clause by clause.

        There is none where the model fails, is late, was shown no picture for a question about pictures, or does not know.

        Args:
            question: with an `image` (a JPEG), it is about that image alone.
            way: of what it is asked (fusion.way).
            words: at most, in all.
        """
        try:
            async with asyncio.timeout_at(question.deadline - LEAST_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            metrics.deadline_missed.labels("answer", "not_looked").inc()
            return
        try:
            if question.deadline - clock.now() < LEAST_SECONDS:
                metrics.deadline_missed.labels("answer", "not_looked").inc()
                return
            payload, telling = await self._asked(question, way, words)
            if payload["items"]:
                async with aclosing(self._heard(payload, telling, _left(question))) as clauses:
                    async for clause in clauses:
                        yield clause
        except StreamsvcError as error:
            metrics.deadline_missed.labels(
                "answer", "cut" if isinstance(error, DeadlineMissed) else "failed"
            ).inc()
            log.warning("the model that sees did not answer", session=self._session, reason=error.code)
        finally:
            self._turn.release()

    async def _asked(self, question: Question, way: Way, words: int) -> tuple[dict[str, Any], AnswerFilter]:
        """What the engine is asked, and what may be shown of its answer."""
        now, ask = max(question.asked, 0.0), parse(question.text)
        asked: dict[str, Any] = {
            "question": f"({_HINTS[way].format(now=now)}) {question.text}",
            "max_tokens": TOKENS,
            **self._by,
        }
        if question.image is not None:  # under a name of its own, for it is no part of what the session shows
            item = Item(now, now, "picture", SENT, await self._encode(question.image, _left(question)))
            sent = (Evidence(now, now, "image", SENT),)
            told = {"session": f"{self._session} {question.id}", "items": [item.payload()]}
            return told | asked, AnswerFilter(way, ask, (item,), lambda shown: sent if shown else (), words)
        if way == "look":
            await self._refreshed(question)
        self._told = grown(self._told, self._timeline, self._names, now)
        items = self._told.items
        name = (
            self._session if way == "look" else f"{self._session} text"
        )  # what one is told is all that it is ever told
        told = {"session": name, "items": self._told.payload(way) if way == "text" or self._names else []}
        return told | asked, AnswerFilter(
            way, ask, items, lambda shown: sights(shown, items, self._timeline), words
        )

    async def _refreshed(self, question: Question) -> None:
        """Wait a little for a keyframe on its way, and see to it that the engine has the newest: it may have died since."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(
                min(clock.now() + WAIT - question.waited, question.deadline - LEAST_SECONDS)
            ):
                await self._idle.wait()
        if self._newest is not None:
            await self._encode(self._newest, _left(question))

    async def _heard(
        self, payload: dict[str, Any], telling: AnswerFilter, seconds: float
    ) -> AsyncGenerator[Clause, None]:
        pieces = self._think.stream("generate", payload, deadline_in_s=seconds, affinity=self._session)
        failure: StreamsvcError | None = None
        try:
            async with aclosing(pieces) as stream:  # type: ignore[type-var]
                async for piece in stream:
                    for clause in telling.take(piece):
                        yield clause
                    if telling.over:
                        return
        except StreamsvcError as error:
            failure = error
        for clause in telling.rest(whole=failure is None):
            yield clause
        if failure is not None:
            raise failure


def _left(question: Question) -> float:
    """Seconds for the model: what it says must still be published."""
    return question.deadline - clock.now() - 0.1
