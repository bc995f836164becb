"""Requests that the owner of a session alone answers, and messages of its event sockets at other nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from streamsvc.core.errors import ClusterUnavailable, Conflict, NotFound
from streamsvc.core.types import Grants
from streamsvc.service import client_messages
from streamsvc.service.cluster_part import ClusterPart
from streamsvc.service.cluster_sessions import Place, stalled
from streamsvc.service.forwarding import MESSAGES, Relayed
from streamsvc.service.node_requests import asker_of
from streamsvc.service.node_signature import Forwarded
from streamsvc.service.refusal_log import route_of
from streamsvc.service.service import Service
from streamsvc.service.session import Session

_SESSION, _RESOURCE = "/v1/sessions/{session_id}", "/whip/{session}/{resource}"
_ASK = f"POST {_SESSION}/questions"
_CHANGE = f"PATCH {_SESSION}"
_DELETE = f"DELETE {_SESSION}"
# Those that this node can answer where the owner is gone: from what the log tells.
_READ = {f"GET {_SESSION}/stats", f"GET {_SESSION}/questions/{{question_id}}", f"GET {_SESSION}/watches"}
OWNERS = _READ | {
    _ASK,
    _CHANGE,
    _DELETE,
    f"DELETE {_SESSION}/questions/{{question_id}}",
    f"POST {_SESSION}/watches",
    f"DELETE {_SESSION}/watches/{{watch_id}}",
    f"GET {_SESSION}/pushes",
    f"POST {_SESSION}/pushes",
    f"DELETE {_SESSION}/pushes/{{push_id}}",
    f"PATCH {_RESOURCE}",
    f"DELETE {_RESOURCE}",
    f"POST {MESSAGES}",
}


class Reply(BaseModel):
    """An event for the sender of a message alone."""

    type: str
    body: dict[str, Any]


class Replies(BaseModel):
    """What a message is answered with at once."""

    replies: list[Reply]


@dataclass(frozen=True, slots=True)
class RemoteSender:
    """The sender of a message, whose event socket is at another node."""

    session: Session
    grants: Grants
    client: str
    replies: list[Reply] = field(default_factory=list)

    def reply(self, kind: str, body: client_messages.Message) -> None:
        """Keep an event for this sender alone."""
        self.replies.append(Reply(type=kind, body=dict(body)))


def router(service: Service) -> APIRouter:
    """The route of messages."""
    routes = APIRouter(tags=["cluster"], include_in_schema=False)

    @routes.post(MESSAGES)
    async def message(session_id: str, request: Request) -> Replies:
        """Handle a message that an event socket at another node has received."""
        asker = asker_of(request.scope)
        if asker is None:
            raise NotFound("messages are sent on the event socket; this is for nodes of the cluster")
        session = await service.sessions.open(session_id)
        sender = RemoteSender(session, asker.grants, asker.audience)
        await client_messages.handle(service, sender, (await request.body()).decode(errors="replace"))
        return Replies(replies=sender.replies)

    return routes


def at_owner(service: Service) -> Callable[[HTTPConnection], Awaitable[None]]:
    """A FastAPI dependency, behind the check of rights, that has the owner answer what it alone can."""

    async def dependency(connection: HTTPConnection) -> None:
        part = service.part
        if part is None or not isinstance(connection, Request) or route_of(connection.scope) not in OWNERS:
            return
        named = connection.path_params
        place = await part.sessions.locate(str(named.get("session_id") or named.get("session")))
        if place.shared is None:
            return
        if asker_of(connection.scope) is not None:  # it has moved meanwhile, or the other node errs
            raise ClusterUnavailable("this session does not live here; ask again", code="moved")
        door = route_of(connection.scope)
        if place.node:
            await _forward(service, part, place, connection)
        elif door not in _READ:
            await _without_owner(part, place, door)

    return dependency


async def _forward(service: Service, part: ClusterPart, place: Place, request: Request) -> None:
    """Raise Relayed with the owner's answer. A session whose owner does not answer may still be read here."""
    scope = request.scope
    path = scope.get("raw_path", b"").decode("latin-1").partition("?")[0] or scope["path"]
    path = path.removeprefix(scope.get("root_path", ""))
    query = scope["query_string"].decode("latin-1")
    client = scope.get("client")
    forwarded = Forwarded(
        request.method,
        f"{path}?{query}" if query else path,
        await request.body(),
        service.auth.of(scope),
        client[0] if client else "",
    )
    try:
        response = await part.forwarder.forward(place.node, forwarded, request.headers)
    except ClusterUnavailable:
        if route_of(scope) in _READ:
            return
        raise
    raise Relayed(response)


async def _without_owner(part: ClusterPart, place: Place, door: str) -> None:
    """Do what can be done with a session that no node has.

    Raises:
        ClusterUnavailable: it waits for its publisher. Conflict: it has ended.
    """
    assert place.shared is not None
    if not place.shared.ended:
        if door != _DELETE:
            raise stalled(place)
        await part.takeover.close_lost(place.shared)
    elif door == _ASK:
        await part.remote.drop(place.id)
        await part.takeover.adopt(place.shared)
    elif door == _CHANGE:
        raise Conflict("this session has ended, so nothing of it can be changed", code="session_ended")
