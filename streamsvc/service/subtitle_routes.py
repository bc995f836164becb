"""The doors of subtitles: captions.vtt, .srt and .json, in the language that was spoken or a translated one, whole or followed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from streamsvc.core.errors import InvalidRequest
from streamsvc.events.subscription import SlowSubscriber, Subscription
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.speech import captions

_TYPES = {"vtt": "text/vtt", "srt": "application/x-subrip"}


def router(service: Service, allowed: Any) -> APIRouter:
    """The routes. `allowed`: the dependency that lets in who may subscribe."""
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @routes.get("/{session_id}/captions.{form}", dependencies=[allowed])
    async def subtitles(
        session_id: str,
        form: Literal["vtt", "srt", "json"],
        lang: Annotated[
            str | None,
            Query(max_length=16, description="what was said in this language, or translated into it"),
        ] = None,
        follow: bool = False,
    ) -> Response:
        """All closed captions so far: a whole, valid file at every instant. `follow=1`: then each as it closes, to the session's end."""
        session = service.sessions.find(session_id)
        language = lang.split("-")[0].lower() if lang else None
        closed = track(session, language)
        if form == "json":
            if follow:
                raise InvalidRequest(
                    "only vtt and srt can be followed; for JSON there are the events", code="cannot_follow"
                )
            return JSONResponse(captions.to_json(closed))
        if follow:
            # Between the next line and the last nothing is awaited: a cue is among the closed ones, or an event.
            following = session.log.subscribe(["caption.final", "caption.translation"])
            file = captions.SubtitleWriter(form)
            first = file.head + "".join(file.write(cue.start, cue.end, cue.text) for cue in closed)
            pieces = _follow(session, following, file, first, language)
            return StreamingResponse(
                pieces,
                media_type=_TYPES[form],
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        text = captions.to_vtt(closed) if form == "vtt" else captions.to_srt(closed)
        return PlainTextResponse(text, media_type=_TYPES[form], headers={"Cache-Control": "no-cache"})

    return routes


def track(session: Session, language: str | None) -> Sequence[captions.Caption]:
    """The closed captions of one language, translated ones at the times of what they translate; None: all, as they were said."""
    if language is None:
        return session.published.cues
    every: list[captions.Caption] = [*session.published.cues, *session.published.translations]
    return sorted((cue for cue in every if cue.language == language), key=lambda cue: cue.start)


async def _follow(
    session: Session, following: Subscription, file: captions.SubtitleWriter, first: str, language: str | None
) -> AsyncIterator[str]:
    """Pieces of a subtitle file. A reader that falls behind the limits of subscribers is let go, and may come again for all of it."""
    try:
        yield first
        while (batch := await following.next()) is not None:
            for _, text in batch:
                event = json.loads(text)
                if event["language"] == language or (language is None and event["type"] == "caption.final"):
                    yield file.write(*_span(session, event), event["text"])
    except SlowSubscriber:
        return
    finally:
        session.log.unsubscribe(following)


def _span(session: Session, event: dict[str, Any]) -> tuple[float, float]:
    """When the speech of a caption event began and ended, in session seconds."""
    if "of" not in event:
        return event["start"], event["end"]
    unit = next(unit for unit in reversed(session.published.translations) if unit.of == event["of"])
    return unit.start, unit.end
