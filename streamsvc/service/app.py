"""The HTTP application: routers, middleware, error handlers, health, metrics and tokens.

All errors have one JSON body (`StreamsvcError.body`). Tokens are never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

import streamsvc
from streamsvc.core import metrics
from streamsvc.core.config import Settings
from streamsvc.core.error_response import error_response, fault_response
from streamsvc.core.errors import ClusterUnavailable, InvalidRequest, NotFound, StreamsvcError
from streamsvc.core.plain_errors import plain_errors
from streamsvc.events import schema
from streamsvc.service import (
    caption_push_routes,
    doors,
    event_routes,
    health,
    hls_routes,
    hook_routes,
    node_routes,
    owner_routes,
    page_routes,
    question_routes,
    rights,
    session_routes,
    subtitle_routes,
    watch_routes,
    whip_routes,
)
from streamsvc.service.compat import routes as compat_routes
from streamsvc.service.compat.websocket import deny
from streamsvc.service.cors import Cors
from streamsvc.service.engine_table import think_model
from streamsvc.service.forwarding import Relayed
from streamsvc.service.http_server import ACCEPTED_AT_ONCE, Connections, protocol_with
from streamsvc.service.node_requests import NodeRequests
from streamsvc.service.public_path import PublicPath
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.refusal_log import RefusalLog
from streamsvc.service.request_guard import RequestGuard
from streamsvc.service.safe_responses import SafeResponses
from streamsvc.service.service import Service
from streamsvc.service.session_bodies import Capacity
from streamsvc.service.slow_readers import SlowReaders
from streamsvc.service.token_lifetime import TokenLifetime
from streamsvc.service.websocket_server import websocket_with


class NewToken(BaseModel):
    """Body of POST /v1/tokens."""

    model_config = ConfigDict(extra="forbid")

    session: str = "*"
    may: list[str] = Field(default_factory=lambda: ["subscribe"])
    expires_in: float = 3600  # seconds
    short: bool = Field(False, description="of about 100 characters, for stream keys, not a JWT")


def build(service: Service, connections: Connections | None = None) -> FastAPI:
    """The FastAPI application of a running service. `connections`: those of its HTTP server."""
    app = FastAPI(
        title="streamsvc",
        version=streamsvc.__version__,
        description=streamsvc.__doc__ or "",
        docs_url=None,  # FastAPI's own loads its scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    server = service.settings.server
    parts = (
        owner_routes.router(service),
        node_routes.router(service),
        session_routes.router(service),
        event_routes.router(service),
        subtitle_routes.router(service),
        hls_routes.router(service),
        _operations(service),
        whip_routes.router(service),
        hook_routes.router(service),
        question_routes.router(service.sessions.open, service.auth),
        caption_push_routes.router(
            service.pushes, lambda request: service.auth.of(request.scope), service.started
        ),
        watch_routes.router(service.sessions.open, service.auth, service.started),
    )
    for part in parts:
        checks = [Depends(rights.checked(service.auth)), Depends(owner_routes.at_owner(service))]
        app.include_router(part, dependencies=checks)
    app.include_router(compat_routes.router(service))  # tells refusals in other people's words
    page_routes.mount(app, server)
    if unknown := rights.unnamed(app.routes):
        raise RuntimeError(f"service/rights.py does not say who may use {', '.join(unknown)}")
    _add_error_handlers(app)
    app.add_middleware(
        RequestGuard, auth=service.auth, limits=service.settings.limits, connections=connections
    )
    # The last one added is the first that sees a request.
    nodes = service.part.publishing.origins if service.part is not None else None
    app.add_middleware(SafeResponses, auth=service.auth, nodes=nodes)
    app.add_middleware(Cors, origins=server.origins)
    app.add_middleware(TokenLifetime, auth=service.auth)
    app.add_middleware(SlowReaders, seconds=service.settings.limits.subscriber_seconds)
    app.add_middleware(RefusalLog)
    if service.part is not None:
        app.add_middleware(
            NodeRequests,
            auth=service.auth,
            part=service.part,
            most=2 * service.settings.limits.image_bytes + service.settings.limits.body_bytes,
            connections=connections,
        )
    app.add_middleware(PublicPath, prefix=server.prefix)
    return app


# --- errors -------------------------------------------------------------------------------------------------


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return fault_response()  # of the middleware in front of SafeResponses, which answers for the routes

    @app.exception_handler(Relayed)
    async def relayed(request: Request, answer: Relayed) -> Response:
        return answer.response  # of the node that the session lives on

    @app.exception_handler(StreamsvcError)
    async def streamsvc_error(request: Request, error: StreamsvcError) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return error_response(InvalidRequest(_plain(error.errors(), request)))

    @app.exception_handler(WebSocketRequestValidationError)
    async def socket_validation_error(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        await socket.accept()
        await event_routes.refuse(socket, InvalidRequest(_plain(error.errors(), socket)))

    async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await app.router.not_found(scope, receive, send)
            return
        error = NotFound("there is no WebSocket at this path; the event socket is /v1/sessions/ID/events")
        await deny(WebSocket(scope, receive, send), error, error.body())

    app.router.default = nowhere  # Starlette's own answers a handshake with 403

    @app.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        body = {
            "error": {
                "type": "invalid_request_error",
                "code": code,
                "message": _routing_message(request, error),
                "retryable": False,
            }
        }
        return JSONResponse(body, error.status_code, error.headers)


def _plain(errors: Sequence[Any], connection: HTTPConnection) -> str:
    """What was wrong with a request, in plain words: each value by its name."""
    body = getattr(connection.scope.get("route"), "body_field", None)
    is_json = connection.headers.get("content-type", "").startswith("application/json")
    said = []
    for place in dict.fromkeys(item["loc"][0] for item in errors):  # body, query, path
        wrong = [item | {"loc": item["loc"][1:]} for item in errors if item["loc"][0] == place]
        if place == "body" and not is_json and not wrong[0]["loc"] and wrong[0]["type"] != "missing":
            said.append("the body must be JSON, sent with Content-Type: application/json")
            continue
        model = body.field_info.annotation if body is not None and place == "body" else None
        said.append(plain_errors(wrong, model, "the body"))
    return "; ".join(said)


def _routing_message(request: Request, error: HTTPException) -> str:
    """Starlette's own messages ("Not Found") name nothing."""
    method, path = request.method, request.url.path
    match error.status_code:
        case 404:
            return f"there is no {path[:200]} here; /docs lists the paths"
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            return f"{method[:16]} is not possible here" + (f"; allowed: {allowed}" if allowed else "")
        case 400:
            return "the body cannot be read: it must be JSON in UTF-8"
        case _:
            return str(error.detail)


