"""In front of all HTTP routes: foreign origins are refused, faults told without texts, every answer is safe.

An ASGI middleware of our own, not Starlette's BaseHTTPMiddleware: that makes a task group for each request
and leaves it to the garbage collector, which stalls the event loop while clients without a key keep asking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamsvc.core.error_response import error_response, fault_response
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.service.auth import Auth
from streamsvc.service.cors import was_sent_here
from streamsvc.service.refusal_log import route_of

log = structlog.get_logger()
_POLICY = (
    "default-src 'self'; connect-src {connect}; img-src 'self' blob: data:; media-src 'self' blob:;"
    " style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_CONNECT = ("'self'", "ws:", "wss:")
Nodes = Callable[[], Sequence[str]]
_HEADERS = {
    "Content-Security-Policy": _POLICY.format(connect=" ".join(_CONNECT)),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_RANGES = {
    400: "the Range header cannot be read: it is written as in bytes=0-99",
    416: "there is nothing in the range that was asked for; Content-Range tells the size",
}


class SafeResponses:
    """The middleware: checks Host and Origin before any handler runs, and adds the security headers.

    A plain text of Starlette's about an error, as for a wrong range, becomes the error body that all have.

    Args:
        app: what it stands in front of.
        auth: checks Host and Origin.
        nodes: origins of other nodes of the cluster, that our pages may connect to; None: of no cluster.
    """

    def __init__(self, app: ASGIApp, auth: Auth, nodes: Nodes | None = None) -> None:
        self._app = app
        self._auth = auth
        self._nodes = nodes or _no_nodes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _SafeResponse(send, self._nodes)
        try:
            self._auth.check_origin(Headers(scope=scope), was_sent_here=was_sent_here(scope))
            await self._app(scope, receive, response.send)
        except StreamsvcError as error:
            if response.begun:
                raise
            await error_response(error)(scope, receive, response.send)
        except Exception as error:
            # The class alone is logged: a message could quote what was said or a token.
            log.error("request failed", route=route_of(scope), error=type(error).__name__)
            if response.begun:
                raise
            await fault_response()(scope, receive, response.send)


class _SafeResponse:
    """The `send` of one request."""

    def __init__(self, send: Send, nodes: Nodes) -> None:
        self.begun = False
        self._send = send
        self._nodes = nodes
        self._replaced = False

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if self._replaced:
            return
        if message["type"] != "http.response.start":
            await self._send(message)
            return
        self.begun = True
        instead = _in_json(message)
        if instead is not None:
            message = {**message, "headers": instead.raw_headers}
        headers = MutableHeaders(scope=message)
        if headers.get("content-type", "").startswith("text/html") and (nodes := self._nodes()):
            policy = _POLICY.format(connect=" ".join((*_CONNECT, *nodes)))
            headers.setdefault("Content-Security-Policy", policy)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        await self._send(message)
        if instead is not None:
            self._replaced = True
            await self._send({"type": "http.response.body", "body": instead.body})


def _no_nodes() -> tuple[str, ...]:
    return ()


def _in_json(start: Message) -> JSONResponse | None:
    """The error body instead of a plain text of Starlette's; None: it stays as it is."""
    headers, status = Headers(raw=start.get("headers", [])), start["status"]
    if status < 400 or not headers.get("content-type", "").startswith("text/plain"):
        return None
    error = InvalidRequest(
        _RANGES.get(status, f"the request was refused with status {status}"),
        code="bad_range" if status in _RANGES else "http_error",
    )
    kept = {name: headers[name] for name in ("content-range", "allow") if name in headers}
    return JSONResponse(error.body(), status, error.headers() | kept)
