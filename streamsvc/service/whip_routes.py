"""The WHIP routes of a service: authorisation, rate limit and publications."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request

from streamsvc.core.errors import CapacityError
from streamsvc.core.types import Grants
from streamsvc.ingest import turn_credentials, whip
from streamsvc.service import rights
from streamsvc.service.node_requests import has_ticket
from streamsvc.service.publications import kind_of
from streamsvc.service.publish_places import Asked, LivesElsewhere
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.service import Service


def router(service: Service) -> APIRouter:
    """The WHIP routes of a service."""
    return whip.router(_Host(service))


class _Host:
    """Implements `whip.Host`."""

    def __init__(self, service: Service) -> None:
        self.limits = service.settings.limits
        self.public_url = service.settings.server.public_url
        self._service = service
        self._limiter = RateLimiter(service.settings.limits.requests_per_minute)

    def authorise(self, request: Request) -> Grants:
        """Grants of the request, checked for what the table says of its route."""
        return rights.check(self._service.auth, request)

    async def publish(self, session: str | None, offer: str, request: Request) -> whip.Publication:
        """Answer an SDP offer. Rate limited by token, with those that were made with it, else by address.

        Raises Redirected: another node has the session, or room.
        """
        grants = self._service.auth.of(request.scope)
        self._limiter.take(rights.counted_as(grants, request))
        publications = self._service.publications
        try:
            made = await publications.publish(session, offer, grants.holder)
        except (LivesElsewhere, CapacityError) as error:
            part = self._service.part
            if part is None or has_ticket(request.scope):  # it was sent here: nobody is sent twice
                raise
            path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
            page = self._service.auth.page_origin(request.headers)
            asked = Asked(path, session, kind_of(offer), page)
            raise part.publishing.elsewhere(error, asked, grants) or error from None
        self._service.started.add(
            grants,
            lambda: made.resource in publications.by_resource,
            lambda why: publications.cut(made.resource, why.code),
        )
        return made

    def find(self, resource: str) -> whip.Publication | None:
        """A publication by the resource id in its Location."""
        return self._service.publications.by_resource.get(resource)

    async def end(self, resource: str) -> None:
        """End a publication."""
        await self._service.publications.unpublish(resource)

    def ice_links(self, grants: Grants) -> Sequence[str]:
        """Link header values that name the ICE servers."""
        return turn_credentials.links(self._service.settings.ingest, "publisher")
