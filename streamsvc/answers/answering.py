"""Answering the questions of a session: queue, plan, answer, publish.

    question queue -> answerers -> route, plan -> tool or readers -> dispatch

Beside it, while nobody asks, the model reads the window along and new sentences are indexed. What cannot be
answered in time is not begun, and says so; a failed answer costs itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from streamsvc.answers import deadline
from streamsvc.answers.answer import Answerer, Attachment, shaped
from streamsvc.answers.exchanges import Exchanges
from streamsvc.answers.model_reader import ModelReader
from streamsvc.answers.question_queue import QuestionQueue, QueuedQuestion, matching
from streamsvc.answers.reading import Reading
from streamsvc.answers.route import Route
from streamsvc.answers.router import prepare, route
from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.degradation import DEFAULT_COSTS
from streamsvc.core.errors import Cancelled, DeadlineMissed, NotFound, StreamsvcError
from streamsvc.core.latency import WAIT
from streamsvc.core.types import Answer, Delta, Question, Stages
from streamsvc.core.units import Reply
from streamsvc.timeline.index import Index
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.still_image import analyse
from streamsvc.vision.vlm import VlmSession

log = structlog.get_logger()
_INDEX_SECONDS = 1.0  # between looks for what is new for the index, once all of it is indexed; at least
_PREPARE_SECONDS = 30.0  # between tries to make the router ready
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
        index: retrieval in it.
        pictures: the vision pipeline.
        reading: the window that a model which reads is shown; None: the profile has no such model.
        sight: the window of pictures, where another model sees; None: there is none.

    `queue`: where questions are put.
    """

    def __init__(
        self,
        context: SessionContext,
        timeline: Timeline,
        index: Index,
        pictures: LivePictures,
        reading: Reading | None = None,
        sight: Reading | None = None,
    ) -> None:
        self.queue = QuestionQueue(context)
        self._context = context
        self._timeline = timeline
        self._index = index
        self._pictures = pictures
        self._readings = [one for one in (reading, sight) if one is not None]
        model: ModelReader | None = None
        if self._readings:
            model = ModelReader(context, timeline, reading, index.rank, pictures.vlm, sight=sight)
        shortener = context.roles.think if reading is None else None
        self._answerer = Answerer(timeline, index, model, shortener, context.session)
        self._exchanges = Exchanges()
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
            self._context.tape.note("cancel", (question_id, asker))
            self._reply(waiting, Cancelled("this question was cancelled"), ((WAIT, clock.now()),))
        elif (running := matching(self._running, question_id, asker)) is not None:
            self._context.tape.note("cancel", (question_id, asker))
            self._running[running].cancel()
        else:
            raise NotFound("no such question waits or is being answered", code="no_question")

    async def forget(self) -> None:
        """Let the language model forget what it has read of the session."""
        for reading in self._readings:
            await reading.forget()

    async def run(self) -> None:
        """Answer questions until the queue is closed and empty."""
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._index_new())]
            background += [tasks.create_task(reading.run()) for reading in self._readings]
            async with asyncio.TaskGroup() as answerers:
                for _ in range(_ANSWERERS):
                    answerers.create_task(self._answer_queued())
            for task in background:
                task.cancel()

    async def _index_new(self) -> None:
        """Make the router ready, then index new sentences while nobody asks, until cancelled."""
        idle, embed = self._context.roles.idle, self._context.roles.embed
        prepare_at = clock.now() if embed is not None else math.inf
        while True:
            await self._context.tape.point("index")
            left = 0
            with contextlib.suppress(TimeoutError):  # a question came
                if embed is not None and clock.now() >= prepare_at:
                    async with idle.background(_INDEX_SECONDS):
                        is_ready = await prepare(embed)
                    prepare_at = math.inf if is_ready else clock.now() + _PREPARE_SECONDS
                async with idle.background(_INDEX_SECONDS):
                    left = await self._index.settle()  # one batch: a question waits for no more
            if not left:
                await clock.sleep(max(_INDEX_SECONDS, self._index.pause))

    async def _answer_queued(self) -> None:
        async for queued in self.queue.questions():
            marks: list[tuple[str, float]] = [(WAIT, clock.now())]
            task = self._running[queued] = asyncio.create_task(self._answer(queued, marks))
            try:
                with self._context.roles.idle.question():
                    await task
            except asyncio.CancelledError:
                self._reply(queued, Cancelled("this question was cancelled"), _answered(marks))
                if (current := asyncio.current_task()) is not None and current.cancelling():
                    raise
            except StreamsvcError as error:
                self._reply(queued, error, _answered(marks))
            except Exception as error:  # whatever a question raises, it costs its own answer alone
                log.error("question failed", session=self._context.session, error=type(error).__name__)
                failed = StreamsvcError("this question could not be answered")
                self._reply(queued, failed, _answered(marks))
            finally:
                self._running.pop(queued, None)

    async def _answer(self, queued: QueuedQuestion, marks: list[tuple[str, float]]) -> None:
        """Answer one question. Raises StreamsvcError: there is no answer.

        Args:
            queued: the question.
            marks: of what its time goes to; more are added here.
        """
        self._pictures.request_keyframe()
        question = replace(queued.question, history=self._exchanges.of(queued.asker, clock.now()))
        roles = self._context.roles
        # The VLM engine follows no schema, so it cannot be asked to choose.
        chooses = roles.reads and self._context.settings.models.profile != "gpu"
        chooser = roles.think if chooses else None
        way = await route(question, self._timeline, roles.embed, max(question.asked, 0.0), chooser)
        await self._context.tape.point(f"routed {question.id}")
        marks.append(("route", clock.now()))
        plan = self._plan(question, way)
        if not plan.fits:
            metrics.deadline_missed.labels("answer", "not_started").inc()
            raise DeadlineMissed("this question's time had passed before it could be begun")
        attachment = await self._attachment(question)
        if attachment is not None:
            marks.append(("look", clock.now()))
        if plan.keyframe_wait:
            question = await self._refreshed(question, plan.keyframe_wait)
            marks.append(("keyframe", clock.now()))
        first = True
        parts = shaped(question, way, self._answerer.answer(question, way, plan, attachment))
        async with contextlib.aclosing(parts):
            async for part in parts:
                await self._context.tape.point(f"answer {question.id}")
                if isinstance(part, Answer):
                    self._exchanges.note(queued.asker, question, part, clock.now())
                stages = (*marks, *part.stages) if isinstance(part, Answer) else _answered(marks)
                self._reply(queued, part, stages, first=first)
                first = False

    def _plan(self, question: Question, way: Route) -> deadline.Plan:
        """What the question may spend.

        One about the present picture may wait a little for a picture of now.
        """
        present = question.image is None and self._context.host.live_video and way.present
        costs = self._context.roles.cost_tracker.costs
        plan = deadline.plan(costs, clock.now(), question.deadline, keyframe=present)
        if not plan.asks_model:  # its cost is measured only where it is asked: so that it is tried again
            self._context.roles.cost_tracker.record("think", "first", DEFAULT_COSTS["think", "first"])
        return plan

    async def _attachment(self, question: Question) -> Attachment | None:
        """What is seen and read in the question's image; None: it has none. Raises StreamsvcError."""
        if question.image is None:
            return None
        sight, text = await analyse(
            question.image,
            self._context.session,
            max(question.asked, 0.0),
            self._context.roles.see,
            self._context.settings.see,
            deadline_in_s=question.deadline - clock.now(),
        )
        vlm = self._pictures.vlm
        key = "" if vlm is None else await vlm.encode(question.image, question.deadline - clock.now())
        return Attachment(sight, text, key)

    async def _refreshed(self, question: Question, seconds: float) -> Question:
        """The question, asked of the newest picture that is known within `seconds`."""
        began = clock.now()
        known = await self._pictures.refresh(max(question.asked, 0.0), seconds)
        return replace(question, asked=known, waited=clock.now() - began)

    def _reply(
        self,
        queued: QueuedQuestion,
        part: Delta | Answer | StreamsvcError,
        stages: Stages,
        *,
        first: bool = False,
    ) -> None:
        """Publish a part of an answer."""
        if not isinstance(part, Delta):
            self._running.pop(queued, None)  # too late to be cancelled
        question = queued.question
        self._context.host.dispatch(
            Reply(
                question.id,
                question.asked,
                queued.at,
                part,
                queued.client,
                first,
                stages,
                question.text,
                queued.asker,
            )
        )


def _answered(marks: Sequence[tuple[str, float]]) -> Stages:
    """The marks of a question whose answer, or a part of it, is there now."""
    return (*marks, ("answer", clock.now()))
