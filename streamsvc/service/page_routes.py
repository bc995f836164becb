"""The static files: the page, the overlay and the browser client."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

WEB = Path(__file__).parents[1] / "web"


def mount(app: FastAPI) -> None:
    """Add the page, the overlay and /web to the application.

    They need no token and are not in the OpenAPI document.
    """

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(WEB / "index.html")

    @app.get("/overlay/{session_id}", include_in_schema=False)
    async def overlay(session_id: str) -> Response:
        return FileResponse(WEB / "overlay.html")

    app.mount("/web", StaticFiles(directory=WEB), name="web")
