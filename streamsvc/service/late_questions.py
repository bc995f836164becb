"""Questions about a session that has ended, answered in a task of their own while the session is kept."""

from __future__ import annotations

import asyncio

from streamsvc.answers.answering import Answering
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core.types import Question
from streamsvc.events.log import EventLog


class LateQuestions:
    """Takes questions once the session has closed its queue.

    The queue is opened for one question at a time, so its bounds hold, and whoever empties it ends by itself.

    Args:
        answering: of the session.
        log: where the answers go; they are written here, since the session writes no more.
    """

    def __init__(self, answering: Answering, log: EventLog) -> None:
        self._answering = answering
        self._log = log
        self._begun = False  # until then the session itself answers what is in the queue
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The session answers no more: answer what is in the queue, and what comes."""
        self._begun = True
        self._answer()

    def ask(self, new: QuestionRequest) -> Question:
        """Queue a question; arguments and errors as of `QuestionQueue.ask`."""
        queue = self._answering.queue
        if not self._closed:
            queue.reopen()
        try:
            question = queue.ask(new)
        finally:
            queue.close()
        self._answer()
        return question

    async def close(self) -> None:
        """Answer nothing any more; who waits for an answer hears that there is none. Idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._log.close()

    def _answer(self) -> None:
        idle = self._task is None or self._task.done()
        if self._begun and not self._closed and idle and len(self._answering.queue):
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while len(self._answering.queue):
            await self._answering.run()
            await self._log.flush()
