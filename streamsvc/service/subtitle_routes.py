"""Subtitles of a session: captions.vtt, captions.srt and captions.json.

In the spoken language or translated, as a complete file or followed live.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.events.subscription import Subscription
from streamsvc.service.closing_stream import ClosingStream
from streamsvc.service.question_routes import SSE_HEADERS
from streamsvc.service.rights import share_of
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.speech import captions

_TYPES = {"vtt": "text/vtt", "srt": "application/x-subrip"}


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @routes.get("/{session_id}/captions.{form}")
    async def subtitles(
        request: Request,
        session_id: str,
        form: Literal["vtt", "srt", "json"],
        lang: Annotated[
            str | None,
            Query(max_length=16, description="captions spoken in this language or translated into it"),
        ] = None,
        follow: bool = False,
    ) -> Response:
        """All closed captions so far, as a complete file.

        `follow=1` streams further captions until the session ends.
        """
        session = await service.sessions.open(session_id)
        language = lang.split("-")[0].lower() if lang else None
        closed = cues(session, language)
        if form == "json":
            if follow:
                raise InvalidRequest(
                    "Only vtt and srt can be followed; for JSON, subscribe to the events",
                    code="cannot_follow",
                )
            return JSONResponse(captions.to_json(closed))
        if follow:
            # No await between reading the closed cues and subscribing: no cue is lost or written twice.
            subscription = session.log.subscribe(
                ["caption.final", "caption.translation"], share=share_of(service.auth.of(request.scope))
            )
            file = captions.SubtitleWriter(form)
            head = file.head + "".join(file.write(cue.start, cue.end, cue.text) for cue in closed)
            return ClosingStream(
                _follow(session, subscription, file, head, language),
                lambda: session.log.unsubscribe(subscription),
                _TYPES[form],
                SSE_HEADERS,
            )
        text = captions.to_vtt(closed, session.timeline.gaps) if form == "vtt" else captions.to_srt(closed)
        return PlainTextResponse(text, media_type=_TYPES[form], headers={"Cache-Control": "no-cache"})

    return routes


def cues(session: Session, language: str | None) -> Sequence[captions.Caption]:
    """Closed captions in one language, sorted by start; None: all, as spoken.

    A translation has the times of its original.
    """
    if language is None:
        return session.dispatcher.cues
    every: list[captions.Caption] = [*session.dispatcher.cues, *session.dispatcher.translations]
    return sorted((cue for cue in every if cue.language == language), key=lambda cue: cue.start)


async def _follow(
    session: Session,
    subscription: Subscription,
    file: captions.SubtitleWriter,
    head: str,
    language: str | None,
) -> AsyncGenerator[str, None]:
    """Pieces of a growing subtitle file.

    A reader that falls behind is disconnected; it can request the file again.
    """
    try:
        yield head
        while (batch := await subscription.next()) is not None:
            for _, text in batch:
                event = json.loads(text)
                if event["language"] == language or (language is None and event["type"] == "caption.final"):
                    yield file.write(*_span(session, event), event["text"])
    except StreamsvcError:
        return


def _span(session: Session, event: dict[str, Any]) -> tuple[float, float]:
    """Start and end of the speech of a caption event, in session seconds."""
    if "of" not in event:
        return event["start"], event["end"]
    translation = next(unit for unit in reversed(session.dispatcher.translations) if unit.of == event["of"])
    return translation.start, translation.end
