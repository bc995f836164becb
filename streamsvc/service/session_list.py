"""The list of a service's sessions, newest first, in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from streamsvc.core import clock
from streamsvc.core.config import Server
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import Grants
from streamsvc.events.stored import StoredSession
from streamsvc.service.auth import covers
from streamsvc.service.broadcast_ids import name_of
from streamsvc.service.export import title_of
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from streamsvc.service.session_addresses import addresses, frame_path
from streamsvc.service.shared_directory import SharedEntry

_TEXT = 200  # characters of the newest caption


Listed = Session | StoredSession | SharedEntry
Stored = StoredSession | SharedEntry  # those that are not in memory


def page(
    sessions: Iterable[Listed],
    grants: Grants,
    states: Sequence[str],
    limit: int,
    after: str | None,
    shown: Callable[[Stored], dict[str, Any]],
) -> dict[str, Any]:
    """One page of the sessions that a token may see: `sessions`, and `next`, which `after` takes.

    Args:
        sessions: all, in memory, on disk alone, or of other nodes.
        grants: of the token.
        states: those wanted; empty: all.
        limit: sessions of a page.
        after: `next` of the page before; None: the first page.
        shown: the entry of a session that is not in memory.

    Raises:
        InvalidRequest: "bad_cursor".
    """
    seen = [session for session in sessions if covers(grants.session, session.id)]
    if states:
        seen = [session for session in seen if _state(session) in states]
    seen.sort(key=_order, reverse=True)
    if after is not None:
        last = _read(after)
        seen = [session for session in seen if _order(session) < last]
    following = _written(seen[limit - 1]) if len(seen) > limit else None
    entries = [
        overview(session) if isinstance(session, Session) else shown(session) for session in seen[:limit]
    ]
    return {"sessions": entries, "next": following}


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
    if session.ended_utc is not None:
        body["ended_utc"] = clock.stamp(session.ended_utc)
    return body


def stored_overview(stored: Stored, server: Server, sign: Callable[[str], str]) -> dict[str, Any]:
    """A session that is not in memory, as `overview` would show it; `sign`: as of SharedResources."""
    if isinstance(stored, SharedEntry):
        return stored.overview(server, sign)
    at = stored.thumbnail
    return {
        "id": stored.id,
        "name": name_of(stored.id),
        "state": State.ENDED.value,
        "started_utc": clock.stamp(stored.started_utc),
        "tracks": sorted(stored.tracks),
        **addresses(stored.id, server),
        "title": stored.title,
        "seconds": round(stored.seconds, 1),
        "ended_utc": clock.stamp(stored.ended_utc),
        "thumbnail_url": sign(frame_path(stored.id, at)) if at is not None else None,
        "last_caption": stored.last_caption[:_TEXT] if stored.last_caption else None,
        "error": stored.error,
    }


def _state(session: Listed) -> str:
    if isinstance(session, SharedEntry):
        return session.state
    return session.state.value if isinstance(session, Session) else State.ENDED.value


def _order(session: Listed) -> tuple[int, str]:
    """What the list is sorted by: the start in microseconds, then the id."""
    started = session.clock.started_utc if isinstance(session, Session) else session.started_utc
    return round(started.timestamp() * 1_000_000), session.id


def _written(session: Listed) -> str:
    started, name = _order(session)
    return f"{started}.{name}"


def begun_before(cursor: str | None) -> datetime | None:
    """When the newest session of a page may have begun; None: now. Raises InvalidRequest: "bad_cursor"."""
    return datetime.fromtimestamp(_read(cursor)[0] / 1_000_000, UTC) if cursor is not None else None


def _read(cursor: str) -> tuple[int, str]:
    """The place that a cursor names; the session itself may be gone by now."""
    started, dot, name = cursor.partition(".")
    if not dot or not (started.isascii() and started.isdigit()) or len(cursor) > 128:
        raise InvalidRequest(
            "after is no `next` of a page before; leave it out for the first page", code="bad_cursor"
        )
    return int(started), name
