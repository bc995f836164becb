"""The answering half of a session: a question waits its turn, is given what can be had in time, answered, and told.

    inbox -> answerers -> rules and models -> log

What cannot be in time is not begun and says so; an answer that fails costs itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from streamsvc.answers import answer, deadline
from streamsvc.answers.question_queue import QuestionQueue, QueuedQuestion, named
from streamsvc.answers.rules import follow_ups
from streamsvc.answers.rules.parse import parse
from streamsvc.core import clock, degradation, metrics
from streamsvc.core.config import Settings
from streamsvc.core.errors import Cancelled, DeadlineMissed, NotFound, StreamsvcError
from streamsvc.core.roles import Role
from streamsvc.core.types import Delta, Question, Stages
from streamsvc.events.log import EventLog
from streamsvc.events.serialize import event_body
from streamsvc.service.latency_report import LatencyReport
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.pipeline import VisionPipeline
from streamsvc.vision.still_image import glance
from streamsvc.workers.idle_gate import IdleGate

log = structlog.get_logger()
_ANSWERERS = 2  # questions at work at once: one that waits for a model holds up no other


class Answering:
    """What a session answers.

    Args:
        session: its id.
        settings: of the service.
        think, see: the models.
        log, timeline, report: where answers go, what they are found in, and who keeps their ages.
        eye: what the session sees.
        position: session seconds of now.
        live: whether pictures come in that an answer may wait for.
        frame_url: where the keyframe of a session second can be loaded.
        lull: the time between questions.
        pace: what the models cost.
    """

    def __init__(
        self,
        session: str,
        settings: Settings,
        think: Role,
        see: Role,
        log: EventLog,
        timeline: Timeline,
        report: LatencyReport,
        eye: VisionPipeline,
        *,
        position: Callable[[], float],
        live: Callable[[], bool],
        frame_url: Callable[[float], str],
        lull: IdleGate,
        pace: degradation.CostTracker,
    ) -> None:
        self._session, self._settings, self._think, self._see = session, settings, think, see
        self._log, self._timeline, self._report, self._eye = log, timeline, report, eye
        self._live, self._frame_url, self._lull, self._pace = live, frame_url, lull, pace
        self._spent = degradation.Fidelity()  # what the ladder leaves
        self._inbox = QuestionQueue(settings.limits, settings.think.deadline, position)
        self.ask, self.hold, self.waited = self._inbox.ask, self._inbox.hold, self._inbox.waited
        self.close, self.close_after_held = self._inbox.close, self._inbox.close_after_held
        self._memory = follow_ups.Memory()
        self._at_work: dict[QueuedQuestion, asyncio.Task[None]] = {}  # whose end is not told yet

    def spend(self, fidelity: degradation.Fidelity, why: str) -> None:
        """Leave out what the ladder does not leave, for a reason."""
        self._spent = fidelity
        self._inbox.refusing = "" if fidelity.questions else why

    def cancel(self, number: str, asker: str | None = None) -> None:
        """Give a question up, whether it waits or is being answered; its `answer.done` says so.

        Args:
            number: the question's id.
            asker: who asked it; None: anybody.

        Raises:
            NotFound: there is no such question, or it has been answered.
        """
        if (waiting := self._inbox.cancel(number, asker)) is not None:
            self._unanswered(waiting, Cancelled("this question was cancelled"))
        elif (working := named(self._at_work, number, asker)) is not None:
            self._at_work[working].cancel()
        else:
            raise NotFound("no such question waits or is being answered", code="no_question")

    async def answer(self) -> None:
        """Answer what comes, until the inbox is closed and empty."""
        async with asyncio.TaskGroup() as answerers:
            for _ in range(_ANSWERERS):
                answerers.create_task(self._answer_some())

    async def _answer_some(self) -> None:
        async for asked in self._inbox.questions():
            work = self._at_work[asked] = asyncio.create_task(self._answer_one(asked))
            try:
                with self._lull.broken():
                    await work
            except asyncio.CancelledError:
                if (me := asyncio.current_task()) is not None and me.cancelling():
                    raise
                self._unanswered(asked, Cancelled("this question was cancelled"))
            except Exception as error:  # whatever a question does to the rules, it costs its own answer alone
                told = (
                    error
                    if isinstance(error, StreamsvcError)
                    else StreamsvcError("this question could not be answered")
                )
                if told is not error:
                    log.error("question failed", session=self._session, error=type(error).__name__)
                self._unanswered(asked, told)
            finally:
                self._at_work.pop(asked, None)

    def _unanswered(self, asked: QueuedQuestion, why: StreamsvcError) -> None:
        self._say(
            asked,
            "answer.done",
            {"text": "", "supported": False, "evidence": [], "error": why.body()["error"]},
        )

    async def _answer_one(self, asked: QueuedQuestion) -> None:
        self._eye.ask()
        first = True
        question = await self._alone(asked)
        plan = self._planned(question)
        if not plan.fits:
            metrics.deadline_missed.labels("answer", "not_started").inc()
            raise DeadlineMissed("this question's time had passed before it could be begun")
        sent = None
        if question.image is not None:
            at, left = max(question.asked, 0.0), question.deadline - clock.now()
            sent = await glance(
                question.image, self._session, at, self._see, self._settings.see, deadline_in_s=left
            )
        if plan.keyframe_wait:
            question = await self._current(question, plan.keyframe_wait)
        models = self._think, self._settings.think, sent, self._eye.seer
        spend = plan.window_tokens, plan.phrase_tokens, self._pace.record
        parts = answer.shaped(question, answer.answer(question, self._timeline, *models, *spend))
        async with contextlib.aclosing(parts):
            async for part in parts:
                seconds = clock.now() - asked.at
                if isinstance(part, Delta):
                    if first:
                        metrics.answer_first_delta.observe(seconds)
                        self._report.age("first_delta", seconds)
                        first = False
                    self._say(asked, "answer.delta", {"text": part.text})
                else:
                    self._report.age("answer", seconds)
                    self._memory.note(asked.asker, question, part, clock.now())
                    self._say(asked, "answer.done", event_body(part, self._frame_url), part.stages)

    async def _alone(self, asked: QueuedQuestion) -> Question:
        """A question, with what its asker was told before; one that follows another waits until that one is answered."""
        question = asked.question
        if asked.asker and follow_ups.refers(question.text):
            works = [work for other, work in self._at_work.items() if other.asker == asked.asker]
            if before := works[: works.index(self._at_work[asked])]:
                await asyncio.wait(before, timeout=max(0.0, question.deadline - clock.now()))
        return follow_ups.alone(question, self._memory.before(asked.asker, clock.now()))

    def _planned(self, question: Question) -> deadline.Plan:
        """What a question may spend: one about what is shown now, a little time until a picture of now is there."""
        now = question.image is None and self._live() and parse(question.text).present
        return deadline.plan(
            self._pace.costs, clock.now(), question.deadline, window=self._spent.window_tokens, keyframe=now
        )

    async def _current(self, question: Question, seconds: float) -> Question:
        """A question, asked of a picture of now if there is one within some seconds."""
        asked, began = max(question.asked, 0.0), clock.now()
        return replace(question, asked=await self._eye.renew(asked, seconds), waited=clock.now() - began)

    def _say(
        self, asked: QueuedQuestion, kind: str, body: dict[str, Any], stages: Stages | None = None
    ) -> None:
        """A part of an answer, to whom it is for."""
        told = {"question_id": asked.question.id, **body}
        if kind == "answer.done":
            self._at_work.pop(asked, None)  # too late to be cancelled
        self._log.emit(
            kind, told, at=asked.question.asked, arrived=asked.at, stages=stages, audience=asked.client
        )
