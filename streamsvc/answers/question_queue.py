"""A bounded queue of the questions of one session, taken from each asker in turn."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamsvc.core import clock
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import CapacityError, InvalidRequest, NotFound, TooLarge
from streamsvc.core.types import Question

# One place in so many is reserved for askers of whom no question waits, so that one asker who floods
# the queue shuts out no other.
_RESERVED = 4
_DEADLINE_MS = (1, 120_000)


@dataclass(frozen=True, slots=True)
class QuestionRequest:
    """A question as a client asks it.

    `question_id`: the client's id for it; None: one is made. `deadline_ms`: milliseconds for the whole
    answer; None: as the settings say. `audience`: "asker" or "session". `client`: the subscriber that asks,
    and alone gets the answer where the audience is "asker"; None: no subscriber gets it. `asker`: takes turns
    with other askers; None: the client. `image`: JPEG or PNG. `form`: JSON Schema of the answer, as for
    `Question`.
    """

    text: str
    question_id: str | None = None
    deadline_ms: float | None = None
    audience: str = "asker"
    client: str | None = None
    asker: str | None = None
    image: bytes | None = None
    form: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class QueuedQuestion:
    """A question in the queue. Two are never equal: askers choose the ids of their questions.

    `at`: monotonic seconds at which it was asked. `client`: the one subscriber that gets the answer; None:
    all. `asker` "": unknown.
    """

    question: Question
    at: float
    client: str | None
    asker: str = ""


class QuestionQueue:
    """A bounded queue of questions, taken from each asker in turn; several tasks may take at once.

    Full, it refuses: the client is told with CapacityError, nothing is dropped.

    Args:
        context: of the session: limits, time for an answer, clock and degradation level are read from it.
    """

    def __init__(self, context: SessionContext) -> None:
        self._limits = context.settings.limits
        self._seconds = context.settings.think.deadline
        self._clock = context.clock
        self._tape = context.tape
        self._degradation = context.degradation
        # By asker, none empty; the first asker's turn is next.
        self._waiting: dict[str, deque[QueuedQuestion]] = {}
        self._changed = asyncio.Event()  # a question was put, or the queue was closed
        self._taken = asyncio.Event()
        self._at_end: list[QuestionRequest] = []  # to be asked when everything has been understood
        self._closed = False

    def waited(self, now: float) -> float:
        """Seconds that the oldest question has waited at monotonic second `now`; 0: none waits."""
        return max((now - queue[0].at for queue in self._waiting.values()), default=0.0)

    def ask(self, new: QuestionRequest) -> Question:
        """Queue a question; its answer comes as events.

        Raises:
            InvalidRequest: no text, or an impossible deadline or audience. TooLarge: over the limits.
                CapacityError: too many questions wait, or the degradation level allows none. NotFound: the
                    session has ended, or answers its last questions.
        """
        text = self._checked(new.text)
        if new.image is not None and len(new.image) > self._limits.image_bytes:
            raise TooLarge(f"an image has at most {self._limits.image_bytes} bytes", code="image_too_large")
        if new.deadline_ms is not None and not _DEADLINE_MS[0] <= new.deadline_ms <= _DEADLINE_MS[1]:
            raise InvalidRequest(
                f"deadline_ms is between {_DEADLINE_MS[0]} and {_DEADLINE_MS[1]}", code="bad_deadline"
            )
        if new.audience not in ("asker", "session"):
            raise InvalidRequest('audience is "asker" or "session"', code="bad_audience")
        if self._closed:
            raise NotFound("this session has ended", code="session_ended")
        if not self._degradation.fidelity.questions:
            raise CapacityError(f"no questions are taken now: {self._degradation.reason}")
        asker = _asker(new)
        limit = self._limits.questions_waiting
        if self._count() >= limit - (limit // _RESERVED if asker in self._waiting else 0):
            raise CapacityError(
                f"{self._count()} questions wait already", retry_after=2.0, code="too_many_questions"
            )
        return self._put(new, text)

    def cancel(self, question_id: str, asker: str | None = None) -> QueuedQuestion | None:
        """Remove a question that waits, and return it; None: none such waits. Arguments as for `matching`."""
        queued = matching(
            [queued for queue in self._waiting.values() for queued in queue], question_id, asker
        )
        if queued is not None:
            self._waiting[queued.asker].remove(queued)
            self._after_removal(queued.asker)
        return queued

    def ask_at_end(self, texts: Sequence[str], client: str) -> list[str]:
        """Ask these questions when the stream has ended and all of it has been understood.

        At most as many as may wait. Returns their ids.

        Raises:
            InvalidRequest: too many, or one without text. TooLarge: one is too long. NotFound: the session
                has ended.
        """
        if len(texts) > self._limits.questions_waiting:
            raise InvalidRequest(
                f"at most {self._limits.questions_waiting} questions at once", code="too_many_questions"
            )
        questions = {make_id(): QuestionRequest(self._checked(text), client=client) for text in texts}
        if self._closed:
            raise NotFound("this session has ended", code="session_ended")
        self._at_end = [replace(new, question_id=name) for name, new in questions.items()]
        return list(questions)

    async def close_after_last(self) -> None:
        """Queue the questions of `ask_at_end`, each as soon as there is room, then close."""
        for new in self._at_end:
            while not self._closed and self._count() >= self._limits.questions_waiting:
                self._taken.clear()
                await self._taken.wait()
            if not self._closed:
                self._put(new, new.text)
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the input is closed."""
        return self._closed

    def __len__(self) -> int:
        """How many questions wait."""
        return self._count()

    def reopen(self) -> None:
        """Open the input again; whoever does so sees to it that somebody takes the questions."""
        self._closed = False

    def close(self) -> None:
        """Close the input; questions that wait can still be taken. Idempotent."""
        self._closed = True
        self._changed.set()
        self._taken.set()

    async def questions(self) -> AsyncIterator[QueuedQuestion]:
        """Take questions, from each asker in turn, until the queue is closed and empty."""
        while True:
            while self._waiting:
                asker = next(iter(self._waiting))
                queue = self._waiting.pop(asker)
                queued = queue.popleft()
                self._waiting[asker] = queue  # its next turn is after all others'
                self._after_removal(asker)
                yield queued
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _after_removal(self, asker: str) -> None:
        if not self._waiting[asker]:
            del self._waiting[asker]
        self._taken.set()

    def _checked(self, text: str) -> str:
        text = text.strip()
        if not text:
            raise InvalidRequest("the question has no text", code="empty_question")
        if len(text) > self._limits.question_chars:
            raise TooLarge(
                f"a question has at most {self._limits.question_chars} characters", code="question_too_long"
            )
        return text

    def _put(self, new: QuestionRequest, text: str) -> Question:
        now = clock.now()
        seconds = new.deadline_ms / 1000 if new.deadline_ms is not None else self._seconds
        question = Question(
            new.question_id or make_id(),
            text,
            self._clock.position(),
            now + seconds,
            new.audience,
            new.image,
            new.form,
        )
        self._tape.note("ask", (replace(new, question_id=question.id), now))
        asker = _asker(new)
        # Without a client the answer has an audience that no subscriber is, never all of them.
        client = None if new.audience == "session" else new.client or f"asker:{secrets.token_hex(8)}"
        self._waiting.setdefault(asker, deque()).append(QueuedQuestion(question, now, client, asker))
        self._changed.set()
        return question


def make_id() -> str:
    """An id for a question whose asker gives it none."""
    return f"q_{secrets.token_hex(6)}"


def _asker(new: QuestionRequest) -> str:
    return new.asker if new.asker is not None else new.client or ""


def matching(queued: Iterable[QueuedQuestion], question_id: str, asker: str | None) -> QueuedQuestion | None:
    """The first question with an id.

    With an asker, only one of that asker: ids are the askers' and may repeat.
    """
    return next(
        (one for one in queued if one.question.id == question_id and asker in (None, one.asker)), None
    )
