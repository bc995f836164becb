"""The routes /v1/realtime (OpenAI), /v1/listen (Deepgram) and /v1/sessions/{id}/audio."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import uuid

from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect

from streamsvc.core.errors import CapacityError, InvalidRequest, NotFound, StreamsvcError
from streamsvc.events import schema
from streamsvc.service.compat import deepgram_file, deepgram_live, deepgram_messages, openai_realtime
from streamsvc.service.compat.audio_session import ConnectionLimits, PcmPublisher, SessionOver, check_size
from streamsvc.service.compat.deepgram_options import audio_format
from streamsvc.service.compat.websocket import admit, close, deny, receive, run_until_first_ends, send
from streamsvc.service.media_input import State
from streamsvc.service.places import check_share
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.service import Service
from streamsvc.service.session import Session


def router(service: Service, limits: ConnectionLimits | None = None) -> APIRouter:
    """The routes. `limits`: security limits of one connection."""
    bounds = limits or ConnectionLimits()
    limiter = RateLimiter(service.settings.limits.requests_per_minute)
    routes = APIRouter(tags=["other people's protocols"])

    @routes.websocket("/v1/realtime")
    async def transcription(socket: WebSocket) -> None:
        try:
            admit(service, limiter, socket)
            openai_realtime.check_intent(socket.query_params.get("intent"))
            await openai_realtime.serve(service, socket, socket.query_params.get("model"), bounds)
        except StreamsvcError as error:
            await deny(socket, error, {"error": openai_realtime.error_body(error)})

    @routes.websocket("/v1/listen")
    async def listen(socket: WebSocket) -> None:
        request_id = str(uuid.uuid4())
        try:
            admit(service, limiter, socket)
            await deepgram_live.serve(service, socket, request_id, bounds)
        except StreamsvcError as error:
            headers = {
                "dg-request-id": request_id,
                "dg-error": error.message.encode("ascii", "replace").decode(),
            }
            await deny(socket, error, deepgram_messages.error_body(error, request_id), headers)

    _add_file_route(routes, service, limiter, bounds)

    @routes.websocket("/v1/sessions/{session_id}/audio")
    async def audio(socket: WebSocket, session_id: str) -> None:
        try:
            grants = admit(service, limiter, socket)
            if service.part is not None:
                place = functools.partial(service.sessions.place, None, grants.holder, "audio")
                await service.part.publishing.prepare(session_id, place)
            await _publish(service, await service.sessions.open(session_id), socket, bounds)
        except StreamsvcError as error:
            await deny(socket, error, error.body())

    return routes


def _add_file_route(
    routes: APIRouter, service: Service, limiter: RateLimiter, limits: ConnectionLimits
) -> None:
    uploads: dict[str, str] = {}  # requests in progress: id -> holder

    @routes.post("/v1/listen")
    async def transcribe(http: Request) -> Response:
        """Transcribe a file: the body is the file, or `{"url": …}`.

        The response has Deepgram's format.
        """
        request_id = str(uuid.uuid4())
        try:
            grants = admit(service, limiter, http)
            most = service.settings.limits
            if len(uploads) >= most.sessions:
                raise CapacityError("The maximum number of files is being transcribed; try again later")
            check_share(grants.holder, uploads.values(), most.sessions_per_token)
            uploads[request_id] = grants.holder
            body = await deepgram_file.transcribe(service, http, request_id, limits)
        except ClientDisconnect:
            return Response(status_code=400)  # not received by the client
        except StreamsvcError as error:
            headers = error.headers() | {"dg-request-id": request_id}
            return JSONResponse(deepgram_messages.error_body(error, request_id), error.status, headers)
        finally:
            uploads.pop(request_id, None)
        return JSONResponse(body, headers={"dg-request-id": request_id, "Cache-Control": "no-store"})


# --- /v1/sessions/{id}/audio --------------------------------------------------------------------------------


async def _publish(service: Service, session: Session, socket: WebSocket, limits: ConnectionLimits) -> None:
    """Publish samples to a session, from its present position on.

    The query names the format; the default is 16-bit PCM at 16 kHz.
    """
    defaults = {"encoding": "linear16", "sample_rate": "16000"}
    samples_format = audio_format(QueryParams(defaults | dict(socket.query_params)))
    if session.state is State.ENDED:
        raise NotFound("The session has ended", code="session_ended")
    publisher = PcmPublisher(session, samples_format, start=session.clock.position())
    with service.sessions.place(session, kind="audio"):
        session.media.attach(publisher)
    try:
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(next((name for name in offered if name.startswith("streamsvc.")), None))
        error = await run_until_first_ends(_receive_samples(session, publisher, socket, limits))
        if error is not None:
            await run_until_first_ends(send(socket, schema.refusal(error.body(), session.id)))
            await close(socket, error.close_code, error.code)
    finally:
        session.media.publisher_state(publisher, "closed", "socket_closed")


async def _receive_samples(
    session: Session, publisher: PcmPublisher, socket: WebSocket, limits: ConnectionLimits
) -> None:
    while True:
        data = await receive(socket, limits.idle_seconds)
        if session.state is State.ENDED or session.media.publisher is not publisher:
            raise SessionOver("The session has ended", code="session_ended")
        check_size(data, limits)
        samples = data if isinstance(data, bytes) else _appended(data)
        if samples is None:
            session.end("source_ended")  # the last words are still transcribed
            await close(socket, 1000, "session_closed")
            return
        await publisher.push(samples)


def _appended(text: str) -> bytes | None:
    """The samples of an input_audio_buffer.append message; None for session.close."""
    try:
        event = json.loads(text)
        kind = event.get("type")
        if kind == "session.close":
            return None
        if kind != "input_audio_buffer.append":
            raise InvalidRequest(
                "Send samples as binary messages, or input_audio_buffer.append, or session.close",
                code="unknown_type",
            )
        return base64.b64decode(event["audio"], validate=True)
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidRequest(
            "input_audio_buffer.append requires a field `audio` in base64", code="bad_audio"
        ) from None
