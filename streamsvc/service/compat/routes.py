"""The routes of this room: /v1/realtime (OpenAI), /v1/listen (Deepgram), and /v1/sessions/{id}/audio (our own)."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect

from streamsvc.core.errors import CapacityError, InvalidRequest, NotFound, StreamsvcError
from streamsvc.events.schema import VERSION
from streamsvc.service.auth import SUBPROTOCOL
from streamsvc.service.compat import deepgram_file, deepgram_live, openai_realtime
from streamsvc.service.compat.audio_session import Bounds, Feed, SessionOver, fits
from streamsvc.service.compat.websocket import admit, deny, farewell, hear, say, together
from streamsvc.service.media_input import State
from streamsvc.service.rate_limit import Rate
from streamsvc.service.service import Service
from streamsvc.service.session import Session


def router(service: Service, bounds: Bounds | None = None) -> APIRouter:
    """The routes; `bounds`: security limits of one connection."""
    limits = bounds or Bounds()
    routes = APIRouter(tags=["other people's protocols"])
    rate = Rate(service.settings.limits.requests_per_minute)
    uploads: set[str] = set()  # requests whose file is being taken or read

    @routes.websocket("/v1/realtime")
    async def transcription(socket: WebSocket) -> None:
        try:
            admit(service, rate, socket, socket.scope.get("subprotocols", ()))
            openai_realtime.check(socket.query_params.get("intent"))
            await openai_realtime.serve(service, socket, socket.query_params.get("model"), limits)
        except StreamsvcError as error:
            await deny(socket, error, {"error": openai_realtime.body(error)})

    @routes.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        request = str(uuid.uuid4())
        try:
            admit(service, rate, socket, socket.scope.get("subprotocols", ()))
            await deepgram_live.serve(service, socket, request, limits)
        except StreamsvcError as error:
            told = {"dg-request-id": request, "dg-error": error.message.encode("ascii", "replace").decode()}
            await deny(socket, error, deepgram_live.body(error, request), told)

    @routes.post("/v1/listen")
    async def transcribe(http: Request) -> Response:
        """Transcribe a whole file: the body is the file, or `{"url": …}`. The answer has Deepgram's shape."""
        request = str(uuid.uuid4())
        try:
            admit(service, rate, http)
            if len(uploads) >= service.settings.limits.sessions:
                raise CapacityError("as many files are being transcribed as there may be; try again later")
            uploads.add(request)
            answer = await deepgram_file.answer(service, http, request, limits)
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        except StreamsvcError as error:
            headers = error.headers() | {"dg-request-id": request}
            return JSONResponse(deepgram_live.body(error, request), error.status, headers)
        finally:
            uploads.discard(request)
        return JSONResponse(answer, headers={"dg-request-id": request, "Cache-Control": "no-store"})

    @routes.websocket("/v1/sessions/{session_id}/audio")
    async def audio(socket: WebSocket, session_id: str) -> None:
        offered = socket.scope.get("subprotocols", ())
        try:
            admit(service, rate, socket, _ours(offered), session_id, listen=False)
            await _publish(service.sessions.find(session_id), socket, limits)
        except StreamsvcError as error:
            await deny(socket, error, error.body())

    return routes


def _ours(offered: Any) -> tuple[str, ...]:
    """Our own token subprotocol in the form that `socket.bearer` reads."""
    token = next((name.removeprefix(SUBPROTOCOL) for name in offered if name.startswith(SUBPROTOCOL)), None)
    return tuple(offered) if token is None else ("bearer", token)


async def _publish(session: Session, socket: WebSocket, bounds: Bounds) -> None:
    """Publish PCM to a session: binary messages, or `input_audio_buffer.append`; it goes on where the session's time is."""
    form = deepgram_live.audio_format(
        QueryParams({"encoding": "linear16", "sample_rate": "16000"} | dict(socket.query_params))
    )
    if session.state is State.ENDED:
        raise NotFound("this session has ended", code="session_ended")
    feed = Feed(session, form, start=session.clock.position())
    session.media.attach(feed)
    try:
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(
            next((name for name in offered if name.startswith((SUBPROTOCOL, "streamsvc."))), None)
        )
        error = await together(_samples(session, feed, socket, bounds))
        if error is not None:
            await together(say(socket, {"v": VERSION, "type": "error", **error.body()}))
            await farewell(socket, error.close_code, error.code)
    finally:
        session.media.publisher_state(feed, "closed", "socket_closed")


async def _samples(session: Session, feed: Feed, socket: WebSocket, bounds: Bounds) -> None:
    while True:
        data = await hear(socket, bounds.idle_seconds)
        if session.state is State.ENDED or session.media.publisher is not feed:
            raise SessionOver("this session has ended", code="session_ended")
        fits(data, bounds)
        if isinstance(data, bytes):
            await feed.push(data)
            continue
        try:
            event = json.loads(data)
            kind = event.get("type")
            if kind == "session.close":  # the end: what was said last is still captioned
                session.end("source_ended")
                await farewell(socket, 1000, "session_closed")
                return
            if kind != "input_audio_buffer.append":
                raise InvalidRequest(
                    "messages are samples, input_audio_buffer.append and session.close", code="unknown_type"
                )
            samples = base64.b64decode(event["audio"], validate=True)
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest("input_audio_buffer.append has `audio`, base64", code="bad_audio") from None
        await feed.push(samples)
