"""Whole answers kept for whoever asked, so that they can be read without an event stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from streamsvc.core.errors import NotFound
from streamsvc.core.types import Event
from streamsvc.service.question_history import hashed

_MOST = 256  # answers kept of one session; the longest unread are forgotten first


@dataclass(slots=True)
class _Kept:
    """One question. `body`: of its answer.done; None: it waits.

    `holder`: hash of who holds the credential that it was asked with; `asker`: as in the queue, "" if of an
    earlier run; `audience`: of its events; None: all.
    """

    holder: str
    asker: str
    audience: str | None
    body: Mapping[str, Any] | None = None


class KeptAnswers:
    """The answers to the newest questions that came by HTTP."""

    def __init__(self) -> None:
        self._kept: LRUCache[str, _Kept] = LRUCache(_MOST)

    def expect(self, question_id: str, holder: str, asker: str, audience: str | None) -> None:
        """Keep the answer to a question for its holder; with the audience None for anybody.

        `asker`: in the queue. `audience`: of the answer's events. Askers choose ids, so another's answer may
        bear the same one.
        """
        self._kept[question_id] = _Kept(hashed(holder), asker, audience)

    def reader(self, question_id: str, audience: str | None) -> str | None:
        """Hash of who may read an answer; "": anybody; None: nobody."""
        kept = self._kept.get(question_id)
        if kept is None or kept.audience != audience:
            return None
        return "" if audience is None else kept.holder

    def restore(self, reader: str, audience: str | None, body: Mapping[str, Any]) -> None:
        """Keep an answer of an earlier run; arguments as `reader` told them, and the body of its event."""
        self._kept[body["question_id"]] = _Kept(reader, "", audience, body)

    def take(self, event: Event | None) -> Event | None:
        """Keep an answer that is expected. Returns the event, whatever it is."""
        if event is not None and event.type == "answer.done":
            kept = self._kept.get(event.body["question_id"])
            if kept is not None and kept.body is None and kept.audience == event.audience:
                kept.body = event.body
        return event

    def read(self, question_id: str, holder: str) -> Mapping[str, Any] | None:
        """The body of the answer; None: it is not there yet.

        Raises:
            NotFound: no such question is kept, or somebody else has asked it.
        """
        kept = self._kept.get(question_id)
        if kept is None or (kept.audience is not None and kept.holder != hashed(holder)):
            raise _not_yours()
        return kept.body

    def asker(self, question_id: str, holder: str) -> str:
        """Who asked a question of one's own in the queue, to cancel it there. Raises NotFound."""
        kept = self._kept.get(question_id)
        if kept is None or kept.holder != hashed(holder):
            raise _not_yours()
        return kept.asker


def _not_yours() -> NotFound:
    return NotFound(
        "you have asked no such question here, or its answer is no longer kept", code="no_question"
    )
