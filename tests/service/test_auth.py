"""Tokens and their rights, signed URLs, and the origin check of an open server."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from streamsvc.core.config import Server
from streamsvc.core.errors import Forbidden, InvalidRequest, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.service.auth import Auth, require
from tests.builders.spoken import KEY


def headers(**fields: str) -> dict[str, str]:
    return {"host": "127.0.0.1:8080"} | fields


def with_key(**options: Any) -> Auth:
    return Auth(Server(api_key=KEY, **options))


def test_without_a_key_a_local_client_has_all_rights() -> None:
    grants = Auth(Server()).grants(headers())
    assert (grants.publish, grants.subscribe, grants.ask) == (True, True, True)


def test_an_open_server_refuses_a_foreign_host_name() -> None:
    with pytest.raises(Forbidden, match=r"evil\.example"):
        Auth(Server()).grants({"host": "evil.example:8080"})


def test_a_foreign_origin_is_refused_unless_allowed() -> None:
    with pytest.raises(Forbidden, match="evil"):
        Auth(Server()).grants(headers(origin="https://evil.example"))
    Auth(Server(origins=("https://friend.example",))).grants(headers(origin="https://friend.example"))
    Auth(Server()).grants(headers(origin="http://127.0.0.1:8080"))


def test_with_a_key_a_valid_token_is_required() -> None:
    for fields in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic " + KEY}):
        with pytest.raises(Unauthorized):
            with_key().grants(headers(**fields))
    assert with_key().grants(headers(authorization=f"Bearer {KEY}")).session == "*"
    assert with_key().grants({"host": "any.example", "authorization": f"Bearer {KEY}"}).publish


def test_a_token_has_the_granted_rights_and_no_others() -> None:
    auth = with_key()
    owner = auth.grants(headers(authorization=f"Bearer {KEY}"))
    token = auth.token(owner, session="0.a", may=("subscribe",), seconds=60)
    grants = auth.grants(headers(), (f"streamsvc.token.{token}",))
    assert grants.subscribe
    assert not grants.publish
    require(grants, "0.a", "subscribe")
    for session, permission in (("0.b", "subscribe"), ("0.a", "publish"), (None, "subscribe")):
        with pytest.raises(Forbidden):
            require(grants, session, permission)
    with pytest.raises(Forbidden, match="cannot grant"):
        auth.token(grants, session="0.a", may=("publish",), seconds=60)
    with pytest.raises(Forbidden, match="own session"):
        auth.token(grants, session="0.b", may=("subscribe",), seconds=60)
    inherited = auth.grants(
        headers(
            authorization=f"Bearer {auth.token(grants, session='0.a', may=('subscribe',), seconds=80_000)}"
        )
    )
    assert inherited.expires is not None
    assert grants.expires is not None
    assert inherited.expires <= grants.expires, "a token cannot outlive the one it was made with"


def test_a_token_of_another_server_or_an_expired_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Grants("owner", "*", publish=True, subscribe=True, ask=True, expires=None)
    foreign = Auth(Server(api_key="another-key-of-length")).token(
        owner, session="*", may=("subscribe",), seconds=60
    )
    with pytest.raises(Unauthorized, match="not valid"):
        with_key().grants(headers(authorization=f"Bearer {foreign}"))
    past = Grants("owner", "*", publish=True, subscribe=True, ask=True, expires=1.0)
    old = with_key().token(past, session="*", may=("subscribe",), seconds=60)
    with pytest.raises(Unauthorized, match="expired"):
        with_key().grants(headers(authorization=f"Bearer {old}"))


@pytest.mark.parametrize(
    "change",
    [{"exp": None}, {"sub": None}, {"aud": None}, {"aud": "another service"}, {"exp": "never"}, {"sub": 7}],
)
def test_a_token_without_expiry_holder_or_our_audience_is_refused(change: dict[str, Any]) -> None:
    auth = with_key()
    whole = {"sub": "owner", "session": "*", "may": ["ask"], "exp": 2**33, "aud": "streamsvc"}

    def grants(claims: dict[str, Any], algorithm: str) -> Grants:
        key = auth._token_key if algorithm != "none" else ""
        signed = jwt.encode(claims, key, algorithm=algorithm)
        return auth.grants(headers(authorization=f"Bearer {signed}"))

    assert grants(whole, "HS256").ask
    claims = {name: value for name, value in (whole | change).items() if value is not None}
    with pytest.raises(Unauthorized):
        grants(claims, "HS256")
    with pytest.raises(Unauthorized):
        grants(whole, "none")


@pytest.mark.parametrize(("may", "seconds"), [(("fly",), 60.0), (("ask",), 0.0), (("ask",), 1e9)])
def test_a_token_with_an_unknown_permission_or_a_bad_lifetime_is_refused(
    may: tuple[str, ...], seconds: float
) -> None:
    owner = Grants("owner", "*", publish=True, subscribe=True, ask=True, expires=None)
    with pytest.raises(InvalidRequest):
        with_key().token(owner, session="*", may=may, seconds=seconds)


def test_a_signed_url_is_valid_for_one_path_until_it_expires() -> None:
    auth = with_key()
    path, _, query = auth.sign("/v1/sessions/0.a/frames/1.000.jpg", 60).partition("?")
    parts = dict(part.split("=", 1) for part in query.split("&"))
    assert auth.check_signed(path, parts["exp"], parts["sig"])
    assert not auth.check_signed("/v1/sessions/0.a/frames/2.000.jpg", parts["exp"], parts["sig"])
    assert not auth.check_signed(path, str(int(parts["exp"]) + 1), parts["sig"])
    assert not auth.check_signed(path, None, None)
    expired = dict(part.split("=", 1) for part in auth.sign(path, -60).partition("?")[2].split("&"))
    assert not auth.check_signed(path, expired["exp"], expired["sig"])
    assert Auth(Server()).sign(path, 60) == path, "an open server needs no signatures"


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "²"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(Forbidden):
        Auth(Server()).grants({"host": host})


@pytest.mark.parametrize("origin", ["http://[", "http://]", "null"])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(Forbidden):
        Auth(Server()).grants(headers(origin=origin))


@pytest.mark.parametrize(
    ("expires", "signature"),
    [
        ("²", "a"),
        ("1e9", "a"),
        ("٣", "a"),
        ("9" * 5000, "a"),
        ("99999999999", "ä"),
        ("99999999999", "\ud800"),
    ],
)
def test_a_signature_of_odd_characters_is_no_signature(expires: str, signature: str) -> None:
    assert not with_key().check_signed("/v1/sessions/a/frames/1.000.jpg", expires, signature)


def test_behind_a_proxy_the_browser_itself_says_that_a_page_is_ours() -> None:
    own = headers(origin="http://localhost:8090")  # the proxy's address; the Host is what the proxy asked
    with pytest.raises(Forbidden, match=r"server\.public_url"):
        Auth(Server()).grants(own)
    Auth(Server()).grants(own | {"sec-fetch-site": "same-origin"})
    Auth(Server(public_url="http://localhost:8090/live")).grants(own)
    for site in ("cross-site", "same-site", "none"):
        with pytest.raises(Forbidden):
            Auth(Server()).grants(own | {"sec-fetch-site": site})
    with pytest.raises(Forbidden):
        Auth(Server()).grants(own | {"sec-fetch-site": "same-origin", "host": "evil.example"})


def test_the_public_host_is_answered_and_a_malformed_one_is_not() -> None:
    Auth(Server(public_url="https://example.org")).grants({"host": "example.org"})
    for host in ("evil.example", "[::1", "example.org.evil.example"):
        with pytest.raises(Forbidden):
            Auth(Server(public_url="https://example.org")).grants({"host": host})


def test_a_signed_address_begins_with_the_public_url_and_its_signature_is_of_the_path() -> None:
    server = Server(api_key=KEY, public_url="https://example.org/live")
    address, _, query = Auth(server).sign("/v1/sessions/0.a/events", 60).partition("?")
    parts = dict(part.split("=", 1) for part in query.split("&"))
    assert address == "https://example.org/live/v1/sessions/0.a/events"
    moved = Auth(Server(api_key=KEY))
    assert moved.check_signed("/v1/sessions/0.a/events", parts["exp"], parts["sig"])
