"""The answered questions of one session, each for whoever may see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from streamsvc.core.types import Answer
from streamsvc.core.units import Reply

_MOST = 500  # answered questions kept; the oldest are forgotten first


class QuestionHistory:
    """Keeps whole answers with their questions. Bounded."""

    def __init__(self) -> None:
        self._replies: deque[Reply] = deque(maxlen=_MOST)

    def add(self, reply: Reply) -> None:
        """Keep a whole answer; increments and errors are no record."""
        if isinstance(reply.part, Answer):
            self._replies.append(reply)

    def seen_by(self, mine: Collection[str]) -> list[Reply]:
        """The answers to all, and those to one reader, by time. `mine`: the reader as asker and audience."""
        return [
            reply
            for reply in self._replies
            if reply.audience is None or reply.asker in mine or reply.audience in mine
        ]