# --- operations ---------------------------------------------------------------------------------------------


def _operations(service: Service) -> APIRouter:
    """Health, metrics, capacity, the event schema and tokens."""
    routes = APIRouter(tags=["operations"])
    limiter = RateLimiter(service.settings.limits.requests_per_minute)
    # Of each token for itself: no other, made with the same one, keeps it from revoking.
    revoking = RateLimiter(service.settings.limits.requests_per_minute)

    @routes.get("/healthz")
    async def alive() -> dict[str, str]:
        """Liveness: the process answers; in a cluster with the name of its node."""
        return {"status": "ok"} | ({"node": service.cluster.name} if service.cluster is not None else {})

    @routes.get("/readyz")
    async def ready() -> Response:
        """Readiness: 200 if the models are whole and gave a result lately, and nothing drains; else 503."""
        body = health.readiness(service)
        return JSONResponse(body, 200 if body["ready"] else 503)

    @routes.get("/metrics")
    async def exposition() -> Response:
        """Prometheus metrics."""
        await health.measure(service)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get("/v1/capacity", response_model=Capacity)
    async def capacity() -> dict[str, Any]:
        """How many sessions have a publisher, how many more fit now, and the degradation level in words."""
        room = service.sessions.room()
        return {
            "sessions": service.sessions.places.taken,
            "limit": service.settings.limits.sessions,
            "free": room.free,
            "bound_by": room.bound_by,
            **service.load_controller.describe(),
            "draining": service.sessions.draining,
        }

    @routes.get("/v1/schema")
    async def events_schema() -> dict[str, Any]:
        """JSON Schema of all events."""
        return schema.document()

    @routes.post("/v1/tokens", status_code=201)
    async def token(body: NewToken, request: Request) -> dict[str, Any]:
        """Issue a short-lived token with at most the rights of the caller's own; `jti` is its id."""
        grants = service.auth.of(request.scope)
        limiter.take(rights.counted_as(grants, request))
        may = tuple(body.may)
        made = service.auth.token(
            grants, session=body.session, may=may, seconds=body.expires_in, short=body.short
        )
        return {"token": made.token, "jti": made.id, "expires_in": round(made.seconds, 3)}

    @routes.delete("/v1/tokens/{jti}", status_code=204)
    async def revoke(jti: str, request: Request) -> None:
        """Revoke a token and what was made with it; a token may revoke itself, the API key every one.

        It is refused from now on (401 `token_revoked`), also after a restart; its sockets and streams end
        within 5 seconds, and signed addresses that it was sent open nothing any more.
        """
        grants = service.auth.of(request.scope)
        revoking.take(f"{rights.counted_as(grants, request)} {grants.holder}")
        await asyncio.to_thread(service.auth.revoke, grants, jti)
        if service.part is not None:
            with contextlib.suppress(ClusterUnavailable):  # then with the next heartbeat
                await service.part.upkeep.share_revocations()

    return routes


# --- the server ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(
    settings: Settings, listener: socket.socket, tls: tuple[str, str] | None = None
) -> AsyncIterator[tuple[Service, asyncio.Task[None]]]:
    """Run a service and its HTTP server on a bound socket. The models load in the background.

    Args:
        settings: validated.
        listener: bound and listening; the caller closes it.
        tls: paths of the certificate chain and the key, both PEM.

    Yields:
        The service, and the task of the HTTP server, which ends only on failure.
    """
    trusted = settings.server.trusted_proxies
    think = await asyncio.to_thread(think_model, settings)
    async with Service(settings, think=think) as service:
        connections = Connections(settings.limits, frozenset(trusted))
        server = uvicorn.Server(
            uvicorn.Config(
                build(service, connections),
                http=protocol_with(connections),
                backlog=ACCEPTED_AT_ONCE,
                proxy_headers=bool(trusted),  # uvicorn's default believes whatever comes from loopback
                forwarded_allow_ips=list(trusted),
                ws=websocket_with(settings.limits),
                ws_max_size=settings.limits.message_bytes + 2 * settings.limits.image_bytes,
                ws_per_message_deflate=False,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,  # it would log query strings, and with them signatures
                timeout_graceful_shutdown=5,
                ssl_certfile=tls[0] if tls else None,
                ssl_keyfile=tls[1] if tls else None,
                server_header=False,
            )
        )
        # The caller handles signals, because it drains the sessions before the server stops.
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with doors.opened(service):
                yield service, serving
        finally:
            await service.drain()
            server.should_exit = True
            await serving
