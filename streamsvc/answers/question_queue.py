"""The questions of one session that wait for an answer: checked at the door, bounded, handed out to each asker in turn."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamsvc.core import clock
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError, InvalidRequest, NotFound, TooLarge
from streamsvc.core.types import Question

_KEPT_FREE = (
    4  # one place in so many is only for askers of whom no question waits: one who floods shuts out nobody
)


@dataclass(frozen=True, slots=True, eq=False)
class QueuedQuestion:
    """A question, when it was asked (monotonic seconds), the one subscriber who gets the answer (None: all), and who asks.

    Two are never equal: askers choose the ids of their questions.
    """

    question: Question
    at: float
    client: str | None
    asker: str = ""  # "": nobody who can be told from others


class QuestionQueue:
    """What was asked and nobody works at yet: a queue for each asker, taken from in turn. Many may take at once.

    Args:
        limits: of the number, the length and the image of questions.
        seconds: for a whole answer, where the asker names none.
        position: session seconds of now.
    """

    def __init__(self, limits: Limits, seconds: float, position: Callable[[], float]) -> None:
        self._limits, self._seconds, self._position = limits, seconds, position
        self._waiting: dict[
            str, deque[QueuedQuestion]
        ] = {}  # by asker, none of them empty; the first one's turn is next
        self._changed = asyncio.Event()  # something came, or no more will
        self._room = asyncio.Event()  # something was taken
        self._held: list[tuple[str, str]] = []  # to be asked when all has been understood, and who asks
        self._closed = False
        self.refusing = ""  # why no question is taken now; may be set at any time (degradation)

    def waited(self, now: float) -> float:
        """Seconds that the oldest question has waited at monotonic second `now`, before anybody works at it; 0: none waits."""
        return max((now - queue[0].at for queue in self._waiting.values()), default=0.0)

    def ask(
        self,
        text: str,
        *,
        number: str | None = None,
        deadline_ms: float | None = None,
        audience: str = "asker",
        client: str | None = None,
        asker: str | None = None,
        image: bytes | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Question:
        """Queue a question; its answer comes as events.

        Args:
            text: plain words.
            number: the asker's id for it; None: one is made.
            deadline_ms: milliseconds for the whole answer; None: the budget's.
            audience: "asker" or "session".
            client: the subscriber that asks (who alone gets the answer where the audience is "asker").
            asker: with whom it takes turns; None: the client.
            image: JPEG or PNG sent along.
            form: the schema of the answer, as for `Question`.

        Raises:
            InvalidRequest: no text, or a deadline that is none. TooLarge: over the limits. CapacityError: too many wait,
                or the machine has no time for questions.
            NotFound: the session has ended, or answers its last questions.
        """
        text = self._checked(text)
        if image is not None and len(image) > self._limits.image_bytes:
            raise TooLarge(f"an image has at most {self._limits.image_bytes} bytes", code="image_too_large")
        if deadline_ms is not None and not 1 <= deadline_ms <= 120_000:
            raise InvalidRequest("deadline_ms is between 1 and 120000", code="bad_deadline")
        if audience not in ("asker", "session"):
            raise InvalidRequest('audience is "asker" or "session"', code="bad_audience")
        if self._closed:
            raise NotFound("this session has ended", code="session_ended")
        if self.refusing:
            raise CapacityError(f"no questions are taken now: {self.refusing}")
        asker = asker if asker is not None else client or ""
        most = self._limits.questions_waiting
        if self._count() >= most - (most // _KEPT_FREE if asker in self._waiting else 0):
            raise CapacityError(
                f"{self._count()} questions wait already", retry_after=2.0, code="too_many_questions"
            )
        seconds = deadline_ms / 1000 if deadline_ms is not None else self._seconds
        return self._put(
            text, number, seconds, audience, client if audience == "asker" else None, asker, image, form
        )

    def cancel(self, number: str, asker: str | None = None) -> QueuedQuestion | None:
        """Take a question out that still waits, and give it back; None: no such one waits. As in `named`."""
        found = named([asked for queue in self._waiting.values() for asked in queue], number, asker)
        if found is not None:
            self._waiting[found.asker].remove(found)
            self._taken(found.asker)
        return found

    def hold(self, texts: Sequence[str], client: str) -> None:
        """Ask these when the stream has ended and all of it has been understood; at most as many as may wait.

        Raises:
            InvalidRequest: too many, or one without text. TooLarge: one is too long. NotFound: the session has ended.
        """
        if len(texts) > self._limits.questions_waiting:
            raise InvalidRequest(
                f"at most {self._limits.questions_waiting} questions at once", code="too_many_questions"
            )
        checked = [(self._checked(text), client) for text in texts]
        if self._closed:
            raise NotFound("this session has ended", code="session_ended")
        self._held = checked

    async def close_after_held(self) -> None:
        """Put in what was held, each as soon as there is room, and take nothing more."""
        for text, client in self._held:
            while not self._closed and self._count() >= self._limits.questions_waiting:
                self._room.clear()
                await self._room.wait()
            if not self._closed:
                self._put(text, None, self._seconds, "asker", client, client)
        self.close()

    def close(self) -> None:
        """Take nothing more; what waits can still be taken out. May be called twice."""
        self._closed = True
        self._changed.set()
        self._room.set()

    async def questions(self) -> AsyncIterator[QueuedQuestion]:
        """One after the other, of each asker in turn, until the inbox is closed and empty."""
        while True:
            while self._waiting:
                asker = next(iter(self._waiting))
                queue = self._waiting.pop(asker)
                asked = queue.popleft()
                self._waiting[asker] = queue  # its next turn is after all others'
                self._taken(asker)
                yield asked
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _taken(self, asker: str) -> None:
        if not self._waiting[asker]:
            del self._waiting[asker]
        self._room.set()

    def _checked(self, text: str) -> str:
        text = text.strip()
        if not text:
            raise InvalidRequest("the question has no text", code="empty_question")
        if len(text) > self._limits.question_chars:
            raise TooLarge(
                f"a question has at most {self._limits.question_chars} characters", code="question_too_long"
            )
        return text

    def _put(
        self,
        text: str,
        number: str | None,
        seconds: float,
        audience: str,
        client: str | None,
        asker: str,
        image: bytes | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Question:
        now = clock.now()
        question = Question(
            number or f"q_{secrets.token_hex(6)}",
            text,
            self._position(),
            now + seconds,
            audience,
            image,
            form,
        )
        self._waiting.setdefault(asker, deque()).append(QueuedQuestion(question, now, client, asker))
        self._changed.set()
        return question


def named(many: Iterable[QueuedQuestion], number: str, asker: str | None) -> QueuedQuestion | None:
    """The first question with an id; with an asker only one of his: who asks chooses the id, and two may choose the same."""
    return next(
        (asked for asked in many if asked.question.id == number and asker in (None, asked.asker)), None
    )
