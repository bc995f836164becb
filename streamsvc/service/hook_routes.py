"""Publish hooks: a media server asks whether somebody may publish; we authorise, and pull the stream from it.

From the address in ingest.hooks alone, into which the checked names of the question are put.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from streamsvc.core import clock
from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, NotFound, SourceError, StreamsvcError, TooLarge
from streamsvc.core.media_config import Hooks
from streamsvc.ingest.rtmp_relay import rtmp_place
from streamsvc.ingest.source import Source, open_published, open_source
from streamsvc.service import media_server_hooks
from streamsvc.service.broadcast_ids import check_name
from streamsvc.service.media_server_hooks import Asked, Server
from streamsvc.service.service import Service
from streamsvc.service.stream_keys import StreamKey, StreamPublication

APPEAR_SECONDS = 15.0  # from our yes until the stream can be pulled
RETRY_SECONDS = 0.3


def router(service: Service) -> APIRouter:
    """The route of all media servers."""
    routes = APIRouter(prefix="/v1/hooks", tags=["hooks"])
    hooks = MediaServerHooks(service)

    @routes.post("/{server}", response_class=Response, responses=_ANSWERS)
    async def asked(server: Server, request: Request) -> Response:
        """Answer a media server that asks who may publish (mediamtx, nginx-rtmp, SRS, OvenMediaEngine).

        With `publish` for the session of its name a stream is pulled from the address in `ingest.hooks`. The
        token is the client's (`?token=` behind the stream's name), else the hook's own: `?token=` of this URL
        or `Authorization`.
        """
        try:
            body = await _body(request, service.settings.limits)
            await hooks.answer(server, body, request)
        except StreamsvcError as error:
            if server != "ome":
                raise
            return JSONResponse({"allowed": False, "reason": error.message})
        status, kind, content = media_server_hooks.yes(server)
        return Response(content, status, media_type=kind)

    return routes


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": 'Yes: {"allowed": true} for ome (or false, with a reason), 0 for srs, else {}',
        "content": {"application/json": {}, "text/plain": {}},
    }
}


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, of which nothing is believed before it is read. Raises TooLarge, InvalidRequest."""
    found = b""
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                found += piece
                if len(found) > limits.body_bytes:
                    raise TooLarge(f"The body of this request may have {limits.body_bytes} bytes at most")
    except TimeoutError:
        raise InvalidRequest("The body of the request did not come in time", code="body_timeout") from None
    return found


class MediaServerHooks:
    """Answers the questions of media servers, and keeps what is pulled from them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings.ingest.hooks
        self._pull_token = secrets.token_urlsafe(24)  # by which our own players are known
        self._publications: dict[tuple[str, str, str], tuple[str, StreamPublication]] = {}

    async def answer(self, server: Server, body: bytes, request: Request) -> None:
        """Return where the answer is yes. Raises StreamsvcError: it is no."""
        address = _address(self._settings, server)
        secret = self._settings.ome_secret
        signature = request.headers.get("x-ome-signature", "")
        asked = media_server_hooks.read(
            server, body, signature, secret.get_secret_value() if secret is not None else ""
        )
        if asked.wish == "other":
            return
        check_name(asked.name)
        if asked.wish == "play" and hmac.compare_digest(asked.token.encode(), self._pull_token.encode()):
            return
        own = request.query_params.get("token", "")
        own = own or request.headers.get("authorization", "").partition(" ")[2].strip()
        permission = "subscribe" if asked.wish == "play" else "publish"
        client = asked.client or (request.client.host if request.client else "")
        key = StreamKey(asked.name, asked.token or own)
        grants = self._service.stream_publishers.check(key, client, permission)
        place = (server, asked.application, asked.name)
        self._forget()
        known, publication = self._publications.get(place, ("", None))
        if asked.wish == "left":
            if publication is not None and known == asked.connection:  # not one that has been taken over
                publication.stop("publisher_left")
        elif asked.wish == "publish":
            if publication is not None and known and known == asked.connection:
                return  # asked twice of one publisher
            publication = await self._service.stream_publishers.publish(
                server, asked.name, grants, client, lambda session: self._opened(address, asked, session)
            )
            self._publications[place] = asked.connection, publication

    async def _opened(self, address: str, asked: Asked, session: str) -> Source:
        """Open the stream once the media server has it. Raises SourceError."""
        end = clock.now() + APPEAR_SECONDS
        while True:
            try:
                return await self._open(address, asked, session)
            except SourceError as error:
                if clock.now() > end or error.code in ("no_decoder", "no_media", "no_sandbox"):
                    raise
            await clock.sleep(RETRY_SECONDS)

    async def _open(self, address: str, asked: Asked, session: str) -> Source:
        address = address if asked.application else address.replace("{app}/", "")
        url = address.format(app=asked.application, name=asked.name)
        url = f"{url}{'&' if '?' in url else '?'}token={self._pull_token}"
        # Not opened again where it ends: whoever publishes again is asked about again.
        settings = self._service.settings.ingest.model_copy(update={"reconnects": 0})
        if url.startswith("rtmp:"):
            place = rtmp_place(url, f"the RTMP stream of {session}")
            return await open_published(place, settings, session=session)
        return await open_source(url, settings, session=session, private_urls=True)  # the operator's

    def _forget(self) -> None:
        """Forget publications that are over."""
        going = {place: one for place, one in self._publications.items() if not one[1].over.is_set()}
        self._publications = going


def _address(settings: Hooks, server: Server) -> str:
    """Where streams of a media server are pulled. Raises NotFound: its hooks are not configured."""
    found = {
        "mediamtx": settings.mediamtx,
        "nginx-rtmp": settings.nginx_rtmp,
        "srs": settings.srs,
        "ome": settings.ome,
    }[server]
    if not found:
        raise NotFound(
            f"ingest.hooks.{server.replace('-', '_')} does not say where its streams are", code="no_hook"
        )
    return found
