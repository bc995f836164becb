"""The language model that sees, for one session: keyframes are encoded before anybody asks, and it is asked what no rule answers.

    eye -> pictures -> encode -> the engine's names of them --\
    question -> what has been told so far (fusion.py) --> generate -> clause by clause -> reason.answer

Its failure or lateness costs its words alone: whoever asks falls back on what the rules say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from streamsvc import clock, metrics
from streamsvc.context import Timeline
from streamsvc.errors import DeadlineMissed, StreamsvcError
from streamsvc.fusion import Told, Way, clean, declined, ended, grown, of_words, sights, stands
from streamsvc.mailbox import Ring
from streamsvc.questions import Ask
from streamsvc.types import Evidence
from streamsvc.worker import Role

log = structlog.get_logger()
Picture = tuple[float, bytes]  # a keyframe: session seconds, JPEG

LEAST_SECONDS = 0.4  # before the deadline: with less left the model is not asked
ENCODE_SECONDS = 10.0  # for one picture; one that fails is tried again until a newer one waits,
TRIES = 12  # ... and at most so often: together longer than a worker may take to load its model
PAUSE = 1.0  # seconds between tries
WAIT = 0.3  # seconds that a question waits for a keyframe on its way
AHEAD = 64  # pictures that wait where the source can wait (a file read as fast as possible); else the newest alone
KEPT = 256  # names of pictures
TOKENS = 64  # of an answer: 40 words are about 55
_HINTS: dict[Way, str] = {
    "look": "Asked at second {now:.1f}. Answer in one short sentence what the pictures show.",
    "text": "Answer in one short sentence, in the words that were said or written.",
}


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of an answer that may be shown, and what it stands on: keyframes that the model saw, or words that were said or written."""

    text: str
    evidence: tuple[Evidence, ...]


