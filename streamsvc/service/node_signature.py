"""What nodes of a cluster sign for each other: requests that they forward, and tickets for publishers.

Both are JWTs (RFC 7519, HS256), each with its own audience, under a key derived from `cluster.secret`, which
no client has. They hold the grants of the client that asked, never its token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from streamsvc.core import clock
from streamsvc.core.errors import Unauthorized
from streamsvc.core.types import Grants

HEADER = "streamsvc-node"  # of a forwarded request
TICKET_SECONDS = 60.0  # in which a publisher goes where it was sent
FORWARD_SECONDS = 30.0  # that a forwarded request is valid: the clocks of nodes may differ by less
_REQUEST, _TICKET = "streamsvc node", "streamsvc ticket"  # audiences
_REQUIRED = ["exp", "jti", "target", "grants"]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request that a node forwards for its client.

    method, target: as they go on the wire, the target with its query. body: of the request. grants: of the
    client. client: its network address. audience: of private answers to it; "": the owner decides.
    """

    method: str
    target: str
    body: bytes
    grants: Grants
    client: str = ""
    audience: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was shown: its id, which is used once, its grants, and the seconds that it is valid.

    `origin`: of the page that was sent here with it; "": of no page.
    """

    id: str
    grants: Grants
    seconds: float
    origin: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks by a forwarded request, as its signature says; fields as of `Forwarded`."""

    grants: Grants
    client: str
    audience: str
    body: str  # SHA-256 of the body, in hexadecimal


class NodeSignature:
    """Signs and checks for one cluster.

    Args:
        secret: `cluster.secret`.
    """

    def __init__(self, secret: str) -> None:
        self._key = hmac.new(secret.encode(), b"streamsvc nodes", hashlib.sha256).digest()

    def forwarded(self, request: Forwarded) -> str:
        """The value of HEADER for a request."""
        return self._signed(
            _REQUEST,
            FORWARD_SECONDS,
            request.grants,
            {
                "target": f"{request.method} {request.target}",
                "body": hashlib.sha256(request.body).hexdigest(),
                "client": request.client,
                "audience": request.audience,
            },
        )

    def asker(self, signed: str, method: str, target: str) -> Asker:
        """Who asks by a request with this header. The caller checks the body against `Asker.body`.

        Raises:
            Unauthorized: no node of this cluster has signed this request, or it is too old.
        """
        claims = self._read(signed, _REQUEST, f"{method} {target}", "request")
        return Asker(
            _grants(claims["grants"]),
            str(claims.get("client", "")),
            str(claims.get("audience", "")),
            str(claims.get("body", "")),
        )

    def ticket(self, path: str, grants: Grants, origin: str = "") -> str:
        """A ticket to publish once at `path` of another node, with what `grants` hold of that.

        `origin`: of the page that publishes, if it is one that may use this service.
        """
        return self._signed(_TICKET, TICKET_SECONDS, grants, {"target": path, "origin": origin})

    def shown(self, ticket: str, path: str) -> Ticket:
        """A ticket that was shown at `path`. The caller sees to it that its id is used once.

        Raises:
            Unauthorized: "bad_ticket": no node of this cluster has made it for this path; "ticket_expired".
        """
        claims = self._read(ticket, _TICKET, path, "ticket")
        found = _grants(claims["grants"])
        grants = Grants(
            found.tenant, found.session, found.may & {"publish"}, found.expires, found.holder
        )  # it is for publishing alone
        seconds = float(claims["exp"]) - clock.utc().timestamp()
        return Ticket(str(claims["jti"]), grants, seconds, str(claims.get("origin", "")))

    def _signed(self, audience: str, seconds: float, grants: Grants, claims: Mapping[str, object]) -> str:
        held = {
            "tenant": grants.tenant,
            "session": grants.session,
            "may": sorted(grants.may),
            "expires": grants.expires,
            "holder": grants.holder,
        }
        head = {
            "aud": audience,
            "exp": int(clock.utc().timestamp() + seconds),
            "jti": secrets.token_urlsafe(12),
            "grants": held,
        }
        return jwt.encode({**head, **claims}, self._key, algorithm="HS256")

    def _read(self, signed: str, audience: str, target: str, what: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                signed, self._key, algorithms=["HS256"], audience=audience, options={"require": _REQUIRED}
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized(
                f"The {what} has expired: ask again; the clocks of nodes must agree", code=f"{what}_expired"
            ) from None
        except jwt.PyJWTError:
            raise Unauthorized(
                f"No node of this cluster has signed this {what}", code=f"bad_{what}"
            ) from None
        if not hmac.compare_digest(str(claims["target"]).encode(), target.encode()):
            raise Unauthorized(f"This {what} is for something else", code=f"bad_{what}")
        return claims


def _grants(held: Mapping[str, Any]) -> Grants:
    may = frozenset(map(str, held["may"]))
    return Grants(str(held["tenant"]), str(held["session"]), may, held["expires"], str(held["holder"]))
