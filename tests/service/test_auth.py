"""Tokens and their rights, signed URLs, and the origin check of an open server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from streamsvc.core.config import Server
from streamsvc.core.errors import Forbidden, InvalidRequest, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.service.auth import PERMISSIONS, Auth, covers
from tests.builders.spoken import KEY


def headers(**fields: str) -> dict[str, str]:
    return {"host": "127.0.0.1:8080"} | fields


def with_key(**options: Any) -> Auth:
    return Auth(Server(api_key=KEY, **options))


def test_without_a_key_a_local_client_has_all_rights() -> None:
    grants = Auth(Server()).grants(headers())
    assert grants.may == set(PERMISSIONS)
    assert grants.holder == "local"


def test_an_open_server_refuses_a_foreign_host_name() -> None:
    with pytest.raises(Forbidden, match=r"evil\.example"):
        Auth(Server()).grants({"host": "evil.example:8080"})


def test_a_foreign_origin_is_refused_unless_allowed() -> None:
    with pytest.raises(Forbidden, match="evil"):
        Auth(Server()).grants(headers(origin="https://evil.example"))
    Auth(Server(origins=("https://friend.example",))).grants(headers(origin="https://friend.example"))
    Auth(Server()).grants(headers(origin="http://127.0.0.1:8080"))


@pytest.mark.parametrize("key", [None, KEY])
def test_a_page_that_may_use_this_server_is_known_by_its_origin(key: str | None) -> None:
    auth = Auth(
        Server(api_key=key, origins=("https://friend.example",), public_url="https://us.example/live")
    )
    for origin in ("https://friend.example", "https://us.example", "http://127.0.0.1:8080"):
        assert auth.page_origin(headers(origin=origin)) == origin
    for origin in ("https://evil.example", "null", "http://127.0.0.1:8081", ""):
        assert auth.page_origin(headers(origin=origin)) == ""
    assert auth.page_origin(headers()) == ""
    behind = headers(origin="https://name.example") | {"sec-fetch-site": "same-origin"}
    assert auth.page_origin(behind) == "https://name.example", "a proxy has replaced the Host"
    assert Auth(Server(origins=("*",))).page_origin(headers(origin="https://any.example"))


def test_an_open_server_takes_a_page_that_another_node_has_checked_under_its_own_names_alone() -> None:
    Auth(Server()).check_origin(headers(origin="null"), was_sent_here=True)
    with pytest.raises(Forbidden, match=r"evil\.example"):
        Auth(Server()).check_origin({"host": "evil.example:8080", "origin": "null"}, was_sent_here=True)


def test_with_a_key_a_valid_token_is_required() -> None:
    for fields in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic " + KEY}):
        with pytest.raises(Unauthorized):
            with_key().grants(headers(**fields))
    assert with_key().grants(headers(authorization=f"Bearer {KEY}")).session == "*"
    assert with_key().grants({"host": "any.example", "authorization": f"Bearer {KEY}"}).holder == "owner"


@pytest.mark.parametrize(
    ("sent", "offered"),
    [
        ({"authorization": "Bearer KEY"}, ()),
        ({"authorization": "bearer KEY"}, ()),
        ({"authorization": "Token KEY"}, ()),
        ({}, ("streamsvc.v1", "streamsvc.token.KEY")),
        ({}, ("realtime", "openai-insecure-api-key.KEY")),
        ({}, ("token", "KEY")),
        ({}, ("bearer", "KEY")),
    ],
)
def test_a_key_is_read_from_every_supported_place(sent: dict[str, str], offered: tuple[str, ...]) -> None:
    offered = tuple(name.replace("KEY", KEY) for name in offered)
    sent = {name: text.replace("KEY", KEY) for name, text in sent.items()}
    assert with_key().grants(headers(**sent), offered).holder == "owner"


@pytest.mark.parametrize("offered", [("realtime",), ("streamsvc.v1", KEY), ()])
def test_other_headers_and_subprotocols_are_no_credentials(offered: tuple[str, ...]) -> None:
    with pytest.raises(Unauthorized, match="required"):
        with_key().grants(headers(authorization="Basic eDp5", cookie=KEY), offered)


def test_a_token_has_the_granted_rights_and_no_others() -> None:
    auth = with_key()
    owner = auth.grants(headers(authorization=f"Bearer {KEY}"))
    issued = auth.token(owner, session="0.a", may=("subscribe",), seconds=60)
    grants = auth.grants(headers(), (f"streamsvc.token.{issued.token}",))
    assert grants.may == {"subscribe"}
    assert grants.holder == issued.id
    with pytest.raises(Forbidden, match="cannot grant"):
        auth.token(grants, session="0.a", may=("publish",), seconds=60)
    with pytest.raises(Forbidden, match="own session"):
        auth.token(grants, session="0.b", may=("subscribe",), seconds=60)
    made = auth.token(grants, session="0.a", may=("subscribe",), seconds=80_000)
    inherited = auth.grants(headers(authorization=f"Bearer {made.token}"))
    assert inherited.expires is not None
    assert grants.expires is not None
    assert inherited.expires <= grants.expires, "a token cannot outlive the one it was made with"


def test_a_short_token_grants_expires_and_is_revoked_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = with_key()
    owner = auth.grants(headers(authorization=f"Bearer {KEY}"))
    issued = auth.token(owner, session="studio", may=("publish", "ask"), seconds=60, short=True)
    grants = auth.grants(headers(authorization=f"Bearer {issued.token}"))
    long = auth.token(owner, session="studio", may=("publish", "ask"), seconds=60)
    same = auth.grants(headers(authorization=f"Bearer {long.token}"))
    assert (grants.tenant, grants.session, grants.may) == (same.tenant, same.session, same.may)
    assert grants.expires is not None and same.expires is not None
    assert abs(grants.expires - same.expires) <= 1
    assert grants.holder == issued.id
    child = auth.token(grants, session="studio", may=("ask",), seconds=9999, short=True)
    assert auth.grants(headers(authorization=f"Bearer {child.token}")).expires == grants.expires
    foreign = Auth(Server(api_key="another-key-of-length"))
    with pytest.raises(Unauthorized, match="not valid"):
        foreign.grants(headers(authorization=f"Bearer {issued.token}"))
    auth.revoke(owner, issued.id)
    for token in (issued.token, child.token):
        with pytest.raises(Unauthorized, match="revoked"):
            auth.grants(headers(authorization=f"Bearer {token}"))
    past = Grants("owner", "*", frozenset(PERMISSIONS), 1.0, "owner")
    old = auth.token(past, session="*", may=("ask",), seconds=60, short=True)
    with pytest.raises(Unauthorized, match="expired"):
        auth.grants(headers(authorization=f"Bearer {old.token}"))


def test_only_the_owner_grants_the_right_to_operate() -> None:
    auth = with_key()
    owner = auth.grants(headers(authorization=f"Bearer {KEY}"))
    operator = auth.token(owner, session="*", may=("operate", "ask"), seconds=60)
    grants = auth.grants(headers(authorization=f"Bearer {operator.token}"))
    assert grants.may == {"operate", "ask"}
    assert auth.token(grants, session="*", may=("ask",), seconds=60).token
    with pytest.raises(Forbidden, match="operate"):
        auth.token(grants, session="*", may=("operate",), seconds=60)


def test_a_token_has_an_id_that_begins_with_that_of_the_token_it_was_made_with() -> None:
    auth = with_key()
    grants = auth.grants(headers(authorization=f"Bearer {KEY}"))
    ids = [""]
    for _ in range(4):
        issued = auth.token(grants, session="0.a", may=("subscribe",), seconds=60)
        grants = auth.grants(headers(authorization=f"Bearer {issued.token}"))
        assert issued.id.startswith(ids[-1])
        assert len(issued.id) == len(ids[-1]) + 12 + bool(ids[-1])
        assert grants.holder == issued.id
        ids.append(issued.id)
    with pytest.raises(Forbidden, match="too many steps"):
        auth.token(grants, session="0.a", may=("subscribe",), seconds=60)


def test_a_token_without_an_id_is_known_by_its_text() -> None:
    auth = with_key()
    claims = {"sub": "owner", "session": "*", "may": ["ask"], "exp": 9_999_999_999, "aud": "streamsvc"}
    tokens = [jwt.encode(claims | {"exp": 9_999_999_999 + n}, auth._token_key, "HS256") for n in range(2)]
    holders = [auth.grants(headers(authorization=f"Bearer {token}")).holder for token in (*tokens, tokens[0])]
    assert holders[0] == holders[2] != holders[1]
    assert len(holders[0]) == 12


def test_a_token_of_another_server_or_an_expired_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Grants("owner", "*", frozenset(PERMISSIONS), None, "owner")
    foreign = Auth(Server(api_key="another-key-of-length")).token(
        owner, session="*", may=("subscribe",), seconds=60
    )
    with pytest.raises(Unauthorized, match="not valid"):
        with_key().grants(headers(authorization=f"Bearer {foreign.token}"))
    past = Grants("owner", "*", frozenset(PERMISSIONS), 1.0, "owner")
    old = with_key().token(past, session="*", may=("subscribe",), seconds=60)
    with pytest.raises(Unauthorized, match="expired"):
        with_key().grants(headers(authorization=f"Bearer {old.token}"))


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

    assert "ask" in grants(whole, "HS256").may
    claims = {name: value for name, value in (whole | change).items() if value is not None}
    with pytest.raises(Unauthorized):
        grants(claims, "HS256")
    with pytest.raises(Unauthorized):
        grants(whole, "none")


@pytest.mark.parametrize(("may", "seconds"), [(("fly",), 60.0), (("ask",), 0.0), (("ask",), 1e9)])
def test_a_token_with_an_unknown_permission_or_a_bad_lifetime_is_refused(
    may: tuple[str, ...], seconds: float
) -> None:
    owner = Grants("owner", "*", frozenset(PERMISSIONS), None, "owner")
    with pytest.raises(InvalidRequest):
        with_key().token(owner, session="*", may=may, seconds=seconds)


PATH = "/v1/sessions/0.a/frames/1.000.jpg"


def asking(address: str, method: str = "GET", kind: str = "http") -> dict[str, Any]:
    """The ASGI scope of a request without a token."""
    path, _, query = address.partition("?")
    return {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": []}


def test_a_signed_url_is_valid_for_one_path_until_it_expires() -> None:
    auth = with_key()
    address = auth.sign(PATH, 60)
    assert auth.of(asking(address)).may == {"subscribe"}
    later = re.sub(r"exp=(\d+)", lambda found: f"exp={int(found[1]) + 1}", address)
    for wrong in (
        asking(address.replace("1.000", "2.000")),
        asking(later),
        asking(PATH),
        asking(auth.sign(PATH, -60)),
        asking(address, "POST"),
        asking(address, "GET", "websocket"),
        asking(address.replace("&sig", "&by=aaaaaaaaaaaa&sig")),
    ):
        with pytest.raises(Unauthorized):
            auth.of(wrong)
    assert Auth(Server()).sign(PATH, 60) == PATH, "an open server needs no signatures"


def test_the_signature_of_a_player_is_for_all_captions_of_a_session_and_for_one_video() -> None:
    auth = with_key()
    folder = "/v1/sessions/0.a/hls"
    query = auth.sign(f"{folder}/captions.m3u8?lang=en", 60).partition("?")[2]
    for file in ("captions.m3u8", "abc/live/7.vtt"):
        assert auth.of(asking(f"{folder}/{file}?{query}")).may == {"subscribe"}
    master = auth.sign(f"{folder}/master.m3u8?video=a&offset=1", 60)
    assert auth.of(asking(master)).may == {"subscribe"}
    for wrong in (
        f"{folder}/master.m3u8?{query}",
        f"/v1/sessions/0.b/hls/captions.m3u8?{query}",
        f"/v1/sessions/0.a/captions.vtt?{query}",
        f"{folder}?{query}".replace("/hls?", "?"),
        master.replace("video=a", "video=b"),
        f"{master}&video=b",
        master.replace("?", "?video=b&"),
        master.replace("&exp=", "&video=b&exp="),
        master.replace("&offset=1", ""),
        master.replace("master.m3u8", "captions.m3u8"),
    ):
        with pytest.raises(Unauthorized):
            auth.of(asking(wrong))
    grants = Grants("owner", "*", frozenset({"subscribe"}), 99.0, "a" * 12)
    with pytest.raises(Unauthorized):
        auth.of(asking(auth.sign(f"{folder}/captions.m3u8", 60, grants)))  # it ends with its token


@pytest.mark.parametrize("form", ["{:020}0", "{:011}"])
def test_an_expiry_is_written_in_one_way_alone(form: str) -> None:
    auth = with_key()
    address = auth.sign(PATH, 60)
    again = re.sub(r"exp=(\d+)", lambda found: f"exp={form.format(int(found[1]))}", address)
    with pytest.raises(Unauthorized):
        auth.of(asking(again))


def test_a_request_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = with_key()
    owner = auth.grants(headers(authorization=f"Bearer {KEY}"))
    decoded: list[str] = []

    def decode(token: str) -> Grants:
        decoded.append(token)
        return owner

    monkeypatch.setattr(auth, "_decode", decode)
    scope = asking("/") | {"headers": [(b"authorization", b"Bearer some.token")]}
    assert auth.of(scope) is auth.of({**scope})
    assert decoded == ["some.token"]
    refused = asking("/")
    for _ in range(2):
        with pytest.raises(Unauthorized):
            auth.of(refused)


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
        ("9" * 11, "a"),
        ("99999999999", "ä"),
        ("99999999999", "\ud800"),
    ],
)
def test_a_signature_of_odd_characters_is_no_signature(expires: str, signature: str) -> None:
    address = f"{PATH}?{urlencode({'exp': expires, 'sig': signature}, errors='surrogatepass')}"
    with pytest.raises(Unauthorized):
        with_key().of(asking(address))


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
    address = Auth(server).sign("/v1/sessions/0.a/events", 60)
    assert address.startswith("https://example.org/live/v1/sessions/0.a/events?")
    moved = Auth(Server(api_key=KEY))
    assert moved.of(asking(address.removeprefix("https://example.org/live"))).holder == "owner"


def test_a_signature_is_of_one_holder_whose_id_has_no_space() -> None:
    """What is signed is a text of three words: two of them must not read as another holder's."""
    auth = with_key()
    assert auth.of(asking(f"{PATH}?{auth._query(PATH, 4_000_000_000, 'a' * 12)}")).holder == "a" * 12
    with pytest.raises(Unauthorized):
        auth.of(asking(f"{PATH}?{auth._query(PATH, 4_000_000_000, f'owner {PATH}')}"))


def test_each_kind_of_signature_has_a_key_of_its_own() -> None:
    auth = Auth(Server(api_key=KEY))
    assert len({auth._token_key, auth._short_key, auth._url_key, KEY.encode()}) == 4


def test_a_signature_that_is_not_ascii_is_wrong_and_no_fault() -> None:
    query = "exp=4000000000&sig=é".encode("latin-1")
    scope = {"type": "http", "method": "GET", "path": "/v1/x", "query_string": query, "headers": []}
    with pytest.raises(Unauthorized):
        with_key().of(scope)


def test_a_token_for_a_name_covers_each_broadcast_under_it_and_no_other_name() -> None:
    assert covers("studio", "studio.20261201-133111-de1c")
    assert not covers("studio", "studio2")
    assert not covers("studio.20261201-133111-de1c", "studio.20261201-133112-1ce8")