class Seer:
    """What a session shows and asks the model.

    Args:
        session: its id.
        think: the role with the ops `encode` and `generate` (engines/vlm.py).
        lossless: the source can wait: more pictures wait for the model.

    `pictures`: where keyframes are put; a newer one takes the place of one that waits, which is counted as dropped.
    """

    def __init__(self, session: str, think: Role, *, lossless: bool = False) -> None:
        dropped = metrics.frames.labels("dropped_picture")
        self.pictures: Ring[Picture] = Ring(AHEAD if lossless else 1, lambda picture: dropped.inc())
        self._session, self._think = session, think
        self._names: dict[float, str] = {}  # of the pictures that the engine has seen, by session second
        self._newest: bytes | None = None  # the picture of the last name
        self._told = Told()
        self._turn = asyncio.Lock()  # one question at a time: there is one window, and one memory of it in the engine
        self._idle = asyncio.Event()  # no picture is being encoded
        self._idle.set()

    # --- pictures ---

    async def encode(self) -> None:
        """Keyframes through the model's eye, until `pictures` is closed and empty; one that fails costs itself alone."""
        async for batch in self.pictures.batches(1):
            at, jpeg = batch[0]
            self._idle.clear()
            try:
                self._names[at] = await self._encoded(jpeg)
            except StreamsvcError as error:
                metrics.deadline_missed.labels("encode", "skipped").inc()
                log.warning("keyframe not shown to the language model", session=self._session, reason=error.code)
                if self.pictures.closed:  # the stream has ended, and the model is away: nobody waits for it picture by picture
                    metrics.deadline_missed.labels("encode", "skipped").inc(len(self.pictures))
                    break
            else:
                self._newest = jpeg
                while len(self._names) > KEPT:
                    del self._names[next(iter(self._names))]
            if not len(self.pictures):
                self._idle.set()
        self._idle.set()

    async def _encoded(self, jpeg: bytes) -> str:
        for _ in range(TRIES - 1):
            try:
                return await self._encode(jpeg, ENCODE_SECONDS)
            except StreamsvcError as error:
                if not error.retryable or len(self.pictures) or self.pictures.closed:
                    raise
                await clock.sleep(PAUSE)
        return await self._encode(jpeg, ENCODE_SECONDS)

    async def _encode(self, jpeg: bytes, seconds: float) -> str:
        payload = {"jpeg": np.frombuffer(jpeg, dtype=np.uint8)}
        return str((await self._think.call("encode", payload, deadline_in_s=seconds, affinity=self._session))["picture"])

    # --- questions ---

    async def clauses(
        self, question: str, ask: Ask, way: Way, timeline: Timeline, now: float, *, deadline: float, words: int
    ) -> AsyncGenerator[Clause, None]:
        """What the model says to a question, as far as it may be shown, clause by clause.

        There is none where the model fails, is late, was shown no picture for a question about pictures, or does not know.

        Args:
            question: as typed.
            ask: the same, taken apart.
            way: of what it is asked (fusion.way).
            timeline: all that is known.
            now: session seconds at which it was asked.
            deadline: monotonic seconds.
            words: at most, in all.
        """
        try:
            async with asyncio.timeout_at(deadline - LEAST_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            metrics.deadline_missed.labels("answer", "not_looked").inc()
            return
        try:
            if way == "look":
                await self._refreshed(deadline)
            self._told = grown(self._told, timeline, self._names, now)
            hint = _HINTS[way].format(now=now)
            name = self._session if way == "look" else f"{self._session} text"  # each keeps what it was told
            payload = {"session": name, "items": self._told.payload(way), "question": f"({hint}) {question}", "max_tokens": TOKENS}
            if payload["items"] and (way == "text" or self._names):
                telling = _Telling(way, ask, self._told, timeline, words)
                async with aclosing(self._heard(payload, telling, deadline)) as clauses:
                    async for clause in clauses:
                        yield clause
        except StreamsvcError as error:
            late = isinstance(error, DeadlineMissed)
            metrics.deadline_missed.labels("answer", "cut" if late else "failed").inc()
            log.warning("the model that sees did not answer", session=self._session, reason=error.code)
        finally:
            self._turn.release()

    async def _refreshed(self, deadline: float) -> None:
        """Wait a little for a keyframe on its way, and see to it that the engine still has the newest: it may have died since."""
        try:
            async with asyncio.timeout(min(WAIT, max(0.0, deadline - LEAST_SECONDS - clock.now()))):
                await self._idle.wait()
        except TimeoutError:
            pass
        if self._newest is not None:
            await self._encode(self._newest, deadline - clock.now() - 0.1)

    async def _heard(self, payload: dict[str, Any], telling: _Telling, deadline: float) -> AsyncGenerator[Clause, None]:
        pieces = self._think.stream("generate", payload, deadline_in_s=deadline - clock.now() - 0.1, affinity=self._session)
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


class _Telling:
    """What may be shown of one answer as it grows.

    `over`: nothing more of it may.
    """

    def __init__(self, way: Way, ask: Ask, told: Told, timeline: Timeline, words: int) -> None:
        self.over = False
        self._way, self._ask, self._told, self._timeline, self._left = way, ask, told, timeline, words
        self._seen: tuple[Evidence, ...] = ()
        self._text = ""
        self._count = 0  # of pieces
        self._cut = False
        self._any = False  # something was told

    def take(self, piece: dict[str, Any]) -> list[Clause]:
        """The clauses that a piece completes."""
        if "shown" in piece:
            self._seen = sights(piece["shown"], self._told.items, self._timeline)
            if self._way == "look" and not self._seen:
                self.over = True
        self._cut = self._cut or bool(piece.get("cut"))
        self._text += str(piece.get("text", ""))
        self._count += bool(piece.get("text"))
        found: list[Clause] = []
        while not self.over and (end := ended(self._text.lstrip())):
            clause, self._text = self._text.lstrip()[:end], self._text.lstrip()[end:]
            found += self._checked(clean(clause))
        if not self.over and not self._any and len(self._text.split()) > self._left:
            found += self._begun()
        return found

    def rest(self, *, whole: bool) -> list[Clause]:
        """What is left at the end. `whole`: the model ended of itself, as far as is known."""
        if self.over:
            return []
        if whole and not self._cut and self._count < TOKENS:
            return self._checked(clean(self._text))
        return [] if self._any else self._begun()

    def _checked(self, clause: str) -> list[Clause]:
        """A clause, if it may be told; after one that may not, nothing more is."""
        words = len(clause.replace("-", " ").split())
        evidence = self._evidence(clause) if words <= self._left else ()
        if not evidence:
            self.over = bool(clause) or self.over
            return []
        self._left -= words
        self._any = True
        return [Clause(clause, evidence)]

    def _evidence(self, clause: str) -> tuple[Evidence, ...]:
        if not clause or declined(clause):
            return ()
        if self._way == "look" and not of_words(clause):
            return self._seen
        found = stands(clause, self._told.items, self._ask)
        return (found,) if found is not None else ()

    def _begun(self) -> list[Clause]:
        """The beginning of an answer that was cut off, or is too long, where nothing else could be told."""
        words = clean(self._text).split()[: self._left - 1]
        found = self._checked(" ".join([*words, "…"])) if self._way == "look" and len(words) > 2 else []
        self.over = True
        return found
