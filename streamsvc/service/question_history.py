"""The answered questions of one session, each for whoever may see it."""

from __future__ import annotations

from collections import deque

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

    def seen_by(self, asker: str, client: str = "") -> list[Reply]:
        """The answers to all, and those to this asker, by time.

        Args:
            asker: who takes turns in the queue, such as the holder of a token.
            client: id of the event stream that asked, which its owner alone knows; "": none.
        """
        return [
            reply
            for reply in self._replies
            if reply.audience is None or reply.asker == asker or (client and reply.audience == client)
        ]
