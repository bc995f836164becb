"""The questions of one session, as its doors see them; after its end, a task of their own answers them."""

from __future__ import annotations

import asyncio

from streamsvc.answers.answering import Answering
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core.types import Question
from streamsvc.core.units import Reply
from streamsvc.events.log import EventLog
from streamsvc.events.store import StoredQuestion
from streamsvc.service.kept_answers import KeptAnswers
from streamsvc.service.question_history import hashed


class SessionQuestions:
    """Takes questions of a session, also after its end, as long as it is kept.

    After the end the queue is opened for one question at a time, so its bounds hold, and the task that
    empties it ends by itself.

    Args:
        answering: of the session, which runs it until its end.
        log: where the answers go; after the end they are written here, since the session writes no more.

    `kept`: answers for whoever reads them at their address.
    """

    def __init__(self, answering: Answering, log: EventLog) -> None:
        self.kept = KeptAnswers()
        self._answering = answering
        self._log = log
        self._ended = False  # until then the session itself answers what is in the queue
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no question waits or is being answered."""
        return (self._task is None or self._task.done()) and not len(self._answering.queue)

    def ask(self, new: QuestionRequest) -> Question:
        """Queue a question; arguments and errors as of `QuestionQueue.ask`."""
        queue = self._answering.queue
        if not queue.closed or self._closed:
            return queue.ask(new)
        queue.reopen()
        try:
            question = queue.ask(new)
        finally:
            queue.close()
        self._answer()
        return question

    def stored(self, reply: Reply) -> StoredQuestion:
        """What is stored of a question with its answer."""
        reader = self.kept.reader(reply.question_id, reply.audience)
        return StoredQuestion(
            reply.question_id, reply.audience or "", hashed(reply.asker), reader, reply.question
        )

    def end(self) -> None:
        """The session answers no more: from now on it is done here, beginning with what waits."""
        self._answering.queue.close()
        self._ended = True
        self._answer()

    async def close(self) -> None:
        """Answer nothing any more; who waits for an answer hears that there is none. Idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._answering.forget()
        self._log.close()

    def _answer(self) -> None:
        idle = self._task is None or self._task.done()
        if self._ended and not self._closed and idle and len(self._answering.queue):
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while len(self._answering.queue):
            await self._answering.run()
            await self._log.flush()
