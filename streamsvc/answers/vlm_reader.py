"""Answers of the vision language model, clause by clause, as far as they may be shown.

There is no clause where the model fails, is late, saw no picture for a question about pictures, or does not
know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from streamsvc.answers.deadline import KEYFRAME_WAIT
from streamsvc.answers.grounding import MAX_TOKENS, AnswerFilter, Clause, Shown
from streamsvc.answers.rules.parse import ParsedQuestion
from streamsvc.answers.rules.visual_questions import Target
from streamsvc.core import clock, metrics
from streamsvc.core.errors import DeadlineMissed, StreamsvcError
from streamsvc.core.types import Evidence, Question
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.window import Line, Window, extended
from streamsvc.vision.vlm import Prompt, VlmSession, cited_pictures

log = structlog.get_logger()
MIN_SECONDS = 0.4  # before the deadline: with less left the model is not asked
PUBLISH_SECONDS = 0.1  # kept back from the deadline: what the model says must still be published
ATTACHMENT = "the picture that came with the question"
_HINTS: dict[Target, str] = {
    "look": "Asked at second {now:.1f}. Answer in one short sentence what the pictures show.",
    "text": "Answer in one short sentence, in the words that were said or written.",
}


class VlmReader:
    """Asks the vision language model the questions of one session, one at a time.

    Args:
        session: its id.
        vlm: the model.
        timeline: what is known.
    """

    def __init__(self, session: str, vlm: VlmSession, timeline: Timeline) -> None:
        self._session = session
        self._vlm = vlm
        self._timeline = timeline
        self._window = Window()

    async def clauses(
        self, parsed: ParsedQuestion, way: Target, max_words: int
    ) -> AsyncGenerator[Clause, None]:
        """Stream the clauses of an answer that may be shown.

        Args:
            parsed: the question; with an `image` (a JPEG), it is about that image alone.
            way: whether the pictures or the words are asked (visual_questions.way).
            max_words: of all clauses together.
        """
        question = parsed.question
        if not await self._turn(question.deadline - MIN_SECONDS):
            metrics.deadline_missed.labels("answer", "not_looked").inc()
            return
        try:
            prompt, shown = await self._prompt(parsed, way)
            if prompt.items:
                async with aclosing(
                    self._generated(prompt, question, AnswerFilter(shown, max_words))
                ) as clauses:
                    async for clause in clauses:
                        yield clause
        except StreamsvcError as error:
            action = "cut" if isinstance(error, DeadlineMissed) else "failed"
            metrics.deadline_missed.labels("answer", action).inc()
            log.warning("the VLM did not answer", session=self._session, reason=error.code)
        finally:
            self._vlm.turn.release()

    async def _turn(self, latest: float) -> bool:
        """Acquire the model's context until monotonic second `latest`; False: there is no time left."""
        try:
            async with asyncio.timeout_at(latest):
                await self._vlm.turn.acquire()
        except TimeoutError:
            return False
        if clock.now() > latest:
            self._vlm.turn.release()
            return False
        return True

    async def _prompt(self, parsed: ParsedQuestion, way: Target) -> tuple[Prompt, Shown]:
        """What the model is to be shown and asked. Raises StreamsvcError: a picture cannot be encoded."""
        question = parsed.question
        now = max(question.asked, 0.0)
        text = f"({_HINTS[way].format(now=now)}) {question.text}"
        if question.image is not None:
            # Under a cache key of its own, for it is no part of what the session shows.
            key = await self._vlm.encode(question.image, _seconds_left(question))
            item = Line(1, now, now, "picture", ATTACHMENT, None, key)
            evidence = (Evidence(now, now, "image", ATTACHMENT),)
            prompt = Prompt(f"{self._session} {question.id}", [item.payload()], text, MAX_TOKENS)
            return prompt, Shown(way, parsed.ask, (item,), lambda shown: evidence if shown else ())
        if way == "look":
            idle_by = min(clock.now() + KEYFRAME_WAIT - question.waited, question.deadline - MIN_SECONDS)
            await self._vlm.refresh(idle_by, question.deadline - PUBLISH_SECONDS)
        pictures = self._vlm.keys
        self._window = extended(self._window, self._timeline, now, len, pictures)
        usable = way == "text" or self._vlm.has_pictures
        # Contexts with and without pictures are cached apart: what a cache key has been shown is all that it
        # is ever shown.
        cache_key = self._session if way == "look" else f"{self._session} text"
        lines = [line for line in self._window.lines if way == "look" or line.kind != "picture"]
        payload = [line.payload() for line in lines] if usable else []
        prompt = Prompt(cache_key, payload, text, MAX_TOKENS)
        return prompt, Shown(
            way, parsed.ask, lines, lambda shown: cited_pictures(shown, lines, self._timeline)
        )

    async def _generated(
        self, prompt: Prompt, question: Question, answer: AnswerFilter
    ) -> AsyncGenerator[Clause, None]:
        pieces = self._vlm.generate(prompt, _seconds_left(question))
        failure: StreamsvcError | None = None
        try:
            async with aclosing(pieces) as stream:  # type: ignore[type-var]
                async for piece in stream:
                    for clause in answer.take(piece):
                        yield clause
                    if answer.over:
                        return
        except StreamsvcError as error:
            failure = error
        for clause in answer.rest(complete=failure is None):
            yield clause
        if failure is not None:
            raise failure


def _seconds_left(question: Question) -> float:
    return question.deadline - clock.now() - PUBLISH_SECONDS
