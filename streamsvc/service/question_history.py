"""The answered questions of one session, each for whoever may see it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection

from streamsvc.core.types import Answer
from streamsvc.core.units import Reply

_MOST = 500  # answered questions kept; the oldest are forgotten first


def hashed(holder: str) -> str:
    """What is kept of who has asked a question, also on disk: enough to know them again."""
    return hashlib.sha256(holder.encode(errors="replace")).hexdigest()[:32]


class QuestionHistory:
    """Keeps whole answers with their questions. Bounded."""

    def __init__(self) -> None:
        self._replies: deque[tuple[str, Reply]] = deque(maxlen=_MOST)  # each with the hash of its asker

    def add(self, reply: Reply) -> None:
        """Keep a whole answer; increments and errors are no record."""
        if isinstance(reply.part, Answer):
            self._replies.append((hashed(reply.asker), reply))

    def restore(self, asker: str, reply: Reply) -> None:
        """Keep a whole answer of an earlier run; `asker`: the hash."""
        self._replies.append((asker, reply))

    def seen_by(self, mine: Collection[str]) -> list[Reply]:
        """The answers to all, and those to one reader, by time. `mine`: the reader as asker and audience."""
        askers = {hashed(one) for one in mine}
        return [
            reply
            for by, reply in self._replies
            if reply.audience is None or by in askers or reply.audience in mine
        ]
