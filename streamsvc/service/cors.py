"""Cross-origin requests (CORS, fetch.spec.whatwg.org): the same rule for every path, static files and errors.

Origins of `server.origins` get the headers, and pages that another node sent here with a ticket; others none.
No credentials are allowed: a token is in a header, never in a cookie.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXPOSED = "Location, ETag, Link, Accept-Patch, Retry-After"
METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
REQUEST_HEADERS = "Authorization, Content-Type, If-Match, Last-Event-ID"
_MAX_AGE = "7200"  # seconds that a browser may remember a preflight; Chromium's own limit
_SENT_FROM = "streamsvc.sent_from"  # key in an ASGI scope: origin of the page that another node has sent here


def note_sent_here(scope: Scope, origin: str) -> None:
    """Note the origin of the page that another node has sent here; "": it is no page."""
    scope[_SENT_FROM] = origin


def was_sent_here(scope: Scope) -> bool:
    """Whether a request comes from the page that another node has sent here.

    A browser tells the origin "null" after a redirect from one origin that is not the page's to another: the
    ticket, which no other page can read, tells the true one (fetch.spec.whatwg.org, HTTP-redirect fetch).
    """
    page = scope.get(_SENT_FROM, "")
    return bool(page) and Headers(scope=scope).get("origin") in (page, "null")


class Cors:
    """ASGI middleware: adds the headers, and answers preflights.

    A preflight of WHIP is answered by its own routes, which add `Accept-Post`.

    Args:
        app: what is served.
        origins: as browsers write them; "*": any.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not (self._origins or was_sent_here(scope)):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        headers = self._headers(asked, sent_here=was_sent_here(scope))
        if headers and scope["method"] == "OPTIONS" and "access-control-request-method" in asked:
            headers |= {
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": REQUEST_HEADERS,
                "Access-Control-Max-Age": _MAX_AGE,
            }
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path != "/whip" and not path.startswith("/whip/"):
                await Response(status_code=204, headers=headers | {"Vary": "Origin"})(scope, receive, send)
                return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response = MutableHeaders(scope=message)
                response.update(headers)
                response.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _headers(self, asked: Headers, *, sent_here: bool) -> dict[str, str]:
        """The headers that let the asking origin read the response; none for other origins."""
        origin = asked.get("origin")
        if origin is None or not (sent_here or {"*", origin} & self._origins):
            return {}
        return {
            "Access-Control-Allow-Origin": "*" if "*" in self._origins else origin,
            "Access-Control-Expose-Headers": EXPOSED,
        }
