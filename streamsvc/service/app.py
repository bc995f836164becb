"""The HTTP and WebSocket doors in front of the service. Every error has the same body, and no token is ever logged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint
from starlette.websockets import WebSocketState

import streamsvc
from streamsvc.answers import watches
from streamsvc.core import metrics
from streamsvc.core.config import Phrases, Settings
from streamsvc.core.errors import InvalidRequest, NotFound, StreamsvcError, TooLarge
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.types import Grants
from streamsvc.events import schema
from streamsvc.events.subscription import Subscription
from streamsvc.ingest import whip
from streamsvc.service import caption_push_routes, question_routes, subtitle_routes, watch_routes
from streamsvc.service.auth import SUBPROTOCOL, need
from streamsvc.service.compat import routes
from streamsvc.service.rate_limit import Rate
from streamsvc.service.service import Service
from streamsvc.service.session import Session

log = structlog.get_logger()
WEB = Path(__file__).parents[1] / "web"
SUBPROTOCOL_PLAIN = "streamsvc.v1"
_JSON_BODY = 4 * 1024 * 1024  # bytes; security limit (an image sent with a question is base64)
_KEEPALIVE = 15.0  # seconds between comments on a quiet SSE stream
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' blob: data:; media-src 'self' blob:; "
        "style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class NewSession(BaseModel):
    """Body of POST /v1/sessions."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(
        None, max_length=4096, description="rtsp://…, http(s)://…, file:/…; none: publish by WHIP"
    )
    speed: float | Literal["max"] = 1.0
    language: str | None = Field(None, max_length=16)
    vocabulary: list[str] = Field(default_factory=list, max_length=200)
    translate: bool | None = Field(None, description="captions in English too; needs a multilingual model")
    replace: Phrases = Field(
        default_factory=dict, description="phrases of captions -> how they are to be written"
    )
    adapter: str | None = Field(
        None, max_length=64, description="of the model that sees (profile gpu), by its folder's name"
    )
    no_store: bool = False


class NewToken(BaseModel):
    """Body of POST /v1/tokens."""

    model_config = ConfigDict(extra="forbid")

    session: str = "*"
    may: list[str] = Field(default_factory=lambda: ["subscribe"])
    expires_in: float = 3600  # seconds


