"""WHIP (RFC 9725): publish by POST of an SDP offer, trickle by PATCH, end by DELETE.

    POST   /whip, /whip/{session}     201 + answer, Location, ETag, Accept-Patch, Link
    PATCH  /whip/{session}/{resource} 204
    DELETE /whip/{session}/{resource} 200
    OPTIONS on all of them            204 + Accept-Post, with a token Link

Sessions, access and admission are the Host's; CORS headers are added where the application is put together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from streamsvc.core.config import Limits
from streamsvc.core.error_response import error_response
from streamsvc.core.errors import (
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    StreamsvcError,
    TooLarge,
    UnsupportedMediaType,
)
from streamsvc.core.types import Grants

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
EVENTS_REL = "urn:ietf:params:whip:ext:streamsvc:events"
OPTIONS = {"Accept-Post": SDP}


class Publisher(Protocol):
    """The part of `peer.Peer` that WHIP needs."""

    sdp: str
    etag: str

    async def add_candidates(self, fragment: str) -> None:
        """Add trickled candidates."""

    async def close(self) -> None:
        """Stop; never raises."""


@dataclass(frozen=True, slots=True)
class Publication:
    """An admitted publisher."""

    session: str
    resource: str  # an unguessable id
    peer: Publisher


class Host(Protocol):
    """The part of the service that WHIP needs."""

    limits: Limits
    public_url: str  # what our addresses begin with; "": the client resolves them against its own

    def authorise(self, request: Request) -> Grants:
        """Check the token of a request.

        Raises:
            Unauthorized, Forbidden: it does not grant what the route wants.
        """

    async def publish(self, session: str | None, offer: str, request: Request) -> Publication:
        """Admit a publisher and answer its offer; session None: a new one.

        Raises:
            Conflict: a second publisher. CapacityError, NotFound, and what `peer.answer` raises.
        """

    def find(self, resource: str) -> Publication | None:
        """A live publication, or None."""

    async def end(self, resource: str) -> None:
        """End a publication."""

    def ice_links(self, grants: Grants) -> Sequence[str]:
        """One Link header value per ICE server: `<stun:host:3478>; rel="ice-server"`."""


Handler = Callable[[], Awaitable[Response]]


def router(host: Host) -> APIRouter:
    """The WHIP routes."""
    routes = APIRouter(tags=["whip"])

    @routes.post("/whip", status_code=201, response_class=Response)
    async def publish_new(request: Request) -> Response:
        """Publish into a new session: the body is an SDP offer."""
        return await _catch(lambda: _publish(host, request, None))

    @routes.post("/whip/{session}", status_code=201, response_class=Response)
    async def publish(request: Request, session: str) -> Response:
        """Publish into a session: the body is an SDP offer."""
        return await _catch(lambda: _publish(host, request, session))

    @routes.patch("/whip/{session}/{resource}", status_code=204, response_class=Response)
    async def trickle(request: Request, session: str, resource: str) -> Response:
        """Add candidates: the body is a trickle ICE fragment (RFC 8840)."""
        return await _catch(lambda: _trickle(host, request, session, resource))

    @routes.delete("/whip/{session}/{resource}", response_class=Response)
    async def end(request: Request, session: str, resource: str) -> Response:
        """End a publication."""
        return await _catch(lambda: _end(host, request, session, resource))

    @routes.options("/whip", status_code=204, response_class=Response)
    async def options_new(request: Request) -> Response:
        """Accepted content types; with a token the ICE servers too. A CORS preflight."""
        return _options(host, request)

    @routes.options("/whip/{session}", status_code=204, response_class=Response)
    async def options(request: Request, session: str) -> Response:
        """Accepted content types; with a token the ICE servers too. A CORS preflight."""
        return _options(host, request)

    @routes.options("/whip/{session}/{resource}", status_code=204, response_class=Response)
    async def options_resource(session: str, resource: str) -> Response:
        """Accepted content types; a CORS preflight."""
        return Response(status_code=204, headers=OPTIONS | {"Accept-Patch": FRAGMENT})

    # RFC 9725 section 4.1: other methods get 405.
    for path, allowed in (
        ("/whip", "POST, OPTIONS"),
        ("/whip/{session}", "POST, OPTIONS"),
        ("/whip/{session}/{resource}", "PATCH, DELETE, OPTIONS"),
    ):
        routes.add_api_route(
            path,
            _refuse(allowed),
            methods=[m for m in ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE") if m not in allowed],
            include_in_schema=False,
        )
    return routes


def _options(host: Host, request: Request) -> Response:
    """Publishers that gather before they offer (GStreamer's) learn here which servers there are."""
    response = Response(status_code=204, headers=OPTIONS)
    with contextlib.suppress(StreamsvcError):  # anybody may ask what is accepted
        for link in host.ice_links(host.authorise(request)):
            response.headers.append("Link", link)
    return response


async def _publish(host: Host, request: Request, session: str | None) -> Response:
    grants = host.authorise(request)
    _expect_type(request, SDP)
    offer = await _body(request, host.limits.sdp_bytes)
    publication = await host.publish(session, offer, request)
    # Without a public URL a relative reference (RFC 3986), which the client resolves against the URL that it
    # has asked: valid behind any proxy.
    root = host.public_url
    base = f"{root}/whip/" if root else "" if session is not None else "whip/"
    location = f"{base}{publication.session}/{publication.resource}"
    response = Response(publication.peer.sdp, status_code=201, media_type=SDP)
    response.headers.update({"Location": location, "ETag": publication.peer.etag, "Accept-Patch": FRAGMENT})
    response.headers.append("Link", f'<{root}/v1/sessions/{publication.session}/events>; rel="{EVENTS_REL}"')
    for link in host.ice_links(grants):
        response.headers.append("Link", link)
    return response


async def _trickle(host: Host, request: Request, session: str, resource: str) -> Response:
    host.authorise(request)
    publication = _live_publication(host, session, resource)
    _expect_type(request, FRAGMENT)
    tag = request.headers.get("if-match")
    if tag is None:
        raise PreconditionRequired("PATCH needs If-Match with the ETag of the answer (RFC 9725 section 4.3)")
    fragment = await _body(request, host.limits.sdp_bytes)
    if tag.strip() not in ("*", publication.peer.etag):
        raise PreconditionFailed("If-Match names another ICE session")
    await publication.peer.add_candidates(fragment)
    return Response(status_code=204, headers={"ETag": publication.peer.etag})


async def _end(host: Host, request: Request, session: str, resource: str) -> Response:
    host.authorise(request)
    await host.end(_live_publication(host, session, resource).resource)
    return Response(status_code=200)


def _live_publication(host: Host, session: str, resource: str) -> Publication:
    publication = host.find(resource)
    if publication is None or publication.session != session:
        raise NotFound("there is no such publication")
    return publication


def _expect_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise UnsupportedMediaType(f"Content-Type must be {wanted}")


async def _body(request: Request, limit: int) -> str:
    """Read the body as text; buffers at most `limit` bytes and one chunk.

    Only names and titles are ever more than ASCII, in whatever charset (RFC 8866 section 6.10), and they are
    never used: what is no UTF-8 is replaced.

    Raises:
        TooLarge: it is longer.
    """
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and len(length) < 20 and int(length) > limit:
        raise TooLarge(f"the body is over {limit} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"the body is over {limit} bytes")
    return body.decode(errors="replace")


async def _catch(handle: Handler) -> Response:
    """The response of a handler, or of the error that it raises."""
    try:
        return await handle()
    except StreamsvcError as error:
        return error_response(error)


def _refuse(allowed: str) -> Callable[[], Any]:
    body = {
        "error": {
            "type": "invalid_request_error",
            "code": "method_not_allowed",
            "message": f"allowed: {allowed}",
            "retryable": False,
        }
    }

    async def refuse() -> Response:
        return JSONResponse(body, status_code=405, headers={"Allow": allowed})

    return refuse
