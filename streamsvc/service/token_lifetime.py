"""What a token gave ends with it: sockets, streams, and the signed addresses in what it was sent.

An ASGI middleware. Routes check rights once, at the start; here they are checked again while an answer lasts.
"""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamsvc.core.errors import StreamsvcError
from streamsvc.events import schema
from streamsvc.service.auth import Auth
from streamsvc.service.compat.websocket import bearer

RECHECK = 5.0  # seconds
_SIGNED = re.compile(r"(/v1/sessions/[\w.~-]+/[\w./~-]+)\?exp=(\d{10})&sig=([\w-]{43})")


class TokenLifetime:
    """The middleware. A request whose credentials never expire passes as it is.

    Args:
        app: what it stands in front of.
        auth: checks credentials, and signs.
    """

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        expires = self._expiry(scope) if scope["type"] in ("http", "websocket") else None
        if expires is None:
            await self._app(scope, receive, send)
            return
        sent = _Sent(send, self._auth, expires)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                turn: asyncio.TimerHandle

                def check() -> None:
                    nonlocal turn
                    if self._auth.is_over(expires):
                        limit.reschedule(loop.time())
                    else:
                        turn = loop.call_later(RECHECK, check)

                turn = loop.call_later(RECHECK, check)
                try:
                    await self._app(scope, receive, sent)
                finally:
                    turn.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            await sent.end(scope, receive)

    def _expiry(self, scope: Scope) -> float | None:
        """When the credentials of a request expire, in Unix seconds; None: never, or there are none."""
        headers = Headers(scope=scope)
        offered = tuple(scope.get("subprotocols", ()))
        query = parse_qs(scope["query_string"].decode("latin-1"))
        expiry, signature = query.get("exp", [""])[0], query.get("sig", [""])[0]
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._auth.check_signed(path, expiry, signature):
            return float(expiry)
        for given in (headers, bearer(headers, offered)):
            try:
                return self._auth.grants(given, offered).expires
            except StreamsvcError:
                continue  # the route says what is wrong with them
        return None


class _Sent:
    """An ASGI `send` that ends the signed addresses with the token, and knows what has been sent."""

    def __init__(self, send: Send, auth: Auth, expires: float) -> None:
        self._send = send
        self._auth = auth
        self._expires = expires
        self._type: str | None = None  # content type of a response that has begun
        self._open = False  # a socket that was accepted
        self._over = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._type = Headers(raw=message["headers"]).get("content-type", "")
        elif kind == "http.response.body":
            if (
                message.get("body")
                and self._type
                and self._type.startswith(("application/json", "text/event"))
            ):
                message = {**message, "body": self._shortened(message["body"].decode()).encode()}
            self._over = not message.get("more_body", False)
        elif kind == "websocket.accept":
            self._open = True
        elif kind == "websocket.close":
            self._over = True
        elif kind == "websocket.send" and message.get("text"):
            message = {**message, "text": self._shortened(message["text"])}
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        """End what has begun, and say why."""
        error = self._auth.expired()
        if self._over:
            return
        if scope["type"] == "websocket":
            if self._open:
                if scope["path"].endswith("/events"):
                    await self._send({"type": "websocket.send", "text": _told(error, scope)})
                await self._send({"type": "websocket.close", "code": error.close_code, "reason": error.code})
        elif self._type is None:
            await JSONResponse(error.body(), error.status, error.headers())(scope, receive, self._send)
        else:
            is_stream = self._type.startswith("text/event")
            last = f"event: error\ndata: {_told(error, scope)}\n\n" if is_stream else ""
            await self._send({"type": "http.response.body", "body": last.encode(), "more_body": False})

    def _shortened(self, text: str) -> str:
        """A text in which our own signed addresses expire with the token; their length stays."""
        if "&sig=" not in text:
            return text
        return _SIGNED.sub(lambda found: self._auth.shortened(found, self._expires), text)


def _told(error: StreamsvcError, scope: Scope) -> str:
    """The event that tells why a socket or a stream of events ends."""
    return json.dumps(schema.refusal(error.body(), str(scope.get("path_params", {}).get("session_id", ""))))
