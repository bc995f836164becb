"""In front of all routes: who asks is known before a body is read, and a body has a limit.

An ASGI middleware. A token is checked before the first byte of a body; rights are the routes' own business.
Bodies are read whole, within a limit and a time, except those of doors that stream. Wrong keys of one address
are answered 429 after a while; a right key is never refused for others' wrong ones.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamsvc.core import json_input
from streamsvc.core.config import Limits
from streamsvc.core.error_response import error_response
from streamsvc.core.errors import InvalidRequest, RateLimited, StreamsvcError, TooLarge
from streamsvc.service.auth import Auth
from streamsvc.service.http_server import Connections
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.rights import share_of

OWN_LIMITS = re.compile(r"/v1/listen$|^/whip|^/v1/hooks/")  # check the token and read the body by themselves
WITH_IMAGE = re.compile(r"/v1/sessions/[^/]+/(questions|messages)$")


class RequestGuard:
    """The middleware; see the module.

    Args:
        app: what it stands in front of.
        auth: checks tokens.
        limits: `body_bytes`, `image_bytes`, `body_seconds`, `failures_per_minute`.
        connections: told of connections that showed a valid token; None: nobody counts them.
    """

    def __init__(self, app: ASGIApp, auth: Auth, limits: Limits, connections: Connections | None) -> None:
        self._app = app
        self._auth = auth
        self._limits = limits
        self._connections = connections
        self._failures = RateLimiter(limits.failures_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        headers = Headers(scope=scope)
        send = self._limiting_failures(send, client[0] if client else "")
        try:
            has_body = scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH", "DELETE")
            has_body = has_body and not OWN_LIMITS.search(scope["path"])
            self._authenticate(scope, required=has_body)
            if has_body:
                receive = given(await self._body(scope["path"], headers, receive), receive)
        except StreamsvcError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope, *, required: bool) -> None:
        """Note a valid token.

        Raises:
            Unauthorized, Forbidden: there is none, and it is required here. CapacityError: it has too many
                connections.
        """
        try:
            grants = self._auth.of(scope)
        except StreamsvcError:
            if required:
                raise
        else:
            if self._connections is not None:
                self._connections.authenticated(scope.get("client"), share_of(grants))

    async def _body(self, path: str, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body. Raises TooLarge, InvalidRequest."""
        # base64 makes 4 bytes of 3, and the question comes beside the image
        limit = 2 * self._limits.image_bytes if WITH_IMAGE.search(path) else self._limits.body_bytes
        told = headers.get("content-length", "")
        if told.isascii() and told.isdecimal() and int(told) > limit:
            raise _too_large(limit)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while (message := await receive())["type"] == "http.request":
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > limit:
                        raise _too_large(limit)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise InvalidRequest(
                f"The body of the request did not come within {self._limits.body_seconds:.0f} seconds",
                code="body_timeout",
            ) from None
        content = b"".join(pieces)
        _check_texts(content)
        return content

    def _limiting_failures(self, send: Send, address: str) -> Send:
        """A `send` that answers 429 instead of 401 to an address with too many of them."""
        silenced = False

        async def limiting(message: Message) -> None:
            nonlocal silenced
            if silenced:
                return
            starts = message["type"] in ("http.response.start", "websocket.http.response.start")
            if starts and message["status"] == 401:
                try:
                    self._failures.take(address)
                except RateLimited:
                    silenced = True
                    await _refuse(send, message["type"].removesuffix(".start"))
                    return
            await send(message)

        return limiting


def given(body: bytes, after: Receive) -> Receive:
    """An ASGI `receive` that gives a body once, then what comes `after`."""
    gone = False

    async def receive() -> Message:
        nonlocal gone
        if gone:
            return await after()
        gone = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _check_texts(content: bytes) -> None:
    r"""Refuse JSON with half of a surrogate pair, such as "\ud800": no text with it can be stored or sent."""
    if not json_input.has_escaped_surrogate(content):
        return
    try:
        json_input.parse(content)
    except UnicodeEncodeError:
        raise InvalidRequest(
            "A text in the body has half of a surrogate pair, which no text may have", code="bad_json"
        ) from None
    except ValueError:
        return  # the route says what is wrong with it


async def _refuse(send: Send, kind: str) -> None:
    """Answer 429. `kind`: of the response's messages."""
    error = RateLimited("Too many wrong keys came from this address; wait a minute")
    response = error_response(error)
    await send({"type": f"{kind}.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": f"{kind}.body", "body": response.body})


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body of this request may have {limit} bytes at most")
