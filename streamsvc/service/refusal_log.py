"""Logs which requests are refused, and why: route, status and error code, never what was sent.

A path may hold a name that is a secret, so the route's template is logged in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamsvc.core import clock

log = structlog.get_logger()
_SECONDS = 10.0  # at most one line in so long for each route and code; more are counted
_BODY_BYTES = 4096  # of an error's body that are looked at for its code
_REFUSED = 4000  # WebSocket close codes from here on are ours; below, only these are refusals:
_FAILURES = (1011, 1013)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RefusalLog:
    """ASGI middleware: one line for a refusal; repeated ones are counted and told in the next line.

    Routes and codes are few, so what is counted is bounded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        # (door, code) -> (monotonic seconds of its last line, refusals since)
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        status = 0
        body = b""

        async def watch(message: Message) -> None:
            nonlocal status, body
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                is_json = Headers(raw=message["headers"]).get("content-type") == "application/json"
                status = message["status"] if message["status"] >= 400 else 0
                body = b"" if is_json else b"{}"
            elif status and kind in ("http.response.body", "websocket.http.response.body"):
                body = (body + message.get("body", b""))[:_BODY_BYTES]
                if not message.get("more_body"):
                    self._note(scope, status, _code(body))
            elif kind == "websocket.close":
                code = message.get("code", 1000)
                if code in _FAILURES or code >= _REFUSED:
                    self._note(scope, code, str(message.get("reason") or "closed"))
            await send(message)

        await self._app(scope, receive, watch)

    def _note(self, scope: Scope, status: int, code: str) -> None:
        door = route_of(scope)
        now = clock.now()
        last, repeats = self._seen.get((door, code), (-_SECONDS, 0))
        if now - last < _SECONDS:
            self._seen[door, code] = (last, repeats + 1)
            return
        self._seen[door, code] = (now, 0)
        more: dict[str, Any] = {"more": repeats} if repeats else {}
        write = log.warning if status in _FAILURES or 500 <= status < 1000 else log.info
        write("request refused", door=door, status=status, code=code, **more)


def route_of(scope: Scope) -> str:
    """Method and template of the route that serves a request, such as "GET /v1/sessions/{session_id}"."""
    method = scope.get("method", "WebSocket")
    if method != "WebSocket" and method not in _METHODS:
        method = "other"  # a client may send any word
    route = scope.get("route") or _route(scope)  # FastAPI's, once it has looked for it
    if isinstance(route, APIRoute | APIWebSocketRoute):
        return f"{method} {route.path}"
    return f"{method} elsewhere"


def _route(scope: Scope) -> BaseRoute | None:
    """The route that would have served a request which was refused before."""
    routes = flat(scope["app"].routes) if "app" in scope else ()
    return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)


def flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """All routes, one after another; FastAPI keeps those of an included router inside one."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from flat(included.routes)


def _code(body: bytes) -> str:
    """The error code of a response's body; "" where it has none. (Deepgram's bodies name it `err_code`.)"""
    try:
        said = json.loads(body)
        error = said.get("error", said)
        return str((error if isinstance(error, dict) else said).get("code") or said.get("err_code") or "")
    except (ValueError, AttributeError):
        return ""
