"""The list of a service's sessions, newest first, in pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import Grants
from streamsvc.service.export import title_of
from streamsvc.service.media_input import State
from streamsvc.service.session import Session

_TEXT = 200  # characters of the newest caption


def page(
    sessions: Iterable[Session], grants: Grants, states: Sequence[str], limit: int, after: str | None
) -> dict[str, Any]:
    """One page of the sessions that a token may see: `sessions`, and `next`, which `after` takes.

    Args:
        sessions: all.
        grants: of the token.
        states: those wanted; empty: all.
        limit: sessions of a page.
        after: `next` of the page before; None: the first page.

    Raises:
        InvalidRequest: "bad_cursor".
    """
    seen = [session for session in sessions if grants.session in ("*", session.id)]
    if states:
        seen = [session for session in seen if session.state.value in states]
    seen.sort(key=_order, reverse=True)
    if after is not None:
        last = _read(after)
        seen = [session for session in seen if _order(session) < last]
    following = _written(seen[limit - 1]) if len(seen) > limit else None
    return {"sessions": [overview(session) for session in seen[:limit]], "next": following}


def overview(session: Session) -> dict[str, Any]:
    """A session as an entry of the list: what `describe` says, and what it is recognised by."""
    shown = session.timeline.shown
    cues = session.dispatcher.cues
    body = {
        **session.describe(),
        "title": title_of(session.timeline.screens) or None,
        "seconds": round(max(0.0, session.clock.position()), 1)
        if session.media.state is not State.CREATED
        else 0.0,
        "ended_utc": None,
        "thumbnail_url": session.frame_url(shown[-1].start) if shown else None,
        "last_caption": cues[-1].text[:_TEXT] if cues else None,
        "error": session.failure.body()["error"] if session.failure is not None else None,
    }
    if session.ended_at is not None:
        body["ended_utc"] = clock.stamp(clock.utc() - timedelta(seconds=clock.now() - session.ended_at))
    return body


def _order(session: Session) -> tuple[int, str]:
    """What the list is sorted by: the start in microseconds, then the id."""
    return round(session.clock.started_utc.timestamp() * 1_000_000), session.id


def _written(session: Session) -> str:
    started, name = _order(session)
    return f"{started}.{name}"


def _read(cursor: str) -> tuple[int, str]:
    """The place that a cursor names; the session itself may be gone by now."""
    started, dot, name = cursor.partition(".")
    if not dot or not (started.isascii() and started.isdigit()) or len(cursor) > 128:
        raise InvalidRequest(
            "after is no `next` of a page before; leave it out for the first page", code="bad_cursor"
        )
    return int(started), name
