"""Answering the questions of a session: queue, plan, answer, publish.

    question queue -> answerers -> plan -> rules and models -> dispatch

What cannot be answered in time is not begun, and says so; a failed answer costs itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Protocol

import structlog

from streamsvc.answers import deadline
from streamsvc.answers.answer import WINDOW_TOKENS, Answerer, Attachment, shaped
from streamsvc.answers.question_queue import QuestionQueue, QueuedQuestion, matching
from streamsvc.answers.rules import follow_ups
from streamsvc.answers.rules.parse import ParsedQuestion, parsed
from streamsvc.answers.vlm_reader import VlmReader
from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import Cancelled, DeadlineMissed, NotFound, StreamsvcError
from streamsvc.core.types import Answer, Delta
from streamsvc.core.units import Reply
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.still_image import analyse
from streamsvc.vision.vlm import VlmSession

log = structlog.get_logger()
_ANSWERERS = 2  # questions in work at once: one that waits for a model holds up no other


class LivePictures(Protocol):
    """The vision pipeline, as answering sees it."""

    @property
    def vlm(self) -> VlmSession | None:
        """The vision language model's side of the session, where the profile has one."""
        ...

    def request_keyframe(self) -> None:
        """Sample more pictures than usual for a while."""
        ...

    async def refresh(self, now: float, seconds: float) -> float:
        """Wait up to `seconds` for a picture of session second `now`.

        Returns the newest second with known contents.
        """
        ...


class Answering:
    """Answers the questions of one session.

    Args:
        context: of the session.
        timeline: what is known.
        pictures: the vision pipeline.

    `queue`: where questions are put.
    """

    def __init__(self, context: SessionContext, timeline: Timeline, pictures: LivePictures) -> None:
        self.queue = QuestionQueue(context)
        self._context = context
        self._pictures = pictures
        roles = context.roles
        vlm = VlmReader(context.session, pictures.vlm, timeline) if pictures.vlm is not None else None
        self._answerer = Answerer(
            timeline, context.settings.think, roles.think, vlm, roles.cost_tracker.record
        )
        self._memory = follow_ups.Memory()
        self._running: dict[QueuedQuestion, asyncio.Task[None]] = {}  # until their answer is complete

    def cancel(self, question_id: str, asker: str | None = None) -> None:
        """Cancel a question, whether it waits or is being answered; its `answer.done` says so.

        Args:
            question_id: of the question.
            asker: who asked it; None: anybody.

        Raises:
            NotFound: there is no such question, or it has been answered.
        """
        if (waiting := self.queue.cancel(question_id, asker)) is not None:
            self._reply(waiting, Cancelled("this question was cancelled"))
        elif (running := matching(self._running, question_id, asker)) is not None:
            self._running[running].cancel()
        else:
            raise NotFound("no such question waits or is being answered", code="no_question")

    async def run(self) -> None:
        """Answer questions until the queue is closed and empty."""
        async with asyncio.TaskGroup() as answerers:
            for _ in range(_ANSWERERS):
                answerers.create_task(self._answer_queued())

    async def _answer_queued(self) -> None:
        async for queued in self.queue.questions():
            task = self._running[queued] = asyncio.create_task(self._answer(queued))
            try:
                with self._context.roles.idle.question():
                    await task
            except asyncio.CancelledError:
                if (current := asyncio.current_task()) is not None and current.cancelling():
                    raise
                self._reply(queued, Cancelled("this question was cancelled"))
            except StreamsvcError as error:
                self._reply(queued, error)
            except Exception as error:  # whatever a question does to the rules, it costs its own answer alone
                log.error("question failed", session=self._context.session, error=type(error).__name__)
                self._reply(queued, StreamsvcError("this question could not be answered"))
            finally:
                self._running.pop(queued, None)

    async def _answer(self, queued: QueuedQuestion) -> None:
        """Answer one question. Raises StreamsvcError: there is no answer."""
        self._pictures.request_keyframe()
        question = await self._standalone(queued)
        plan = self._plan(question)
        if not plan.fits:
            metrics.deadline_missed.labels("answer", "not_started").inc()
            raise DeadlineMissed("this question's time had passed before it could be begun")
        attachment = await self._attachment(question)
        if plan.keyframe_wait:
            question = await self._refreshed(question, plan.keyframe_wait)
        first = True
        parts = shaped(question, self._answerer.answer(question, plan, attachment))
        async with contextlib.aclosing(parts):
            async for part in parts:
                if isinstance(part, Answer):
                    self._memory.note(queued.asker, question, part, clock.now())
                self._reply(queued, part, first=first)
                first = False

    async def _standalone(self, queued: QueuedQuestion) -> ParsedQuestion:
        """Parse a question, and resolve what it refers to.

        A follow-up waits for the answers to its asker's earlier questions.
        """
        question = parsed(queued.question)
        if queued.asker and follow_ups.refers(question.ask):
            tasks = [task for other, task in self._running.items() if other.asker == queued.asker]
            if earlier := tasks[: tasks.index(self._running[queued])]:
                await asyncio.wait(earlier, timeout=max(0.0, queued.question.deadline - clock.now()))
        return follow_ups.standalone(question, self._memory.before(queued.asker, clock.now()))

    def _plan(self, parsed: ParsedQuestion) -> deadline.Plan:
        """What the question may spend.

        One about the present picture may wait a little for a picture of now.
        """
        question = parsed.question
        present = question.image is None and self._context.host.live_video and parsed.ask.present
        costs = self._context.roles.cost_tracker.costs
        return deadline.plan(costs, clock.now(), question.deadline, window=WINDOW_TOKENS, keyframe=present)

    async def _attachment(self, parsed: ParsedQuestion) -> Attachment | None:
        """What is seen and read in the question's image; None: it has none. Raises StreamsvcError."""
        question = parsed.question
        if question.image is None:
            return None
        return await analyse(
            question.image,
            self._context.session,
            max(question.asked, 0.0),
            self._context.roles.see,
            self._context.settings.see,
            deadline_in_s=question.deadline - clock.now(),
        )

    async def _refreshed(self, parsed: ParsedQuestion, seconds: float) -> ParsedQuestion:
        """The question, asked of the newest picture that is known within `seconds`."""
        question = parsed.question
        began = clock.now()
        known = await self._pictures.refresh(max(question.asked, 0.0), seconds)
        return replace(parsed, question=replace(question, asked=known, waited=clock.now() - began))

    def _reply(
        self, queued: QueuedQuestion, part: Delta | Answer | StreamsvcError, *, first: bool = False
    ) -> None:
        """Publish a part of an answer."""
        if not isinstance(part, Delta):
            self._running.pop(queued, None)  # too late to be cancelled
        question = queued.question
        self._context.host.dispatch(Reply(question.id, question.asked, queued.at, part, queued.client, first))
