"""Serves the application below the path of `server.public_url`, whether a proxy strips that path or not."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class PublicPath:
    """ASGI middleware: every request gets `prefix` as its `root_path`, which routing and links know.

    Args:
        app: what is served.
        prefix: a path such as "/live"; "": nothing is changed.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        prefix = self._prefix
        if not prefix or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path == prefix and scope["type"] == "http":
            # The addresses in the page are relative: without the slash they would miss the prefix.
            await RedirectResponse(f"{prefix}/", 308)(scope, receive, send)
            return
        if not path.startswith(f"{prefix}/"):  # the proxy has stripped it
            raw: bytes = scope.get("raw_path") or path.encode()
            scope = {**scope, "path": prefix + path, "raw_path": prefix.encode() + raw}
        await self._app({**scope, "root_path": prefix}, receive, send)
