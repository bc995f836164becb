"""Routes of a session: create, describe, delete, statistics, search and keyframes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from streamsvc.core.config import Phrases
from streamsvc.core.errors import InvalidRequest, NotFound
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.service.auth import requirement
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.timeline.ranking import Hit


class NewSession(BaseModel):
    """Body of POST /v1/sessions."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(
        None,
        max_length=4096,
        description="rtsp://…, http(s)://… or file:/…; null: a publisher connects by WHIP",
    )
    speed: float | Literal["max"] = 1.0
    language: str | None = Field(None, max_length=16)
    vocabulary: list[str] = Field(default_factory=list, max_length=200)
    translate: bool | None = Field(
        None, description="translate captions to English; requires a multilingual model"
    )
    replace: Phrases = Field(
        default_factory=dict, description="phrases of captions and the spelling that replaces each"
    )
    adapter: str | None = Field(
        None, max_length=64, description="LoRA adapter of the VLM (profile gpu), by the name of its folder"
    )
    no_store: bool = False

    def options(self) -> SessionOptions:
        """The options of the session."""
        speech = SpeechOptions(
            language=self.language,
            vocabulary=tuple(self.vocabulary),
            translate=self.translate,
            replace=self.replace,
        )
        return SessionOptions(speech, VisionOptions(adapter=self.adapter), stored=not self.no_store)


def router(service: Service) -> APIRouter:
    """The routes; creating sessions is rate limited by client address."""
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])
    publish = Depends(requirement(service.auth, "publish"))
    subscribe = Depends(requirement(service.auth, "subscribe"))
    limiter = RateLimiter(service.settings.limits.requests_per_minute)

    @routes.post("", status_code=201, dependencies=[publish])
    async def create(body: NewSession, request: Request, response: Response) -> dict[str, Any]:
        """Open a session. With a source it starts at once; without one it waits for a publisher."""
        limiter.take(request.client.host if request.client else "")
        if body.speed != "max" and not 0.1 <= body.speed <= 100:
            raise InvalidRequest('speed must be a number from 0.1 to 100, or "max"', code="bad_speed")
        session = await service.sessions.create(
            body.source,
            body.options(),
            speed=None if body.speed == "max" else float(body.speed),
            roots=service.settings.server.sources,
        )
        response.headers["Location"] = service.settings.server.address(f"/v1/sessions/{session.id}")
        return session.describe()

    @routes.get("/{session_id}", dependencies=[subscribe])
    async def show(session_id: str) -> dict[str, Any]:
        """State, tracks and URLs of a session."""
        return service.sessions.find(session_id).describe()

    @routes.delete("/{session_id}", dependencies=[publish])
    async def delete(session_id: str, purge: bool = False) -> dict[str, Any]:
        """End a session. `purge=1` also erases it at once."""
        await service.sessions.delete(session_id, purge=purge)
        return {"id": session_id, "purged": purge}

    @routes.get("/{session_id}/stats", dependencies=[subscribe])
    async def stats(session_id: str) -> dict[str, Any]:
        """Ages by kind, coverage, backlog and transport statistics."""
        session = service.sessions.find(session_id)
        publisher = session.media.publisher
        return {
            **session.latency.body(0.0, session.level),
            "state": session.state.value,
            "ingest": publisher.stats() if publisher is not None else {},
        }

    @routes.get("/{session_id}/search", dependencies=[subscribe], response_model=Any)
    async def find(
        session_id: str,
        q: Annotated[str, Query(min_length=1, max_length=500)],
        limit: Annotated[int, Query(ge=1, le=50)] = 10,
    ) -> list[dict[str, Any]]:
        """Search speech and screen text by words and by meaning, best match first.

        A match has the URL of the keyframe at its time, if that is still stored.
        """
        session = service.sessions.find(session_id)
        stored = {picture.start for picture in session.timeline.shown[-session.settings.store.frames :]}
        hits = await service.sessions.search(session_id, q, limit)
        return [_match(session, hit, hit.frame in stored) for hit in hits]

    @routes.get("/{session_id}/frames/{at}.jpg", dependencies=[subscribe])
    async def frame(session_id: str, at: float) -> Response:
        """The last keyframe at or before session second `at`."""
        jpeg = await asyncio.to_thread(service.sessions.find(session_id).store.frame, at)
        if jpeg is None:
            raise NotFound("No keyframe is stored for this time", code="no_frame")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return routes


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
