"""Authentication and authorisation: tokens, their grants, and signed URLs.

Tokens are JWTs (RFC 7519, HS256), or short ones (`short_token`), signed with keys derived from the API key. A
signed URL gives read access to one path. Without an API key the server is open, which `core.config` allows on
a loopback bind only; an open server checks the Host header against DNS rebinding.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from starlette.datastructures import Headers
from starlette.types import Scope

from streamsvc.core import clock, web_address
from streamsvc.core.config import Server
from streamsvc.core.errors import Forbidden, InvalidRequest, NotFound, StreamsvcError, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.service import short_token
from streamsvc.service.broadcast_ids import name_of
from streamsvc.service.revocations import Revocations

SUBPROTOCOL = "streamsvc.token."  # + the token, as a WebSocket subprotocol
_OPENAI_KEY = "openai-insecure-api-key."  # + the key, as a WebSocket subprotocol
_SCHEMES = ("bearer", "token")
# In the order in which short tokens count them. operate: metrics and capacity.
PERMISSIONS = ("publish", "subscribe", "ask", "operate")
SIGNED = "signed"  # tenant of whoever shows a signed address
SIGNED_ADDRESS = re.compile(
    r"(?P<path>/v1/sessions/[\w.~-]+/[\w./~-]+)\?exp=(?P<exp>\d{10})&sig=(?P<sig>[\w-]{43})"
)
WHOLE = "/hls/master.m3u8"  # paths that are signed with their query: it names an address that we ask
_WHOLE_QUERY = re.compile(r"(?:(?P<given>.*)&)?exp=\d{10}(&by=[^&]*)?&sig=[\w-]{43}", re.ASCII)
_EXPIRY = re.compile(r"\d{10}", re.ASCII)  # one way to write each second: what is signed is what is read
# Holders: of the API key; of nothing, on an open server; of the key of /metrics.
OWNER, LOCAL, METRICS = "owner", "local", "metrics"
_MAX_LIFETIME = 24 * 3600  # seconds; security limit: lifetime of a token
_ID_LENGTH = 12  # characters of a token's id
_MOST_STEPS = 4  # tokens of tokens of tokens; security limit of the length of an id
_STEP = rf"[\w-]{{{_ID_LENGTH}}}"
_ID = re.compile(rf"{_STEP}(\.{_STEP}){{0,{_MOST_STEPS - 1}}}", re.ASCII)
_IN_SCOPE = "streamsvc.grants"  # key in an ASGI scope: Grants, or why there are none


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, the seconds that it is valid, and its id (`jti`).

    The id is that of the token that it was made with, a dot, and its own.
    """

    token: str
    id: str
    seconds: float


