"""Authentication and authorisation: tokens, their grants, and signed URLs.

Tokens are JWTs (RFC 7519, HS256) signed with a key derived from the API key. A signed URL gives read access
to one path. Without an API key the server is open, which `core.config` allows on a loopback bind only; an
open server checks the Host header against DNS rebinding.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import jwt
from fastapi import Request

from streamsvc.core import clock
from streamsvc.core.config import Server, is_loopback
from streamsvc.core.errors import Forbidden, InvalidRequest, Unauthorized
from streamsvc.core.types import Grants

SUBPROTOCOL = "streamsvc.token."  # + the token, as a WebSocket subprotocol
PERMISSIONS = ("publish", "subscribe", "ask")
OWNER, LOCAL = "owner", "local"  # holders: of the API key; of nothing, on an open server
_MAX_LIFETIME = 24 * 3600  # seconds; security limit: lifetime of a token
_ID_LENGTH = 12  # characters of a token's id
_MOST_STEPS = 4  # tokens of tokens of tokens; security limit of the length of an id


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token and its id (`jti`): the id of the token that it was made with, a dot, and its own."""

    token: str
    id: str


class Auth:
    """Checks and issues the credentials of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._open = server.api_key is None
        secret = (server.api_key or secrets.token_hex(32)).encode()
        self._token_key = hmac.new(secret, b"streamsvc tokens", hashlib.sha256).digest()
        self._url_key = hmac.new(secret, b"streamsvc urls", hashlib.sha256).digest()

    def grants(self, headers: Mapping[str, str], subprotocols: tuple[str, ...] = ()) -> Grants:
        """Grants of a request, by `Authorization: Bearer` or the WebSocket subprotocol.

        Raises:
            Unauthorized: the token is missing or not valid.
            Forbidden: foreign origin or host on an open server.
        """
        self.check_origin(headers)
        if self._open:
            return Grants("local", "*", frozenset(PERMISSIONS), None, LOCAL)
        token = _bearer(headers) or next(
            (name.removeprefix(SUBPROTOCOL) for name in subprotocols if name.startswith(SUBPROTOCOL)), ""
        )
        if not token:
            raise Unauthorized("A token is required: Authorization: Bearer …")
        api_key = self._server.api_key
        if api_key is not None and hmac.compare_digest(token.encode(), api_key.encode()):
            return Grants("owner", "*", frozenset(PERMISSIONS), None, OWNER)
        return self._decode(token)

    def asker(self, request: Request) -> str:
        """Who asks: the token's holder; on an open server, the client's address."""
        if not self._open and (token := _bearer(request.headers)):
            return f"token:{hashlib.sha256(token.encode()).hexdigest()[:32]}"
        return f"host:{request.client.host if request.client else ''}"

    def token(self, grants: Grants, *, session: str, may: tuple[str, ...], seconds: float) -> Issued:
        """Issue a short-lived token with at most the rights of `grants`.

        Raises:
            InvalidRequest: unknown permission or bad lifetime. Forbidden: more than `grants` hold.
        """
        if not 0 < seconds <= _MAX_LIFETIME:
            raise InvalidRequest(
                f"expires_in must be greater than 0 and at most {_MAX_LIFETIME} seconds", code="bad_expiry"
            )
        for permission in may:
            if permission not in PERMISSIONS:
                raise InvalidRequest(
                    f"Unknown permission {permission!r}; the permissions are {', '.join(PERMISSIONS)}",
                    code="bad_permission",
                )
            if not _holds(grants, permission):
                raise Forbidden(f"You cannot grant {permission!r}: your own token does not allow it")
        if grants.session not in ("*", session):
            raise Forbidden("You can only grant access to your own session")
        steps = [] if grants.holder in (OWNER, LOCAL) else grants.holder.split(".")
        if len(steps) >= _MOST_STEPS:
            raise Forbidden("This token is too many steps from the API key to make another")
        expires = clock.utc().timestamp() + seconds
        if grants.expires is not None:
            expires = min(expires, grants.expires)
        number = ".".join([*steps, secrets.token_urlsafe(_ID_LENGTH * 3 // 4)])
        claims = {
            "jti": number,
            "sub": grants.tenant,
            "session": session,
            "may": list(may),
            "exp": int(expires),
            "aud": "streamsvc",
        }
        return Issued(jwt.encode(claims, self._token_key, algorithm="HS256"), number)

    def _decode(self, token: str) -> Grants:
        try:
            claims = jwt.decode(
                token,
                self._token_key,
                algorithms=["HS256"],
                audience="streamsvc",
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise self.expired() from None
        except jwt.PyJWTError:
            raise Unauthorized("The token is not valid", code="bad_token") from None
        return Grants(
            tenant=str(claims["sub"]),
            session=str(claims.get("session", "")),
            may=frozenset(PERMISSIONS).intersection(claims.get("may", ())),
            expires=float(claims["exp"]),
            # A token without an id was made before tokens had one; such tokens are gone after 24 hours.
            holder=str(claims.get("jti") or hashlib.sha256(token.encode()).hexdigest()[:_ID_LENGTH]),
        )

    # --- signed URLs: read access to one path ---

    def sign(self, path: str, seconds: float) -> str:
        """The address of `path` with an expiry and a signature.

        For <img>, <track> and EventSource, which cannot send a header. The signature is of the path alone:
        it holds whatever the address begins with.
        """
        address = self._server.address(path)
        if self._open:
            return address
        expires = int(clock.utc().timestamp() + seconds)
        return f"{address}?exp={expires}&sig={self._signature(path, expires)}"

    def check_signed(self, path: str, expires: str | None, signature: str | None) -> bool:
        """Whether the signature of a URL is valid and not expired."""
        if not expires or not signature or not (expires.isascii() and expires.isdecimal()):
            return False
        valid = hmac.compare_digest(
            self._signature(path, int(expires[:20])).encode(), signature.encode(errors="replace")
        )
        return valid and clock.utc().timestamp() < int(expires)

    def shortened(self, signed: re.Match[str], expires: float) -> str:
        """A signed address that is valid until `expires` at most.

        signed: its path, expiry and signature; what we have not signed stays as it is.
        """
        path, expiry = signed[1], int(signed[2])
        if expiry <= expires or not self.check_signed(path, signed[2], signed[3]):
            return signed[0]
        return f"{path}?exp={int(expires)}&sig={self._signature(path, int(expires))}"

    def is_over(self, expires: float) -> bool:
        """Whether credentials with this expiry (Unix seconds) are valid no longer."""
        return clock.utc().timestamp() >= expires

    def expired(self) -> Unauthorized:
        """What is told when they are not."""
        return Unauthorized("The token has expired", code="token_expired")

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._url_key, f"{expires} {path}".encode(), hashlib.sha256).hexdigest()[:43]

    # --- browsers ---

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """On an open server, reject foreign origins (CSRF) and foreign host names (DNS rebinding).

        A server with an API key needs no such check: unlike a cookie, a bearer token is never added by the
        browser. A proxy that replaces the Host hides from us what the browser asked; the browser itself
        knows (`Sec-Fetch-Site`, a header that no page can set; Fetch Metadata, W3C).

        Raises:
            Forbidden: with code "bad_origin" or "bad_host".
        """
        if not self._open:
            return
        host = headers.get("host", "")
        name = _host_name(host)
        public = urlsplit(self._server.public_url)
        if host and not is_loopback(name) and name != public.hostname:
            raise Forbidden(
                "A server without an API key answers loopback addresses and server.public_url only, "
                f"not {name[:200]}",
                code="bad_host",
            )
        origin = headers.get("origin")
        if origin is None or headers.get("sec-fetch-site") == "same-origin":
            return
        allowed = {*self._server.origins, f"{public.scheme}://{public.netloc}"}
        if origin in allowed or "*" in allowed or origin.partition("://")[2] == host:
            return
        raise Forbidden(
            f"Pages of {origin[:200]} are not allowed to use this server: add it to server.origins, or set "
            "server.public_url where a proxy stands before it",
            code="bad_origin",
        )


def _host_name(host: str) -> str:
    """The name in a Host header; what is no host is returned as it is."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _bearer(headers: Mapping[str, str]) -> str:
    """The token of the `Authorization` header; "" without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def require(grants: Grants, session: str | None, permission: str) -> None:
    """Raise Forbidden unless `grants` hold `permission` for `session` (None: a new session)."""
    if not _holds(grants, permission):
        raise Forbidden(f"This token does not have the permission {permission!r}")
    if grants.session != "*" and grants.session != session:
        raise Forbidden("This token is for another session")


def requirement(auth: Auth, permission: str) -> Callable[[Request], Grants]:
    """A FastAPI dependency that checks `permission` for the session in the path.

    A GET may use a signed URL instead of a token.
    """

    def check(request: Request) -> Grants:
        session = request.path_params.get("session_id")
        query = request.query_params
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        if request.method == "GET" and auth.check_signed(path, query.get("exp"), query.get("sig")):
            expires = float(query["exp"])
            return Grants("signed", str(session), frozenset({"subscribe"}), expires, OWNER)
        grants = auth.grants(request.headers)
        require(grants, session, permission)
        return grants

    return check


def _holds(grants: Grants, permission: str) -> bool:
    return permission in grants.may
