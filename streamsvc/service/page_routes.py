"""The static files: the page, the overlay, the browser client, and the page of the API."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from streamsvc.core.config import Server
from streamsvc.service import docs_page

WEB = Path(__file__).parents[1] / "web"


def mount(app: FastAPI, server: Server) -> None:
    """Add the page, the overlay, /web and /docs to the application.

    They need no token and are not in the OpenAPI document.
    """

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html")

    @app.get("/overlay/{session_id}", include_in_schema=False)
    async def overlay(session_id: str) -> Response:
        return FileResponse(WEB / "overlay.html")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        base = server.public_url or str(request.base_url).rstrip("/")
        return HTMLResponse(docs_page.render(app.openapi(), base))

    app.mount("/web", StaticFiles(directory=WEB), name="web")