class Auth:
    """Checks and issues the credentials of one server.

    Args:
        server: its key, addresses and origins.
        revoked: tokens that are valid no longer; None: kept in memory.
    """

    def __init__(self, server: Server, revoked: Revocations | None = None) -> None:
        self.revoked = revoked or Revocations()
        self._server = server
        self._open = server.api_key is None
        secret = (server.api_key or secrets.token_hex(32)).encode()
        self._token_key = hmac.new(secret, b"streamsvc tokens", hashlib.sha256).digest()
        self._short_key = hmac.new(secret, b"streamsvc short tokens", hashlib.sha256).digest()
        self._url_key = hmac.new(secret, b"streamsvc urls", hashlib.sha256).digest()

    def of(self, scope: Scope) -> Grants:
        """Grants of an ASGI request: of its signed address, else of its token; read once, kept in the scope.

        Raises:
            Unauthorized, Forbidden: as of `grants`.
        """
        found = scope.get(_IN_SCOPE)
        if found is None:
            try:
                found = self._signed(scope) or self.grants(
                    Headers(scope=scope), tuple(scope.get("subprotocols", ()))
                )
            except StreamsvcError as error:
                found = copy.copy(error)
            scope[_IN_SCOPE] = found
        if isinstance(found, StreamsvcError):
            # A copy: the traceback of the one in the scope would hold the scope, until cycles are collected.
            raise copy.copy(found)
        grants: Grants = found
        return grants

    def give(self, scope: MutableMapping[str, Any], found: Grants | StreamsvcError) -> None:
        """Let a request have grants that were found otherwise, or the reason why it has none."""
        scope[_IN_SCOPE] = found

    def grants(self, headers: Mapping[str, str], subprotocols: tuple[str, ...] = ()) -> Grants:
        """Grants of a request, by its `Authorization` header or WebSocket subprotocols.

        Raises:
            Unauthorized: the token is missing or not valid.
            Forbidden: foreign origin or host on an open server.
        """
        self.check_origin(headers)
        if self._open:
            return Grants("local", "*", frozenset(PERMISSIONS), None, LOCAL)
        token = _presented(headers, subprotocols)
        if not token:
            raise Unauthorized("A token is required: Authorization: Bearer …")
        if _same(token, self._server.api_key):
            return Grants("owner", "*", frozenset(PERMISSIONS), None, OWNER)
        if _same(token, self._server.metrics_key):
            return Grants("metrics", "", frozenset({"operate"}), None, METRICS)
        return self._decode(token)

    def over(self, grants: Grants) -> Unauthorized | None:
        """Why grants that were valid are so no longer; None: they are."""
        if self.revoked.covers(grants.holder):
            return Unauthorized("The token has been revoked", code="token_revoked")
        if grants.expires is not None and clock.utc().timestamp() >= grants.expires:
            return Unauthorized("The token has expired", code="token_expired")
        return None

    def token(
        self, grants: Grants, *, session: str, may: tuple[str, ...], seconds: float, short: bool = False
    ) -> Issued:
        """Issue a short-lived token with at most the rights of `grants`; `short`: of fewer characters.

        Raises:
            InvalidRequest: unknown permission or bad lifetime. Forbidden: more than `grants` hold.
        """
        if not 0 < seconds <= _MAX_LIFETIME:
            raise InvalidRequest(
                f"expires_in must be greater than 0 and at most {_MAX_LIFETIME} seconds", code="bad_expiry"
            )
        by_owner = grants.holder in (OWNER, LOCAL)
        for permission in may:
            if permission not in PERMISSIONS:
                raise InvalidRequest(
                    f"Unknown permission {permission!r}; the permissions are {', '.join(PERMISSIONS)}",
                    code="bad_permission",
                )
            if permission not in grants.may or (permission == "operate" and not by_owner):
                raise Forbidden(f"You cannot grant {permission!r}: your own token does not allow it")
        if not covers(grants.session, session):
            raise Forbidden("You can only grant access to your own session")
        steps = [] if by_owner else grants.holder.split(".")
        if len(steps) >= _MOST_STEPS:
            raise Forbidden("This token is too many steps from the API key to make another")
        now = clock.utc().timestamp()
        if grants.expires is not None:
            seconds = min(seconds, grants.expires - now)
        number, expires = ".".join([*steps, secrets.token_urlsafe(_ID_LENGTH * 3 // 4)]), int(now + seconds)
        if short:
            says = short_token.Claims(number, session, frozenset(may), expires)
            return Issued(short_token.pack(says, PERMISSIONS, self._short_key), number, seconds)
        claims = {
            "jti": number,
            "sub": grants.tenant,
            "session": session,
            "may": list(may),
            "exp": expires,
            "aud": "streamsvc",
        }
        return Issued(jwt.encode(claims, self._token_key, algorithm="HS256"), number, seconds)

    def _decode(self, token: str) -> Grants:
        try:
            grants = _of_jwt(token, self._token_key) if "." in token else _of_short(token, self._short_key)
        except jwt.ExpiredSignatureError:
            raise Unauthorized("The token has expired", code="token_expired") from None
        except (jwt.PyJWTError, ValueError):
            raise Unauthorized("The token is not valid", code="bad_token") from None
        if (ended := self.over(grants)) is not None:
            raise copy.copy(ended)  # as in `of`
        return grants

    def revoke(self, grants: Grants, token: str) -> None:
        """Revoke the token with this id, and what was made with it: from now on they are refused.

        A token may revoke itself and what was made with it; the API key all. Sockets and streams end within
        `token_lifetime.RECHECK` seconds.

        Raises:
            NotFound: this is no id of a token. Forbidden: of another. CapacityError: too many are revoked.
        """
        if not _ID.fullmatch(token):
            raise NotFound("This is no id (`jti`) of a token", code="no_token")
        by_owner = grants.holder in (OWNER, LOCAL)
        if not by_owner and not f"{token}.".startswith(f"{grants.holder}."):
            raise Forbidden("A token can only revoke itself and those that were made with it")
        self.revoked.add(token, _MAX_LIFETIME, by_owner=by_owner)

    # --- signed URLs: read access to one path ---

    def sign(self, path: str, seconds: float, grants: Grants | None = None) -> str:
        """The address of `path` with an expiry and a signature.

        For <img>, <track>, EventSource and players, which cannot send a header. The signature is of what
        `_covered` says: it holds whatever the address begins with.

        Args:
            path: may have a query.
            seconds: that it is valid.
            grants: it ends with these too; None: the owner's.
        """
        address = self._server.address(path)
        if self._open:
            return address
        expiry, holder = int(clock.utc().timestamp() + seconds), OWNER
        if grants is not None:
            expiry, holder = min(expiry, int(grants.expires or expiry)), grants.holder
        return f"{address}{'&' if '?' in path else '?'}{self._query(path, expiry, holder)}"

    def signed_for(self, grants: Grants, found: re.Match[str]) -> str:
        """A signed address, made to end with the grants of whoever is sent it: by expiry and by revocation.

        found: by `SIGNED_ADDRESS`; what we have not signed stays as it is.
        """
        path, expiry = found["path"], int(found["exp"])
        if not self._is_signed(path, found["exp"], OWNER, found["sig"]):
            return found[0]
        return f"{path}?{self._query(path, min(expiry, int(grants.expires or expiry)), grants.holder)}"

    def _signed(self, scope: Scope) -> Grants | None:
        """Read access to what a signed address names; None: this is none, or one that is over."""
        if scope["type"] != "http" or scope["method"] != "GET" or b"sig=" not in scope["query_string"]:
            return None
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        expiry, holder = query.get("exp", ""), query.get("by", OWNER)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.endswith(WHOLE):
            whole = _WHOLE_QUERY.fullmatch(scope["query_string"].decode("latin-1"))
            path += f"?{whole['given']}" if whole is not None and whole["given"] else ""
            expiry = expiry if whole is not None else ""
        if not self._is_signed(path, expiry, holder, query.get("sig", "")):
            return None
        grants = Grants(SIGNED, "*", frozenset({"subscribe"}), int(expiry), holder)
        return grants if self.over(grants) is None else None

    def _is_signed(self, path: str, expiry: str, holder: str, signature: str) -> bool:
        if not _EXPIRY.fullmatch(expiry) or not (holder == OWNER or _ID.fullmatch(holder)):
            return False
        valid = self._signature(path, int(expiry), holder).encode()
        return hmac.compare_digest(valid, signature.encode(errors="replace"))

    def _query(self, path: str, expiry: int, holder: str) -> str:
        by = "" if holder == OWNER else f"&by={holder}"
        return f"exp={expiry}{by}&sig={self._signature(path, expiry, holder)}"

    def _signature(self, path: str, expiry: int, holder: str) -> str:
        text = f"{expiry} {holder} {_covered(path)}".encode(errors="replace")
        return hmac.new(self._url_key, text, hashlib.sha256).hexdigest()[:43]

    # --- browsers ---

    def check_origin(self, headers: Mapping[str, str], *, was_sent_here: bool = False) -> None:
        """On an open server, reject foreign origins (CSRF) and foreign host names (DNS rebinding).

        A server with an API key needs no such check: unlike a cookie, a bearer token is never added by the
        browser. A proxy that replaces the Host hides from us what the browser asked; the browser itself
        knows (`Sec-Fetch-Site`, a header that no page can set; Fetch Metadata, W3C).

        Args:
            headers: of the request.
            was_sent_here: another node has checked the page, and has sent it here with a ticket.

        Raises:
            Forbidden: with code "bad_origin" or "bad_host".
        """
        if not self._open:
            return
        host = headers.get("host", "")
        name, public = _host_name(host), urlsplit(self._server.public_url)
        if host and not web_address.is_loopback(name) and name != public.hostname:
            raise Forbidden(
                "A server without an API key answers loopback addresses and server.public_url only, "
                f"not {name[:200]}",
                code="bad_host",
            )
        origin = headers.get("origin")
        if origin is None or was_sent_here or self.page_origin(headers):
            return
        raise Forbidden(
            f"Pages of {origin[:200]} are not allowed to use this server: add it to server.origins, or set "
            "server.public_url where a proxy stands before it",
            code="bad_origin",
        )

    def page_origin(self, headers: Mapping[str, str]) -> str:
        """The origin of a page that may use this server, its own or a listed one; "": no page, or another."""
        origin, host = headers.get("origin", ""), headers.get("host", "")
        public = urlsplit(self._server.public_url)
        allowed = {*self._server.origins, f"{public.scheme}://{public.netloc}"}
        is_ours = headers.get("sec-fetch-site") == "same-origin" or (
            host != "" and origin.partition("://")[2] == host
        )
        return origin if is_ours or origin in allowed or "*" in allowed else ""


def _covered(address: str) -> str:
    """What a signature is over: the path; of HLS the folder, for a playlist names segments; or all of it."""
    path, _, _ = address.partition("?")
    folder, is_hls, _ = path.partition("/hls/")
    if path.endswith(WHOLE):
        return address
    return f"{folder}/hls" if is_hls else path


def _host_name(host: str) -> str:
    """The name in a Host header; what is no host is returned as it is."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _of_jwt(token: str, key: bytes) -> Grants:
    claims = jwt.decode(
        token,
        key,
        algorithms=["HS256"],
        audience="streamsvc",
        options={"require": ["exp", "sub"]},
    )
    return Grants(
        tenant=str(claims["sub"]),
        session=str(claims.get("session", "")),
        may=frozenset(PERMISSIONS).intersection(claims.get("may", ())),
        expires=float(claims["exp"]),
        # A token without an id was made before tokens had one; such tokens are gone after 24 hours.
        holder=str(claims.get("jti") or hashlib.sha256(token.encode()).hexdigest()[:_ID_LENGTH]),
    )


def _of_short(token: str, key: bytes) -> Grants:
    claims = short_token.unpack(token, PERMISSIONS, key)
    return Grants("owner", claims.session, claims.may, float(claims.expires), claims.id)


def _same(token: str, key: str | None) -> bool:
    return key is not None and hmac.compare_digest(token.encode(), key.encode())


def _presented(headers: Mapping[str, str], offered: tuple[str, ...]) -> str:
    """The key or token of a request; "" without one.

    In `Authorization: Bearer`, in Deepgram's `Authorization: Token`, or in a subprotocol of ours, of OpenAI's
    or of Deepgram's.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() in _SCHEMES:
        return token.strip()
    for name in offered:
        for prefix in (SUBPROTOCOL, _OPENAI_KEY):
            if name.startswith(prefix):
                return name.removeprefix(prefix).strip()
    return offered[1].strip() if len(offered) > 1 and offered[0].lower() in _SCHEMES else ""


def root_of(holder: str) -> str:
    """The token that the API key has made, and with which a token was made, perhaps through others."""
    return holder.partition(".")[0]


def covers(granted: str, session: str | None) -> bool:
    """Whether a token for `granted` is for this session too: a name has all its broadcasts, "*" is any."""
    return granted == "*" or (session is not None and granted in (session, name_of(session)))
