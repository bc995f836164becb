"""Where the parts of a session are found."""

from __future__ import annotations

from urllib.parse import parse_qsl

from streamsvc.core.config import Server
from streamsvc.core.types import Grants
from streamsvc.service.auth import OWNER, PERMISSIONS, Auth
from streamsvc.service.broadcast_ids import new_id
from streamsvc.service.session_addresses import addresses, frame_path, signed_addresses

SERVER = Server(api_key="a-key-of-sixteen-or-more")
OWNED = Grants("owner", "*", frozenset(PERMISSIONS), None, OWNER)


def test_a_broadcast_is_published_to_and_overlaid_under_its_name_and_read_under_its_id() -> None:
    session = new_id("studio")
    found = addresses(session, Server(public_url="https://example.org/live"))
    base = "https://example.org/live"
    assert found["whip_url"] == f"{base}/whip/studio"
    assert found["overlay_url"] == f"{base}/overlay/studio"
    assert found["events_url"] == f"{base}/v1/sessions/{session}/events"


def test_a_keyframe_is_found_by_its_millisecond() -> None:
    assert frame_path("s", 1.23456) == "/v1/sessions/s/frames/1.235.jpg"


def test_what_is_read_is_signed_for_whoever_may_read_it_and_for_nobody_else() -> None:
    session, auth = new_id("studio"), Auth(SERVER)

    def told(name: str, *may: str, server: Server = SERVER) -> dict[str, str]:
        issued = auth.token(OWNED, session=name, may=may, seconds=60)
        grants = auth.grants({"authorization": f"Bearer {issued.token}"})
        found = signed_addresses(session, server, auth, grants, 600)
        assert all(issued.id in url for url in found.values() if "&by=" in url)
        return found

    assert set(told("studio", "subscribe")) == {"events_url", "captions_url", "overlay_url"}
    assert set(told(session, "subscribe")) == {"events_url", "captions_url"}, "the overlay shows others too"
    assert told("studio", "publish", "ask") == {}
    signed = Grants("signed", "*", frozenset({"subscribe"}), None, OWNER)
    assert signed_addresses(session, SERVER, auth, signed, 600) == {}
    assert signed_addresses(session, Server(), Auth(Server()), OWNED, 600) == {}


def test_the_token_of_an_overlay_may_subscribe_to_this_name_alone_and_ends_with_the_one_that_asked() -> None:
    auth = Auth(SERVER)
    issued = auth.token(OWNED, session="*", may=PERMISSIONS, seconds=60)
    grants = auth.grants({"authorization": f"Bearer {issued.token}"})
    overlay = signed_addresses(new_id("studio"), SERVER, auth, grants, 600)["overlay_url"]
    made = auth.grants({}, (f"streamsvc.token.{overlay.partition('#token=')[2]}",))
    assert (made.session, made.may, made.expires) == ("studio", frozenset({"subscribe"}), grants.expires)
    assert made.holder.startswith(f"{grants.holder}.")


def test_what_is_signed_for_a_token_ends_with_it() -> None:
    auth = Auth(SERVER)
    issued = auth.token(OWNED, session="studio", may=("subscribe",), seconds=60)
    grants = auth.grants({"authorization": f"Bearer {issued.token}"})
    found = signed_addresses(new_id("studio"), SERVER, auth, grants, 600)
    for url in (found["events_url"], found["captions_url"]):
        asked = dict(parse_qsl(url.partition("?")[2]))
        assert (int(asked["exp"]), asked["by"]) == (grants.expires, grants.holder)
