"""What other nodes have signed: forwarded requests, and tickets of publishers that were sent here.

An ASGI middleware, in front of whatever asks for credentials. A request with a valid signature has the grants
and the address of the client that the other node was asked by; one with an invalid signature has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from streamsvc.core.errors import StreamsvcError, TooLarge, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.service.auth import Auth
from streamsvc.service.cluster_part import ClusterPart
from streamsvc.service.cors import note_sent_here
from streamsvc.service.http_server import Connections
from streamsvc.service.node_signature import HEADER, Asker, Ticket
from streamsvc.service.request_guard import given

_ASKER = "streamsvc.asker"  # key in an ASGI scope: Asker, where another node has forwarded the request
_TICKET = "streamsvc.ticket"  # key in an ASGI scope: whether a ticket was shown


class NodeRequests:
    """The middleware; see the module.

    Args:
        app: what it stands in front of.
        auth: is told what a signature grants.
        part: of the cluster: its signature, and which tickets were used.
        connections: told of those of other nodes; None: nobody counts them.
        most: bytes of a body; security limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        auth: Auth,
        part: ClusterPart,
        most: int,
        connections: Connections | None,
    ) -> None:
        self._app = app
        self._auth = auth
        self._cluster = part.node
        self._signature = part.signature
        self._most = most
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            try:
                receive = await self._taken(scope, receive)
            except StreamsvcError as error:
                self._auth.give(scope, error)  # its route says so
        await self._app(scope, receive, send)

    async def _taken(self, scope: Scope, receive: Receive) -> Receive:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if (signed := Headers(scope=scope).get(HEADER)) is not None:
            query = scope["query_string"].decode("latin-1")
            target = scope.get("raw_path", b"").decode("latin-1").partition("?")[0] or path
            target = target.removeprefix(scope.get("root_path", ""))
            asker = self._signature.asker(signed, scope["method"], f"{target}?{query}" if query else target)
            self._check_valid(asker.grants)
            body = await _body(receive, asker.body, self._most)
            if self._connections is not None:
                self._connections.authenticated(scope.get("client"))
            self._auth.give(scope, asker.grants)
            scope[_ASKER] = asker
            if asker.client:
                scope["client"] = (asker.client, 0)
            return given(body, receive)
        if path.startswith("/whip") and b"ticket=" in scope["query_string"]:
            if scope["method"] == "OPTIONS":  # a preflight: the ticket is used up by what follows
                note_sent_here(scope, self._shown(scope, path).origin)
            elif scope["method"] == "POST":
                await self._use(scope, path)
        return receive

    def _shown(self, scope: Scope, path: str) -> Ticket:
        shown = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("ticket", "")
        return self._signature.shown(shown, path)

    async def _use(self, scope: Scope, path: str) -> None:
        """Give a request the grants of its ticket, once. Raises Unauthorized, ClusterUnavailable."""
        scope[_TICKET] = True
        ticket = self._shown(scope, path)
        note_sent_here(scope, ticket.origin)
        self._check_valid(ticket.grants)
        redis = self._cluster.redis
        if not await redis.once(redis.key("ticket", ticket.id), ticket.seconds):
            raise Unauthorized("This ticket was used already", code="ticket_used")
        self._auth.give(scope, ticket.grants)

    def _check_valid(self, grants: Grants) -> None:
        """Raise Unauthorized where this node knows that a token has ended since another one has signed."""
        if (over := self._auth.over(grants)) is not None:
            raise over


def asker_of(scope: MutableMapping[str, Any]) -> Asker | None:
    """Who asks by way of another node; None: the client has come here itself."""
    found: Asker | None = scope.get(_ASKER)
    return found


def has_ticket(scope: MutableMapping[str, Any]) -> bool:
    """Whether a publisher was sent here by another node."""
    return bool(scope.get(_TICKET))


async def _body(receive: Receive, digest: str, most: int) -> bytes:
    """The whole body of a request, which is the one that was signed. Raises Unauthorized, TooLarge."""
    content = bytearray()
    while (message := await receive())["type"] == "http.request":
        content += message.get("body", b"")
        if len(content) > most:
            raise TooLarge(f"The body of a request between nodes may have {most} bytes at most")
        if not message.get("more_body", False):
            break
    if hashlib.sha256(content).hexdigest() != digest:
        raise Unauthorized("No node of this cluster has signed this body", code="bad_request")
    return bytes(content)
