"""Who may do what: tokens -> Grants, and view-only signed URLs where no header can be sent.

Open only on a loopback bind without a key; there the Host header must name a loopback address, so that no web page can
reach us by a name of its own (DNS rebinding). Tokens are JWTs (RFC 7519, HS256) signed with a key derived from the API key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

import jwt

from streamsvc.core import clock
from streamsvc.core.config import Server, is_loopback
from streamsvc.core.errors import Forbidden, InvalidRequest, Unauthorized
from streamsvc.core.types import Grants

SUBPROTOCOL = "streamsvc.token."  # + the token, as a WebSocket subprotocol
_LONGEST = 24 * 3600  # seconds; security limit: no token lives longer
_MAY = ("publish", "subscribe", "ask")


class Auth:
    """The keeper of one server's key."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._open = server.api_key is None  # config.py lets that through on a loopback bind only
        secret = (server.api_key or secrets.token_hex(32)).encode()
        self._key = hmac.new(secret, b"streamsvc tokens", hashlib.sha256).digest()
        self._url_key = hmac.new(secret, b"streamsvc urls", hashlib.sha256).digest()

    def grants(self, headers: Mapping[str, str], subprotocols: tuple[str, ...] = ()) -> Grants:
        """The grants of a request: `Authorization: Bearer` or the WebSocket subprotocol.

        Raises:
            Unauthorized: no token, or one that is not valid. Forbidden: a foreign origin or host.
        """
        self.check_origin(headers)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = next(
                (name.removeprefix(SUBPROTOCOL) for name in subprotocols if name.startswith(SUBPROTOCOL)), ""
            )
        token = token.strip()
        if self._open:
            return Grants("local", "*", publish=True, subscribe=True, ask=True, expires=None)
        if not token:
            raise Unauthorized("a token is needed: Authorization: Bearer …")
        if self._server.api_key is not None and hmac.compare_digest(
            token.encode(), self._server.api_key.encode()
        ):
            return Grants("owner", "*", publish=True, subscribe=True, ask=True, expires=None)
        return self._read(token)

    def token(self, grants: Grants, *, session: str, may: tuple[str, ...], seconds: float) -> str:
        """A short-lived token with no more than what `grants` holds.

        Raises:
            InvalidRequest: an unknown permission or time. Forbidden: more than the grantor may.
        """
        if not 0 < seconds <= _LONGEST:
            raise InvalidRequest(f"expires_in must be between 1 and {_LONGEST} seconds", code="bad_expiry")
        for name in may:
            if name not in _MAY:
                raise InvalidRequest(
                    f"{name!r} is no permission; there are {', '.join(_MAY)}", code="bad_permission"
                )
            if not getattr(grants, name):
                raise Forbidden(f"you may not {name}, so you cannot grant it")
        if grants.session not in ("*", session):
            raise Forbidden("you may only grant your own session")
        expires = clock.utc().timestamp() + seconds
        if grants.expires is not None:
            expires = min(expires, grants.expires)
        claims = {
            "sub": grants.tenant,
            "session": session,
            "may": list(may),
            "exp": int(expires),
            "aud": "streamsvc",
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def _read(self, token: str) -> Grants:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience="streamsvc",
                options={"require": ["exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            code = "token_expired" if isinstance(error, jwt.ExpiredSignatureError) else "bad_token"
            raise Unauthorized(
                "the token is not valid" if code == "bad_token" else "the token has expired", code=code
            ) from None
        may = claims.get("may", ())
        return Grants(
            tenant=str(claims["sub"]),
            session=str(claims.get("session", "")),
            publish="publish" in may,
            subscribe="subscribe" in may,
            ask="ask" in may,
            expires=float(claims["exp"]),
        )

    # --- signed URLs: one path, view only ---

    def sign(self, path: str, seconds: float) -> str:
        """`path` with an expiry and a signature: for <img>, <track> and EventSource, which can send no header."""
        if self._open:
            return path
        expires = int(clock.utc().timestamp() + seconds)
        return f"{path}?exp={expires}&sig={self._signature(path, expires)}"

    def check_signed(self, path: str, expires: str | None, signature: str | None) -> bool:
        """Whether a signed URL is genuine and not expired."""
        if not expires or not signature or not expires.isdigit():
            return False
        genuine = hmac.compare_digest(self._signature(path, int(expires)), signature)
        return genuine and clock.utc().timestamp() < int(expires)

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._url_key, f"{expires} {path}".encode(), hashlib.sha256).hexdigest()[:43]

    # --- browsers ---

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """On an open server, refuse a page of another site, and a host name that is not this machine's.

        With a key there is nothing to refuse here: a browser never adds a token by itself, as it would a cookie.

        Raises:
            Forbidden: with code "bad_origin" or "bad_host".
        """
        if not self._open:
            return
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if host and not is_loopback(name):
            raise Forbidden(
                f"this server is open to its own machine only, and was asked for as {name}", code="bad_host"
            )
        origin = headers.get("origin")
        if origin is None or origin in self._server.origins or "*" in self._server.origins:
            return
        if urlsplit(origin).netloc != host:
            raise Forbidden(
                f"pages of {origin} may not use this server; allow it with server.origins", code="bad_origin"
            )


def need(grants: Grants, session: str | None, permission: str) -> None:
    """Raise Forbidden unless `grants` hold the permission for the session (None: a new one)."""
    if not getattr(grants, permission):
        raise Forbidden(f"this token does not allow to {permission}")
    if grants.session != "*" and grants.session != session:
        raise Forbidden("this token is for another session")
