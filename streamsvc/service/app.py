"""The HTTP application: routers, middleware, error handlers, health, metrics and tokens.

All errors have one JSON body (`StreamsvcError.body`). Tokens are never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

import streamsvc
from streamsvc.core import metrics
from streamsvc.core.config import Settings
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.events import schema
from streamsvc.service import (
    caption_push_routes,
    event_routes,
    page_routes,
    question_routes,
    session_routes,
    subtitle_routes,
    watch_routes,
    whip_routes,
)
from streamsvc.service.auth import requirement
from streamsvc.service.compat import routes as compat_routes
from streamsvc.service.http_server import Connections, protocol_with
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.request_guard import RequestGuard
from streamsvc.service.service import Service

log = structlog.get_logger()
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' blob: data:; media-src 'self' blob:;"
        " style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_WITHOUT_CSP = ("/docs", "/docs/oauth2-redirect")  # Swagger UI loads its scripts from a CDN


class NewToken(BaseModel):
    """Body of POST /v1/tokens."""

    model_config = ConfigDict(extra="forbid")

    session: str = "*"
    may: list[str] = Field(default_factory=lambda: ["subscribe"])
    expires_in: float = 3600  # seconds


def build(service: Service, connections: Connections | None = None) -> FastAPI:
    """The FastAPI application of a running service. `connections`: those of its HTTP server."""
    app = FastAPI(
        title="streamsvc", version=streamsvc.__version__, description=streamsvc.__doc__ or "", redoc_url=None
    )
    app.state.service = service
    publish = Depends(requirement(service.auth, "publish"))
    subscribe = Depends(requirement(service.auth, "subscribe"))
    ask = Depends(requirement(service.auth, "ask"))
    app.include_router(session_routes.router(service))
    app.include_router(event_routes.router(service))
    app.include_router(subtitle_routes.router(service, subscribe))
    app.include_router(_operations(service))
    app.include_router(whip_routes.router(service))
    app.include_router(compat_routes.router(service))
    app.include_router(question_routes.router(service.sessions.find, ask, service.auth.asker))
    app.include_router(caption_push_routes.router(service.pushes, publish))
    app.include_router(watch_routes.router(service.sessions.find, publish, subscribe))
    page_routes.mount(app)
    _add_error_handlers(app)
    app.add_middleware(
        RequestGuard, auth=service.auth, limits=service.settings.limits, connections=connections
    )

    @app.middleware("http")
    async def secure(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Reject foreign hosts and origins before any handler runs; add the security headers."""
        path = request.url.path
        if not path.startswith("/whip"):  # WHIP has its own CORS rules
            try:
                service.auth.check_origin(request.headers)
            except StreamsvcError as error:
                return _error_response(error)
        response = await call_next(request)
        for name, value in _SECURITY_HEADERS.items():
            if name != "Content-Security-Policy" or path not in _WITHOUT_CSP:
                response.headers.setdefault(name, value)
        return response

    return app


# --- errors -------------------------------------------------------------------------------------------------


def _error_response(error: StreamsvcError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers())


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(StreamsvcError)
    async def streamsvc_error(request: Request, error: StreamsvcError) -> Response:
        return _error_response(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        details = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'][1:]) or 'body'}: {item['msg']}"
            for item in error.errors()
        )
        return _error_response(InvalidRequest(details))

    @app.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> Response:
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
    async def unexpected_error(request: Request, error: Exception) -> Response:
        # The class alone is logged: a message could quote what was said or a token.
        log.error("request failed", path=request.url.path, error=type(error).__name__)
        return _error_response(StreamsvcError("Internal error. The server log records the exception class."))


# --- operations ---------------------------------------------------------------------------------------------


def _operations(service: Service) -> APIRouter:
    """Health, metrics, capacity, the event schema and tokens."""
    routes = APIRouter(tags=["operations"])
    limiter = RateLimiter(service.settings.limits.requests_per_minute)

    @routes.get("/healthz")
    async def alive() -> dict[str, str]:
        """Liveness: the process answers."""
        return {"status": "ok"}

    @routes.get("/readyz")
    async def ready() -> Response:
        """Readiness: 200 if the models gave a result lately and the server is not draining, else 503."""
        workers = {role: worker.fresh for role, worker in service.workers.items()}
        is_ready = workers["hear"] and workers["see"] and not service.sessions.draining
        body = {"ready": is_ready, "workers": workers, "draining": service.sessions.draining}
        return JSONResponse(body, 200 if is_ready else 503)

    @routes.get("/metrics")
    async def exposition(request: Request) -> Response:
        """Prometheus metrics."""
        service.auth.grants(request.headers)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get("/v1/capacity")
    async def capacity(request: Request) -> dict[str, Any]:
        """Number of live sessions, their limit, and the degradation level with what it means."""
        service.auth.grants(request.headers)
        return {
            "sessions": len(service.sessions.live),
            "limit": service.settings.limits.sessions,
            **service.load_controller.describe(),
            "draining": service.sessions.draining,
        }

    @routes.get("/v1/schema")
    async def events_schema() -> dict[str, Any]:
        """JSON Schema of all events."""
        return schema.document()

    @routes.post("/v1/tokens", status_code=201)
    async def token(body: NewToken, request: Request) -> dict[str, Any]:
        """Issue a short-lived token with at most the rights of the caller's own."""
        limiter.take(request.client.host if request.client else "")
        grants = service.auth.grants(request.headers)
        text = service.auth.token(grants, session=body.session, may=tuple(body.may), seconds=body.expires_in)
        return {"token": text, "expires_in": body.expires_in}

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
    async with Service(settings) as service:
        connections = Connections(settings.limits, frozenset(trusted))
        server = uvicorn.Server(
            uvicorn.Config(
                build(service, connections),
                http=protocol_with(connections),
                backlog=128,
                proxy_headers=bool(trusted),  # uvicorn's default believes whatever comes from loopback
                forwarded_allow_ips=list(trusted),
                ws="websockets-sansio",  # the default one imports websockets.legacy, which warns
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
            yield service, serving
        finally:
            await service.drain()
            server.should_exit = True
            await serving
