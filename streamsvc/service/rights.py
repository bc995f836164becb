"""Which right each door wants: one table, from which all doors take their check.

A route that the table does not name is no door: the application is not built with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from streamsvc.core.errors import Forbidden, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.service.auth import LOCAL, METRICS, OWNER, SIGNED, Auth, covers, root_of
from streamsvc.service.refusal_log import flat, route_of


@dataclass(frozen=True, slots=True)
class Rule:
    """What a door wants.

    rights: permissions, all of them; empty: any valid token; None: nothing, it is public.
    session: of which the token must be: the one in the path; a new one, that is, any ("*"); or it does not
        matter, or the route knows it.
    signed: a signed address is as good as a token.
    by_metrics_key: `server.metrics_key` opens it, as it opens nothing else.
    note: what else the route checks, for the documentation.
    """

    rights: tuple[str, ...] | None
    session: Literal["path", "new", ""] = "path"
    signed: bool = False
    by_metrics_key: bool = False
    note: str = ""


_PUBLIC = Rule(None, "")
_READ = Rule(("subscribe",), signed=True)
_ASK = Rule(("ask",))
_PUBLISH = Rule(("publish",))
_OPERATE = Rule(("operate",), "", by_metrics_key=True)
_OWN_PROTOCOL = Rule(("publish", "subscribe"), "new")
_SESSION = "/v1/sessions/{session_id}"
_RESOURCE = "/whip/{session}/{resource}"
_REFUSED = Rule(None, "", note="405")
_NO_METHODS = {
    "/whip": "GET HEAD PUT PATCH DELETE",
    "/whip/{session}": "GET HEAD PUT PATCH DELETE",
    _RESOURCE: "GET HEAD PUT POST",
}

DOORS: dict[str, Rule] = {
    **dict.fromkeys(("GET /", "GET /overlay/{session_id}", "GET /docs"), _PUBLIC),
    **dict.fromkeys(("GET /healthz", "GET /readyz", "GET /v1/schema"), _PUBLIC),
    **dict.fromkeys(("GET /metrics", "GET /v1/capacity"), _OPERATE),
    "GET /v1/nodes": Rule(("operate",), ""),
    "POST /v1/tokens": Rule((), "", note="at most the rights of its own; `operate` by the owner alone"),
    "DELETE /v1/tokens/{jti}": Rule((), "", note="the token itself, what was made with it; the owner: any"),
    "GET /v1/sessions": Rule(("subscribe",), "", note="lists the sessions that the token is for"),
    "POST /v1/sessions": Rule(("publish",), "", note="for the `name` in the body, or all sessions"),
    f"GET {_SESSION}": _READ,
    f"PATCH {_SESSION}": _PUBLISH,
    f"DELETE {_SESSION}": _PUBLISH,
    f"GET {_SESSION}/stats": _READ,
    f"GET {_SESSION}/export.md": _READ,
    f"GET {_SESSION}/search": _READ,
    f"GET {_SESSION}/captions.{{form}}": _READ,
    f"POST {_SESSION}/hls": Rule(("subscribe",), note="with a `video` `publish` too"),
    f"GET {_SESSION}/hls/captions.m3u8": _READ,
    f"GET {_SESSION}/hls/{{epoch}}/{{form}}/{{number}}.vtt": _READ,
    f"GET {_SESSION}/hls/master.m3u8": Rule(("subscribe",), signed=True, note="unsigned `publish` too"),
    f"GET {_SESSION}/frames/{{at}}.jpg": _READ,
    f"GET {_SESSION}/events": _READ,
    f"WebSocket {_SESSION}/events": Rule(("subscribe",)),
    f"POST {_SESSION}/messages": Rule(("subscribe",), note="signed by a node of the cluster"),
    f"POST {_SESSION}/questions": _ASK,
    f"GET {_SESSION}/questions/{{question_id}}": _ASK,
    f"DELETE {_SESSION}/questions/{{question_id}}": _ASK,
    f"GET {_SESSION}/watches": _READ,
    f"POST {_SESSION}/watches": Rule(("ask",), note="with a webhook `publish` too"),
    f"DELETE {_SESSION}/watches/{{watch_id}}": Rule(("ask",), note="of one with a webhook `publish` too"),
    f"GET {_SESSION}/pushes": _PUBLISH,
    f"POST {_SESSION}/pushes": _PUBLISH,
    f"DELETE {_SESSION}/pushes/{{push_id}}": _PUBLISH,
    "POST /whip": Rule(("publish",), "new"),
    "POST /whip/{session}": _PUBLISH,
    f"PATCH {_RESOURCE}": _PUBLISH,
    f"DELETE {_RESOURCE}": _PUBLISH,
    **dict.fromkeys(("OPTIONS /whip", "OPTIONS /whip/{session}", f"OPTIONS {_RESOURCE}"), _PUBLIC),
    "POST /v1/hooks/{server}": Rule(
        None, "", note="`publish` for the session, by the stream's token or the hook's own"
    ),
    "WebSocket /v1/realtime": _OWN_PROTOCOL,
    "WebSocket /v1/listen": _OWN_PROTOCOL,
    "POST /v1/listen": _OWN_PROTOCOL,
    f"WebSocket {_SESSION}/audio": _PUBLISH,
    **{f"{method} {path}": _REFUSED for path, methods in _NO_METHODS.items() for method in methods.split()},
}
# Types of messages on the event socket -> the permission for its session; "": none but the socket's own.
MESSAGES = {
    "question.ask": "ask",
    "question.cancel": "ask",
    "watch.add": "ask",
    "watch.remove": "ask",  # of one with a webhook "publish" too
    "session.update": "publish",
    "ping": "",
}


def check(auth: Auth, connection: HTTPConnection) -> Grants:
    """Grants of a request, which hold what its door wants.

    Raises:
        Unauthorized, Forbidden.
    """
    rule = DOORS[route_of(connection.scope)]
    grants = auth.of(connection.scope)
    if grants.tenant == SIGNED and not rule.signed:
        raise Unauthorized("A signed address opens nothing but what it names")
    if grants.holder == METRICS and not rule.by_metrics_key:
        raise Forbidden("The key of /metrics opens that and /v1/capacity alone")
    for permission in rule.rights or ():
        require(grants, permission)
    place = connection.path_params
    if rule.session:
        named = place.get("session_id") or place.get("session") if rule.session == "path" else None
        require_session(grants, named)
    return grants


def checked(auth: Auth) -> Callable[[HTTPConnection], Awaitable[None]]:
    """A FastAPI dependency that checks every HTTP request of its routes.

    WebSockets tell a refusal in the words of their protocols: they call `check` themselves.
    """

    async def dependency(connection: HTTPConnection) -> None:
        public = connection.scope["type"] != "http" or DOORS[route_of(connection.scope)].rights is None
        if not public:
            check(auth, connection)

    return dependency


def require(grants: Grants, permission: str) -> None:
    """Raise Forbidden unless `grants` hold `permission`."""
    if permission not in grants.may:
        raise Forbidden(f"This token does not have the permission {permission!r}")


def require_session(grants: Grants, session: str | None) -> None:
    """Raise Forbidden unless `grants` are for `session` (None: a new one)."""
    if not covers(grants.session, session):
        raise Forbidden("This token is for another session")


def counted_as(grants: Grants, connection: HTTPConnection) -> str:
    """What rates count: the token that the owner has made, else the client's address.

    Tokens that were made with a token count as that one: more of them give nobody more.
    """
    if grants.holder in (OWNER, LOCAL):
        return f"host:{connection.client.host if connection.client else ''}"
    return f"token:{root_of(grants.holder)}"


def share_of(grants: Grants) -> str:
    """Whose share of something a request takes; "": there are no shares for the owner."""
    return "" if grants.holder in (OWNER, LOCAL) else root_of(grants.holder)


def unnamed(routes: Iterable[BaseRoute]) -> list[str]:
    """The doors among these routes that the table does not name."""
    doors = []
    for route in flat(routes):
        if isinstance(route, APIWebSocketRoute):
            doors.append(f"WebSocket {route.path}")
        elif isinstance(route, APIRoute):
            doors += [f"{method} {route.path}" for method in sorted(route.methods or ())]
    return [door for door in doors if door not in DOORS]


def table() -> str:
    """The table in Markdown, for the documentation."""
    rows: dict[str, list[str]] = {}
    for door, rule in DOORS.items():
        if rule is not _REFUSED:
            rows.setdefault(_said(rule), []).append(f"`{door}`")
    for kind, permission in MESSAGES.items():
        rows.setdefault(_said(Rule((permission,) if permission else ())), []).append(f"message `{kind}`")
    lines = [f"| {said} | {', '.join(doors)} |" for said, doors in rows.items()]
    return "\n".join(["| wants | doors |", "|---|---|", *lines])


def _said(rule: Rule) -> str:
    if rule.rights is None:
        return "nothing" if not rule.note else f"nothing by itself ({rule.note})"
    said = " and ".join(f"`{permission}`" for permission in rule.rights) or "any valid token"
    said += {"path": ", for this session", "new": ", for all sessions", "": ""}[rule.session]
    said += "; or a signed address" if rule.signed else ""
    said += "; or `server.metrics_key`" if rule.by_metrics_key else ""
    return said + (f" ({rule.note})" if rule.note else "")
