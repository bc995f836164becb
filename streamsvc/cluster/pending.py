"""What belongs to a session's events and waits for the next write to Redis: facts, questions, thumbnails."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamsvc.cluster.shared_log import QUESTIONS, Question
from streamsvc.core import metrics

FRAMES = 16  # thumbnails that wait; the oldest are dropped


@dataclass(frozen=True, slots=True)
class Aside:
    """What goes with one write."""

    facts: Mapping[str, str] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()
    frames: tuple[tuple[float, bytes], ...] = ()


class Pending:
    """Keeps what waits; nothing here waits for Redis.

    Args:
        facts: about the session, all of which wait.
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        self.facts = dict(facts)
        self._facts_waiting = dict(facts)
        self._asked: dict[tuple[str, str], Question] = {}  # all, by id and audience
        self._questions: deque[Question] = deque(maxlen=QUESTIONS)
        self._frames: deque[tuple[float, bytes]] = deque()

    @property
    def facts_wait(self) -> bool:
        """Whether facts wait: they are written without an event too."""
        return bool(self._facts_waiting)

    def put_facts(self, values: Mapping[str, str]) -> None:
        """Add facts; earlier ones of the same name are replaced."""
        self.facts |= values
        self._facts_waiting |= values

    def put_question(self, asked: Question) -> None:
        """Add a question."""
        self._asked.pop(asked[:2], None)
        self._asked[asked[:2]] = asked
        if len(self._asked) > QUESTIONS:
            del self._asked[next(iter(self._asked))]
        self._questions.append(asked)

    def put_frame(self, at: float, jpeg: bytes) -> None:
        """Add a thumbnail."""
        self._frames.append((at, jpeg))
        self._drop()

    def take(self) -> Aside:
        """Take out all that waits."""
        taken = Aside(self._facts_waiting, tuple(self._questions), tuple(self._frames))
        self._facts_waiting = {}
        self._questions.clear()
        self._frames.clear()
        return taken

    def put_back(self, taken: Aside) -> None:
        """Put back what could not be written, before what has come since."""
        self._facts_waiting = {**taken.facts, **self._facts_waiting}
        self._questions.extendleft(reversed(taken.questions))
        self._frames.extendleft(reversed(taken.frames))
        self._drop()

    def all_again(self) -> None:
        """Have all facts and questions wait again: Redis has lost them. Thumbnails are not kept."""
        self._facts_waiting = dict(self.facts)
        self._questions = deque(self._asked.values(), maxlen=QUESTIONS)

    def _drop(self) -> None:
        while len(self._frames) > FRAMES:
            self._frames.popleft()
            metrics.cluster_dropped.labels("thumbnail").inc()
