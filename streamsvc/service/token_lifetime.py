"""What a token gave ends with it: sockets, streams, and the signed addresses in what it was sent.

An ASGI middleware. Routes check rights once, at the start; here they are checked again while an answer lasts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamsvc.core.error_response import error_response
from streamsvc.core.errors import StreamsvcError, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.events import schema
from streamsvc.service.auth import SIGNED_ADDRESS, Auth

RECHECK = 5.0  # seconds


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
        grants = self._grants(scope) if scope["type"] in ("http", "websocket") else None
        if grants is None or grants.expires is None:
            await self._app(scope, receive, send)
            return
        sent = _Sent(send, self._auth, grants)
        why: Unauthorized | None = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                turn: asyncio.TimerHandle

                def check() -> None:
                    nonlocal turn, why
                    if (why := self._auth.over(grants)) is not None:
                        limit.reschedule(loop.time())
                    else:
                        turn = loop.call_later(RECHECK, check)

                turn = loop.call_later(RECHECK, check)
                try:
                    await self._app(scope, receive, sent)
                finally:
                    turn.cancel()
        except TimeoutError:
            if why is None:
                raise
            await sent.end(scope, receive, why)

    def _grants(self, scope: MutableMapping[str, Any]) -> Grants | None:
        """What a request is granted; None: nothing, and its route says why."""
        try:
            return self._auth.of(scope)
        except StreamsvcError:
            return None


class _Sent:
    """An ASGI `send` that ends the signed addresses with the token, and knows what has been sent."""

    def __init__(self, send: Send, auth: Auth, grants: Grants) -> None:
        self._send = send
        self._auth = auth
        self._grants = grants
        self._held: Message | None = None  # the start of a response whose length may change
        self._type: str | None = None  # content type of a response that has begun
        self._open = False  # a socket that was accepted
        self._over = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            headers = Headers(raw=message["headers"])
            self._type = headers.get("content-type", "")
            if "content-length" in headers and self._type.startswith("application/json"):
                self._held = message
                return
        elif kind == "http.response.body":
            if (
                message.get("body")
                and self._type
                and self._type.startswith(("application/json", "text/event"))
            ):
                message = {**message, "body": self._signed(message["body"].decode()).encode()}
            if self._held is not None:  # such a body comes in one piece
                held, self._held = self._held, None
                MutableHeaders(scope=held)["content-length"] = str(len(message.get("body", b"")))
                await self._send(held)
            self._over = not message.get("more_body", False)
        elif kind == "websocket.accept":
            self._open = True
        elif kind == "websocket.close":
            self._over = True
        elif kind == "websocket.send" and message.get("text"):
            message = {**message, "text": self._signed(message["text"])}
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive, error: Unauthorized) -> None:
        """End what has begun, and say why."""
        if self._over:
            return
        if scope["type"] == "websocket":
            if self._open:
                if scope["path"].endswith("/events"):
                    await self._send({"type": "websocket.send", "text": _told(error, scope)})
                await self._send({"type": "websocket.close", "code": error.close_code, "reason": error.code})
        elif self._type is None or self._held is not None:
            await error_response(error)(scope, receive, self._send)
        else:
            is_stream = self._type.startswith("text/event")
            last = f"event: error\ndata: {_told(error, scope)}\n\n" if is_stream else ""
            await self._send({"type": "http.response.body", "body": last.encode(), "more_body": False})

    def _signed(self, text: str) -> str:
        """A text whose signed addresses end with the grants."""
        return signed_text(self._auth, self._grants, text)


def signed_text(auth: Auth, grants: Grants, text: str) -> str:
    """A text for the holder of `grants`, whose signed addresses end with them."""
    if "&sig=" not in text:
        return text
    return SIGNED_ADDRESS.sub(lambda found: auth.signed_for(grants, found), text)


def _told(error: StreamsvcError, scope: Scope) -> str:
    """The event that tells why a socket or a stream of events ends."""
    return json.dumps(schema.refusal(error.body(), str(scope.get("path_params", {}).get("session_id", ""))))