def build(service: Service) -> FastAPI:
    """The application in front of a running service."""
    app = FastAPI(
        title="streamsvc", version=streamsvc.__version__, description=streamsvc.__doc__ or "", redoc_url=None
    )
    app.state.service = service
    app.include_router(_sessions(service))
    app.include_router(subtitle_routes.router(service, Depends(_allowed(service, "subscribe"))))
    app.include_router(_operations(service))
    app.include_router(whip.router(_Whip(service)))
    app.include_router(routes.router(service))
    publish, subscribe, ask = (Depends(_allowed(service, right)) for right in ("publish", "subscribe", "ask"))
    app.include_router(question_routes.router(service.sessions.find, ask))
    app.include_router(caption_push_routes.router(service.pushes, publish))
    app.include_router(watch_routes.router(service.sessions.find, publish, subscribe))
    _faces(app)
    _errors(app)

    @app.middleware("http")
    async def dress(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Add the security headers; refuse foreign hosts and origins before anything is done."""
        if not request.url.path.startswith("/whip"):  # WHIP has CORS rules of its own
            try:
                service.auth.check_origin(request.headers)
            except StreamsvcError as error:
                return _failed(error)
        response = await call_next(request)
        for name, value in _HEADERS.items():
            if name != "Content-Security-Policy" or request.url.path not in (
                "/docs",
                "/docs/oauth2-redirect",
            ):
                response.headers.setdefault(name, value)
        return response

    return app


# --- errors ---------------------------------------------------------------------------------------------------------


def _failed(error: StreamsvcError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers())


def _errors(app: FastAPI) -> None:
    @app.exception_handler(StreamsvcError)
    async def ours(request: Request, error: StreamsvcError) -> Response:
        return _failed(error)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'][1:]) or 'body'}: {item['msg']}"
            for item in error.errors()
        )
        return _failed(InvalidRequest(told))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        body = {
            "error": {
                "type": "invalid_request_error",
                "code": code,
                "message": str(error.detail),
                "retryable": False,
            }
        }
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("request failed", path=request.url.path, error=type(error).__name__)
        return _failed(StreamsvcError("something went wrong here; the log names it by class only"))


# --- sessions, questions, captions ----------------------------------------------------------------------------------


def _allowed(service: Service, permission: str) -> Callable[[Request], Grants]:
    """A dependency: the bearer's grants, checked for the session in the path; GETs also by a signed URL."""

    def check(request: Request) -> Grants:
        session = request.path_params.get("session_id")
        query = request.query_params
        if request.method == "GET" and service.auth.check_signed(
            request.url.path, query.get("exp"), query.get("sig")
        ):
            return Grants("signed", str(session), publish=False, subscribe=True, ask=False, expires=None)
        grants = service.auth.grants(request.headers)
        need(grants, session, permission)
        return grants

    return check


def _sessions(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
    publish, subscribe = (Depends(_allowed(service, name)) for name in ("publish", "subscribe"))
    rate = Rate(service.settings.limits.requests_per_minute)

    @router.post("", status_code=201, dependencies=[publish])
    async def create(body: NewSession, request: Request, response: Response) -> dict[str, Any]:
        """Open a session: with a source it plays at once, without one it waits for a publisher."""
        rate.take(request.client.host if request.client else "")
        if body.speed != "max" and not 0.1 <= body.speed <= 100:
            raise InvalidRequest('speed is a number from 0.1 to 100, or "max"', code="bad_speed")
        session = await service.sessions.create(
            body.source,
            SessionOptions(
                SpeechOptions(
                    language=body.language,
                    vocabulary=tuple(body.vocabulary),
                    translate=body.translate,
                    replace=body.replace or {},
                ),
                VisionOptions(adapter=body.adapter),
                stored=not body.no_store,
            ),
            speed=None if body.speed == "max" else float(body.speed),
            roots=service.settings.server.sources,
        )
        response.headers["Location"] = f"/v1/sessions/{session.id}"
        return session.describe()

    @router.get("/{session_id}", dependencies=[subscribe])
    async def show(session_id: str) -> dict[str, Any]:
        """State, tracks and addresses of a session."""
        return service.sessions.find(session_id).describe()

    @router.delete("/{session_id}", dependencies=[publish])
    async def delete(session_id: str, purge: bool = False) -> dict[str, Any]:
        """End a session; with `purge=1` it is erased at once."""
        await service.sessions.delete(session_id, purge=purge)
        return {"id": session_id, "purged": purge}

    @router.get("/{session_id}/stats", dependencies=[subscribe])
    async def stats(session_id: str) -> dict[str, Any]:
        """Ages by kind, coverage, backlog, and what the transport counted."""
        session = service.sessions.find(session_id)
        told = getattr(session.media.publisher, "stats", None)
        return {
            **session.latency.body(0.0, session.level),
            "state": session.state.value,
            "ingest": told() if told else {},
        }

    @router.get("/{session_id}/search", dependencies=[subscribe])
    async def find(
        session_id: str,
        q: Annotated[str, Query(min_length=1, max_length=500)],
        limit: Annotated[int, Query(ge=1, le=50)] = 10,
    ) -> Any:
        """What was said and shown that fits `q`, by its words and by its meaning, best first; with the picture shown then, if any."""
        session = service.sessions.find(session_id)
        kept = {picture.start for picture in session.timeline.shown[-session.settings.store.frames :]}
        found = []
        for hit in await service.sessions.search(session_id, q, limit):
            told = {
                "start": hit.start,
                "end": hit.end,
                "kind": hit.kind,
                "text": hit.text,
                "score": hit.score,
            }
            found.append(
                told
                | (
                    {"frame_url": session.frame_url(hit.frame)}
                    if hit.frame in kept and hit.frame is not None
                    else {}
                )
            )
        return found

    @router.get("/{session_id}/frames/{at}.jpg", dependencies=[subscribe])
    async def frame(session_id: str, at: float) -> Response:
        """The keyframe at or before session second `at`."""
        jpeg = await asyncio.to_thread(service.sessions.find(session_id).store.frame, at)
        if jpeg is None:
            raise NotFound("there is no picture at that time", code="no_frame")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @router.get("/{session_id}/events")
    async def follow(
        request: Request,
        session_id: str,
        types: str = "",
        epoch: str | None = None,
        after: int | None = None,
        client: str = "",
    ) -> Response:
        """The session's events as Server-Sent Events; upgraded to a WebSocket it is the event socket."""
        _allowed(service, "subscribe")(request)
        session = service.sessions.find(session_id)
        last = request.headers.get("last-event-id", "")
        if last and after is None:
            named, _, number = last.partition(".")
            if number.isdigit():
                epoch, after = named, int(number)
        subscription = session.log.subscribe(_patterns(types), client[:64])
        return StreamingResponse(
            _event_stream(session, subscription, epoch, after),
            media_type="text/event-stream",
            headers=question_routes.SSE_HEADERS,
        )

    @router.websocket("/{session_id}/events")
    async def events(
        socket: WebSocket,
        session_id: str,
        types: str = "",
        epoch: str | None = None,
        after: int | None = None,
        client: str = "",
    ) -> None:
        await _event_socket(service, socket, session_id, _patterns(types), epoch, after, client[:64])

    return router


def _patterns(types: str) -> list[str]:
    return [pattern.strip() for pattern in types.split(",") if pattern.strip()][:32]


async def _past(
    session: Session, subscription: Subscription, epoch: str | None, after: int | None
) -> list[tuple[int | None, str]]:
    """What a resuming subscriber has missed."""
    if after is None:
        return []
    entries, gap = await session.log.since(after, epoch, session.log.seq)
    replayed = subscription.replay(entries)
    subscription.skip_to(entries[-1].seq or 0 if entries else after)
    return ([(None, gap.text + "}")] if gap is not None else []) + replayed


async def _event_stream(
    session: Session, subscription: Subscription, epoch: str | None, after: int | None
) -> AsyncIterator[str]:
    try:
        batch: list[tuple[int | None, str]] | None = await _past(session, subscription, epoch, after)
        while batch is not None:
            for seq, text in batch:
                kind = json.loads(text)["type"]
                yield (
                    f"id: {session.log.epoch}.{seq}\n" if seq is not None else ""
                ) + f"event: {kind}\ndata: {text}\n\n"
            try:
                async with asyncio.timeout(_KEEPALIVE):
                    batch = await subscription.next()
            except TimeoutError:
                batch = []
                yield ": still here\n\n"
            except StreamsvcError:
                return  # too slow: an EventSource comes back by itself with Last-Event-ID
    finally:
        session.log.unsubscribe(subscription)


# --- the event socket -----------------------------------------------------------------------------------------------


async def _event_socket(
    service: Service,
    socket: WebSocket,
    session_id: str,
    types: list[str],
    epoch: str | None,
    after: int | None,
    client: str,
) -> None:
    offered = tuple(socket.scope.get("subprotocols", ()))
    chosen = next(
        (name for name in offered if name.startswith(SUBPROTOCOL) or name == SUBPROTOCOL_PLAIN), None
    )
    session: Session | None = None
    subscription: Subscription | None = None
    failure: StreamsvcError | None = None
    try:
        grants = service.auth.grants(socket.headers, offered)
        need(grants, session_id, "subscribe")
        session = service.sessions.find(session_id)
        subscription = session.log.subscribe(types, client)
    except StreamsvcError as error:
        failure = error
    try:
        await socket.accept(chosen)
        if session is None or subscription is None:
            assert failure is not None
            await _refuse(socket, failure)
            return
        async with asyncio.TaskGroup() as both:
            sending = both.create_task(_send_events(socket, session, subscription, epoch, after))
            receiving = both.create_task(_receive(service, socket, session, subscription, grants))
            sending.add_done_callback(lambda _: receiving.cancel())
            receiving.add_done_callback(lambda _: sending.cancel())
    except* (WebSocketDisconnect, RuntimeError, OSError):
        pass  # the subscriber left, perhaps before it was let in
    finally:
        if session is not None and subscription is not None:
            session.log.unsubscribe(subscription)


async def _refuse(socket: WebSocket, error: StreamsvcError) -> None:
    with contextlib.suppress(RuntimeError, OSError):
        await socket.send_text(json.dumps({"v": schema.VERSION, "type": "error", **error.body()}))
        await socket.close(error.close_code, error.code)


async def _send_events(
    socket: WebSocket, session: Session, subscription: Subscription, epoch: str | None, after: int | None
) -> None:
    try:
        for _, text in await _past(session, subscription, epoch, after):
            await socket.send_text(text)
        while (batch := await subscription.next()) is not None:
            for _, text in batch:
                async with asyncio.timeout(session.settings.limits.subscriber_seconds):
                    await socket.send_text(text)
        await socket.close(1000, "session_closed")
    except TimeoutError:
        await socket.close(4008, "too_slow")
    except StreamsvcError as error:
        await socket.close(error.close_code, error.code)


async def _receive(
    service: Service, socket: WebSocket, session: Session, subscription: Subscription, grants: Grants
) -> None:
    """Client messages; a bad one is answered with an error event and changes nothing else."""
    while socket.client_state is WebSocketState.CONNECTED:
        text = await socket.receive_text()
        try:
            _message(service, text, session, subscription, grants)
        except StreamsvcError as error:
            _tell(subscription, session, "error", error.body())


def _message(
    service: Service, text: str, session: Session, subscription: Subscription, grants: Grants
) -> None:
    if len(text) > session.settings.limits.message_bytes:
        raise TooLarge(f"a message has at most {session.settings.limits.message_bytes} bytes")
    try:
        message = json.loads(text)
        if "\\u" in text:
            json.dumps(
                message, ensure_ascii=False
            ).encode()  # half a character could not be sent on, nor stored
    except (ValueError, RecursionError):
        raise InvalidRequest("a message is one JSON object", code="bad_json") from None
    if not isinstance(message, Mapping):
        raise InvalidRequest("a message is one JSON object", code="bad_json")
    match message.get("type"):
        case "ping":
            _tell(subscription, session, "pong", {"id": str(message["id"])[:64]} if "id" in message else {})
        case "question.ask":
            need(grants, session.id, "ask")
            question_routes.ask(session, message, subscription.client)
        case "question.cancel":
            need(grants, session.id, "ask")
            session.answering.cancel(str(message.get("id"))[:64], subscription.client)
        case "watch.add" | "watch.remove" as kind:
            need(grants, session.id, "ask")
            named = message.get("when" if kind == "watch.add" else "watch_id")
            if not isinstance(named, str) or not isinstance(
                cooldown := message.get("cooldown_s", watches.COOLDOWN), int | float
            ):
                raise InvalidRequest(
                    "watch.add has `when` and `cooldown_s`, watch.remove `watch_id`", code="bad_watch"
                )
            watch = (
                session.watches.add(named, cooldown) if kind == "watch.add" else session.watches.remove(named)
            )
            done = "watch.added" if kind == "watch.add" else "watch.removed"
            _tell(subscription, session, done, {"watch_id": watch["id"], "when": watch["when"]})
        case "session.update":
            need(grants, session.id, "publish")
            language = message.get("language")
            if set(message) != {"type", "language"} or not isinstance(language, str | None):
                raise InvalidRequest(
                    "session.update has a language, or null: it is to be detected", code="bad_update"
                )
            service.sessions.set_language(session.id, language)
        case kind:
            told = f"{str(kind)[:64]!r} is no message type; there are question.ask/cancel, watch.add/remove, session.update and ping"
            raise InvalidRequest(told, code="unknown_type")


def _tell(subscription: Subscription, session: Session, kind: str, body: Mapping[str, Any]) -> None:
    """An event for this subscriber alone, whatever it filters."""
    session.log.whisper(subscription, kind, body)


# --- operations, faces, WHIP ----------------------------------------------------------------------------------------


def _operations(service: Service) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def ready() -> Response:
        """Whether sessions can be served now."""
        up = {role: worker.ready for role, worker in service.workers.items()}
        good = up["hear"] and up["see"] and not service.sessions.draining
        return JSONResponse(
            {"ready": good, "workers": up, "draining": service.sessions.draining}, 200 if good else 503
        )

    @router.get("/metrics")
    async def exposition(request: Request) -> Response:
        """Prometheus metrics."""
        service.auth.grants(request.headers)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/capacity")
    async def capacity(request: Request) -> dict[str, Any]:
        """How many sessions are live, and how many may be."""
        service.auth.grants(request.headers)
        return {
            "sessions": len(service.sessions.live),
            "limit": service.settings.limits.sessions,
            "level": service.load_controller.state.level,
            "draining": service.sessions.draining,
        }

    @router.get("/v1/schema")
    async def events_schema() -> dict[str, Any]:
        """JSON Schema of every event."""
        return schema.document()

    rate = Rate(service.settings.limits.requests_per_minute)

    @router.post("/v1/tokens", status_code=201)
    async def token(body: NewToken, request: Request) -> dict[str, Any]:
        """A short-lived token with no more rights than one's own."""
        rate.take(request.client.host if request.client else "")
        grants = service.auth.grants(request.headers)
        text = service.auth.token(grants, session=body.session, may=tuple(body.may), seconds=body.expires_in)
        return {"token": text, "expires_in": body.expires_in}

    return router


def _faces(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html")

    @app.get("/overlay/{session_id}", include_in_schema=False)
    async def overlay(session_id: str) -> Response:
        return FileResponse(WEB / "overlay.html")

    app.mount("/web", StaticFiles(directory=WEB), name="web")


class _Whip:
    """What the WHIP door asks of the service."""

    def __init__(self, service: Service) -> None:
        self.limits = service.settings.limits
        self._service = service
        self._rate = Rate(service.settings.limits.requests_per_minute)

    async def authorise(self, request: Request, session: str | None, right: str) -> Grants:
        """The bearer's grants for publishing to a session."""
        grants = self._service.auth.grants(request.headers)
        need(grants, session, right)
        return grants

    async def publish(self, session: str | None, offer: str, grants: Grants) -> whip.Publication:
        """Answer an offer."""
        self._rate.take(grants.tenant)
        return await self._service.publications.publish(session, offer)

    def find(self, resource: str) -> whip.Publication | None:
        """A publication by the name in its Location."""
        return self._service.publications.by_resource.get(resource)

    async def end(self, resource: str) -> None:
        """End a publication."""
        await self._service.publications.unpublish(resource)

    def ice_links(self, grants: Grants) -> list[str]:
        """The ICE servers that a publisher may use."""
        return [f'<{url}>; rel="ice-server"' for url in self._service.settings.ingest.ice_servers]


@contextlib.asynccontextmanager
async def listening(
    settings: Settings, listener: socket.socket, tls: tuple[str, str] | None = None
) -> AsyncIterator[tuple[Service, asyncio.Task[None]]]:
    """A service with its doors open at a bound socket; the models load meanwhile.

    Args:
        settings: validated.
        listener: bound and listening; the caller closes it.
        tls: certificate chain and key, PEM files.

    Yields:
        The service, and the task that serves: it ends only when something is wrong.
    """
    async with Service(settings) as service:
        doors = uvicorn.Server(
            uvicorn.Config(
                build(service),
                ws="websockets-sansio",  # the default one imports websockets.legacy, which warns
                ws_max_size=settings.limits.message_bytes + 2 * settings.limits.image_bytes,
                ws_per_message_deflate=False,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,  # it would log query strings
                timeout_graceful_shutdown=5,
                ssl_certfile=tls[0] if tls else None,
                ssl_keyfile=tls[1] if tls else None,
                server_header=False,
            )
        )
        doors.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # the caller drains first
        serving = asyncio.create_task(doors.serve(sockets=[listener]))
        try:
            yield service, serving
        finally:
            await service.drain()
            doors.should_exit = True
            await serving
