"""Routes of sessions: list, create, describe, change, delete, statistics, record, search and keyframes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from streamsvc.core.errors import InvalidRequest, NotFound
from streamsvc.core.types import Grants
from streamsvc.core.units import Reply
from streamsvc.service import export, session_list
from streamsvc.service.audience import audience_of
from streamsvc.service.auth import root_of
from streamsvc.service.media_input import State
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.rights import counted_as, require_session
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.service.session_addresses import signed_addresses
from streamsvc.service.session_bodies import (
    DeletedSession,
    Match,
    NewSession,
    SessionBody,
    SessionPage,
    SessionUpdate,
    Stats,
    UpdatedSession,
)
from streamsvc.timeline.ranking import Hit


def router(service: Service) -> APIRouter:
    """The routes; creating sessions is rate limited by token, else by client address."""
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])
    limiter = RateLimiter(service.settings.limits.requests_per_minute)
    settings = service.settings

    def told(body: dict[str, Any], grants: Grants) -> dict[str, Any]:
        """The body of a session, with what its reader may read signed."""
        seconds = settings.store.retention + 3600
        return body | signed_addresses(body["id"], settings.server, service.auth, grants, seconds)

    @routes.get("", response_model=SessionPage)
    async def overview(
        request: Request,
        state: Annotated[
            list[Literal["created", "live", "stalled", "ended"]] | None,
            Query(description="only these; may be repeated"),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=128, description="`next` of the page before")] = None,
    ) -> dict[str, Any]:
        """The sessions that the token may see, newest first, live and ended ones."""
        sessions = service.sessions
        listed: list[session_list.Listed] = [*sessions.by_id.values(), *sessions.stored.by_id.values()]
        grants = service.auth.of(request.scope)
        if service.part is not None:
            known = {one.id for one in listed}
            listed += await service.part.sessions.listed(
                known, grants.session, state or (), limit + 1, session_list.begun_before(after)
            )
        shown = functools.partial(
            session_list.stored_overview, server=service.settings.server, sign=sessions.shared.sign
        )
        page = session_list.page(listed, grants, state or (), limit, after, shown)
        return page | {"sessions": [told(entry, grants) for entry in page["sessions"]]}

    @routes.post("", status_code=201, response_model=SessionBody)
    async def create(body: NewSession, request: Request, response: Response) -> dict[str, Any]:
        """Open a session. With a source it starts at once; without one it waits for a publisher.

        409: a live session has this name. Ended ones of the name stay readable under their ids.
        """
        grants = service.auth.of(request.scope)
        require_session(grants, body.name)
        limiter.take(counted_as(grants, request))
        if body.speed != "max" and not 0.1 <= body.speed <= 100:
            raise InvalidRequest('speed must be a number from 0.1 to 100, or "max"', code="bad_speed")
        session = await service.sessions.create(
            body.source,
            body.options(),
            name=body.name,
            speed=None if body.speed == "max" else float(body.speed),
            roots=service.settings.server.sources,
            holder=grants.holder,
        )
        response.headers["Location"] = service.settings.server.address(f"/v1/sessions/{session.id}")
        return told(session.describe(), grants)

    @routes.get("/{session_id}", response_model=SessionBody)
    async def show(session_id: str, request: Request) -> dict[str, Any]:
        """State, tracks and URLs of a session.

        With a key set `events_url`, `captions_url` and `overlay_url` are signed for whoever may subscribe:
        they open without a header, and end with the token that was shown here.
        """
        session = await service.sessions.open(session_id)
        return told(session.describe(), service.auth.of(request.scope))

    @routes.patch("/{session_id}", response_model=UpdatedSession)
    async def update(session_id: str, body: SessionUpdate, request: Request) -> dict[str, Any]:
        """Change language, vocabulary, replacements or translation while the session is live.

        From the next decoding step on; captions that are closed stay as they are. 409: it has ended. Each
        change is an event that is kept, so there may be `limits.updates_per_minute` alone.
        """
        grants = service.auth.of(request.scope)
        service.updates.take(f"{service.sessions.resolve(session_id)} {root_of(grants.holder)}")
        session = body.apply(service.sessions, session_id)
        speech = session.speech.options
        return told(session.describe(), grants) | {
            "language": speech.language,
            "vocabulary": list(speech.vocabulary),
            "replace": dict(speech.replace),
            "translate": bool(speech.translate),
        }

    @routes.delete("/{session_id}", response_model=DeletedSession)
    async def delete(session_id: str, purge: bool = False) -> dict[str, Any]:
        """End a session. `purge=1` also erases it at once; other broadcasts of its name stay."""
        return {"id": await service.sessions.delete(session_id, purge=purge), "purged": purge}

    @routes.get("/{session_id}/stats", response_model=Stats)
    async def stats(session_id: str) -> dict[str, Any]:
        """Ages by kind, coverage, backlog, degradation level, and what the publisher sends."""
        return (await service.sessions.open(session_id)).stats()

    @routes.get(
        "/{session_id}/export.md",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/markdown": {}}}},
    )
    async def export_markdown(
        session_id: str,
        request: Request,
        client: Annotated[
            str, Query(max_length=64, description="`client` of your event stream, for what it asked")
        ] = "",
    ) -> Response:
        """The session as a record to read: notes, transcript, screens, scenes, and questions with answers.

        Of the questions those that were asked for all, and your own.
        """
        session = await service.sessions.open(session_id)
        grants = service.auth.of(request.scope)
        mine = (grants.holder, audience_of(grants, client))
        record = _record(session, session.dispatcher.questions.seen_by(mine))
        text = await asyncio.to_thread(export.to_markdown, record)
        name = f'inline; filename="{session.id}.md"'
        headers = {"Content-Disposition": name, "Cache-Control": "no-cache"}
        return PlainTextResponse(text, media_type="text/markdown", headers=headers)

    @routes.get(
        "/{session_id}/search",
        response_model=list[Match],
        response_model_exclude_unset=True,
    )
    async def find(
        session_id: str,
        q: Annotated[str, Query(min_length=1, max_length=500)],
        limit: Annotated[int, Query(ge=1, le=50)] = 10,
    ) -> list[dict[str, Any]]:
        """Search speech and screen text by words and by meaning, best match first.

        A match has the URL of the keyframe at its time, if that is still stored.
        """
        session = await service.sessions.open(session_id)
        stored = {picture.start for picture in session.timeline.shown[-session.settings.store.frames :]}
        hits = await service.sessions.search(session_id, q, limit)
        return [_match(session, hit, hit.frame in stored) for hit in hits]

    @routes.get("/{session_id}/frames/{at}.jpg")
    async def frame(session_id: str, at: float) -> Response:
        """The last keyframe at or before session second `at`."""
        session = await service.sessions.open(session_id)
        jpeg = await asyncio.to_thread(session.store.frame, at)
        if jpeg is None and service.part is not None:  # of a session that is, or was, on another node
            jpeg = await service.part.remote.frame(session.id, at)
        if jpeg is None:
            raise NotFound("No keyframe is stored for this time", code="no_frame")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return routes


def _record(session: Session, replies: Sequence[Reply]) -> export.Record:
    """What is known of a session now, as a record: copies, for it may go on meanwhile."""
    timeline = session.timeline
    return export.Record(
        session.id,
        session.clock.started_utc,
        max(0.0, session.clock.position()) if session.media.state is not State.CREATED else 0.0,
        session.state is State.ENDED,
        tuple(session.dispatcher.cues),
        tuple(session.dispatcher.translations),
        tuple(sentence.evidence() for sentence in timeline.closed_sentences),
        tuple(timeline.gaps),
        tuple(timeline.screens),
        tuple(timeline.scenes),
        replies,
        str(session.failure) if session.failure is not None else "",
    )


def _match(session: Session, hit: Hit, has_frame: bool) -> dict[str, Any]:
    match = {
        "start": hit.start,
        "end": hit.end,
        "kind": hit.kind,
        "text": hit.text,
        "score": hit.score,
    }
    if has_frame and hit.frame is not None:
        match["frame_url"] = session.frame_url(hit.frame)
    return match
