"""The questions of one session that wait for an answer: checked at the door, bounded, handed out in their order."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from streamsvc import clock
from streamsvc.config import Limits
from streamsvc.errors import CapacityError, InvalidRequest, NotFound, TooLarge
from streamsvc.mailbox import Closed, Ring
from streamsvc.types import Question


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, when it was asked (monotonic seconds), and the one subscriber who gets the answer (None: all)."""

    question: Question
    at: float
    client: str | None


class Inbox:
    """What was asked and is not yet answered.

    Args:
        limits: of the number, the length and the image of questions.
        seconds: for a whole answer, where the asker names none.
        position: session seconds of now.
    """

    def __init__(self, limits: Limits, seconds: float, position: Callable[[], float]) -> None:
        self._limits, self._seconds, self._position = limits, seconds, position
        self._waiting: Ring[Asked] = Ring(limits.questions_waiting)
        self._held: list[tuple[str, str]] = []  # to be asked when all has been understood, and who asks
        self._closed = False
        self.refusing = ""  # why no question is taken now; may be set at any time (degradation)

    def waited(self, now: float) -> float:
        """Seconds that the oldest question has waited at monotonic second `now`, before anybody works at it; 0: none waits."""
        oldest = self._waiting.first()
        return 0.0 if oldest is None else now - oldest.at

    def ask(
        self,
        text: str,
        *,
        number: str | None = None,
        deadline_ms: float | None = None,
        audience: str = "asker",
        client: str | None = None,
        image: bytes | None = None,
    ) -> Question:
        """Queue a question; its answer comes as events.

        Args:
            text: plain words.
            number: the asker's id for it; None: one is made.
            deadline_ms: milliseconds for the whole answer; None: the budget's.
            audience: "asker" or "session".
            client: the subscriber that asks (who alone gets the answer where the audience is "asker").
            image: JPEG or PNG sent along.

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
        if len(self._waiting) >= self._limits.questions_waiting:
            raise CapacityError(f"{self._limits.questions_waiting} questions wait already", retry_after=2.0, code="too_many_questions")
        seconds = deadline_ms / 1000 if deadline_ms is not None else self._seconds
        asked = self._asked(text, number, seconds, audience, client if audience == "asker" else None, image)
        self._waiting.put(asked)
        return asked.question

    def hold(self, texts: Sequence[str], client: str) -> None:
        """Ask these when the stream has ended and all of it has been understood; at most as many as may wait.

        Raises:
            InvalidRequest: too many, or one without text. TooLarge: one is too long. NotFound: the session has ended.
        """
        if len(texts) > self._limits.questions_waiting:
            raise InvalidRequest(f"at most {self._limits.questions_waiting} questions at once", code="too_many_questions")
        checked = [(self._checked(text), client) for text in texts]
        if self._closed:
            raise NotFound("this session has ended", code="session_ended")
        self._held = checked

    async def close_after_held(self) -> None:
        """Put in what was held, each as soon as there is room, and take nothing more."""
        for text, client in self._held:
            await self._waiting.room()
            self._waiting.put(self._asked(text, None, self._seconds, "asker", client, None))
        self.close()

    def close(self) -> None:
        """Take nothing more; what waits can still be taken out. May be called twice."""
        self._closed = True
        self._waiting.close()

    async def questions(self) -> AsyncIterator[Asked]:
        """One after the other, until the inbox is closed and empty."""
        with contextlib.suppress(Closed):
            while True:
                for asked in await self._waiting.take(1):
                    yield asked

    def _checked(self, text: str) -> str:
        text = text.strip()
        if not text:
            raise InvalidRequest("the question has no text", code="empty_question")
        if len(text) > self._limits.question_chars:
            raise TooLarge(f"a question has at most {self._limits.question_chars} characters", code="question_too_long")
        return text

    def _asked(self, text: str, number: str | None, seconds: float, audience: str, client: str | None, image: bytes | None) -> Asked:
        now = clock.now()
        return Asked(Question(number or f"q_{secrets.token_hex(6)}", text, self._position(), now + seconds, audience, image), now, client)
