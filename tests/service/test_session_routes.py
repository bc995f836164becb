"""Sessions by HTTP: sources and options that are refused, the list, changes, records, search, statistics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Scope

from streamsvc.core.types import Answer
from streamsvc.core.units import Reply
from streamsvc.service import app
from streamsvc.service.audience import audience_of
from streamsvc.service.auth import SIGNED
from streamsvc.service.service import Service
from tests.builders import fake_service
from tests.builders.clips import clip
from tests.builders.internet import INSIDE, PUBLIC, internet, two_sites
from tests.builders.internet import Answer as Answered
from tests.builders.service import error_of, open_session, serving
from tests.builders.session import Sender
from tests.builders.units import cue, screen, sight

KEY = "k" * 40


async def test_a_redirect_that_is_refused_is_told_by_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field kind K: it was told as a fault of the network."""
    internet(monkeypatch, open_example=[PUBLIC], inside_example=[INSIDE])
    with two_sites() as (public, inside):
        home = f"http://open.example:{public.port}"
        public.pages = {
            "/a": Answered(location=f"http://inside.example:{public.port}/b"),
            "/circle": Answered(location="/circle"),
        }
        async with answering(tmp_path) as (_, client):
            refused = await client.post("/v1/sessions", json={"source": f"{home}/a"})
            assert error_of(refused) == (403, "private_url")
            assert "it leads to inside.example, which lies in a private network" in refused.text
            circle = await client.post("/v1/sessions", json={"source": f"{home}/circle"})
            assert error_of(circle) == (422, "refused")
            assert (await client.get("/v1/sessions")).json()["sessions"] == []
    assert inside.asked == []


@contextlib.asynccontextmanager
async def answering(folder: Path, **groups: Any) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """A service without workers, and a client of its application."""
    async with (
        fake_service.serving(folder, **groups) as service,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app.build(service)), base_url="http://127.0.0.1"
        ) as client,
    ):
        yield service, client


def bearer(service: Service, session: str, *may: str) -> dict[str, str]:
    """The header of a token for one session; "*" for all."""
    owner = service.auth.grants({"authorization": f"Bearer {KEY}"})
    token = service.auth.token(owner, session=session, may=may, seconds=60)
    return {"Authorization": f"Bearer {token.token}"}


async def test_a_bad_source_is_refused_and_leaves_no_session(tmp_path: Path) -> None:
    roots = tmp_path / "media"
    roots.mkdir()
    (roots / "empty.mp4").touch()
    (roots / "corrupt.mp4").write_bytes(b"no media at all" * 100)
    clip(tmp_path / "outside.mp4")
    async with serving(tmp_path, server={"sources": (roots,)}) as (service, _, client):
        for source, expected in {
            f"file:{roots}/absent.mp4": (422, "not_found"),
            f"file:{roots}/empty.mp4": (422, "empty"),
            f"file:{roots}/corrupt.mp4": (422, "corrupt"),
            f"file:{tmp_path}/outside.mp4": (403, "outside_sources"),
            "gopher://x/y": (422, "bad_scheme"),
        }.items():
            assert error_of(await client.post("/v1/sessions", json={"source": source})) == expected
        assert error_of(await client.post("/v1/sessions", json={"source": 7})) == (400, "bad_request")
        assert error_of(await client.post("/v1/sessions", json={"speed": 0})) == (400, "bad_speed")
        assert error_of(await client.get("/v1/sessions/0.none")) == (404, "no_session")
        assert (await client.get("/v1/capacity")).json() == {
            "sessions": 0,
            "limit": 4,
            "free": {"audio": 4, "audio_video": 4},
            "bound_by": "limit",
            "draining": False,
            "level": 0,
            "reason": "",
            "message": "Nothing is reduced: this machine keeps up.",
            "reduced": [],
        }
        assert service.sessions.by_id == {}


async def test_options_that_the_models_do_not_support_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, client):
        for body, code in (
            ({"translate": True}, "cannot_translate"),
            ({"language": "de"}, "unknown_language"),
            ({"language": "tlh"}, "unknown_language"),
            ({"adapter": "medical"}, "no_adapter"),
            ({"adapter": "a" * 65}, "bad_request"),
            ({"replace": {"a": ""}}, "bad_request"),
            ({"replace": {"a" * 101: "b"}}, "bad_request"),
            ({"replace": {str(number): "b" for number in range(201)}}, "bad_request"),
        ):
            assert error_of(await client.post("/v1/sessions", json=body))[0] in (400, 422), body
            assert error_of(await client.post("/v1/sessions", json=body))[1] == code, body
        assert service.sessions.by_id == {}
        assert (
            await client.post(
                "/v1/sessions", json={"language": "en", "translate": False, "replace": {"a b": "c"}}
            )
        ).status_code == 201


async def test_a_full_server_sends_retry_after(tmp_path: Path) -> None:
    source = {"source": "rtsp://127.0.0.1:9/a"}
    async with serving(tmp_path, limits={"sessions": 1, "unpublished": 1}) as (service, _, client):
        session = service.sessions.find(await open_session(client))
        waiting = await client.post("/v1/sessions", json={})
        assert error_of(waiting) == (503, "too_many_unpublished")
        places = [(await client.get("/v1/capacity")).json()["sessions"]]
        session.media.attach(Sender())
        places += [(await client.get("/v1/capacity")).json()["sessions"]]
        assert places == [0, 1], "one without a publisher holds none"
        full = await client.post("/v1/sessions", json=source)
        assert error_of(full) == (503, "capacity")
        assert min(int(answer.headers["Retry-After"]) for answer in (waiting, full)) >= 1
        await client.delete(f"/v1/sessions/{session.id}")
        await session.over.wait()
        assert error_of(await client.post("/v1/sessions", json=source))[1] != "capacity"
        assert (await client.post("/v1/sessions", json={})).status_code == 201


async def test_a_search_result_has_the_url_of_its_keyframe_while_that_is_stored(tmp_path: Path) -> None:
    async with serving(tmp_path, store={"frames": 1}) as (service, _, client):
        session = service.sessions.by_id[await open_session(client)]
        for at in (1.0, 9.0):
            await session.log.put_frame(at, f"keyframe at {at}".encode())
            session.timeline.add(sight(at, f"cat {at:.0f}"))
            session.timeline.add(cue("A stone-cutter lived there.", at + 0.5))
        new, old = (await client.get(f"/v1/sessions/{session.id}/search", params={"q": "stonecutter"})).json()
        assert (new["start"], new["kind"], new["text"]) == (9.5, "speech", "A stone-cutter lived there.")
        assert (await client.get(new["frame_url"])).content == b"keyframe at 9.0"
        assert old["start"] == 1.5
        assert "frame_url" not in old
        assert error_of(await client.get("/v1/sessions/none/search", params={"q": "stone"})) == (
            404,
            "no_session",
        )


# --- the list


async def test_the_list_has_what_the_token_may_see_in_pages(tmp_path: Path) -> None:
    async with answering(tmp_path, server={"api_key": KEY, "data_dir": tmp_path}) as (service, client):
        mine, other = [await service.sessions.create() for _ in range(2)]
        assert error_of(await client.get("/v1/sessions")) == (401, "unauthorized")
        mute = bearer(service, mine.id, "publish")
        assert error_of(await client.get("/v1/sessions", headers=mute)) == (403, "forbidden")
        one = (await client.get("/v1/sessions", headers=bearer(service, mine.id, "subscribe"))).json()
        assert [entry["id"] for entry in one["sessions"]] == [mine.id]
        everything = bearer(service, "*", "subscribe")
        first = (await client.get("/v1/sessions?limit=1", headers=everything)).json()
        assert [entry["id"] for entry in first["sessions"]] == [other.id]
        rest = await client.get("/v1/sessions", params={"after": first["next"]}, headers=everything)
        assert [entry["id"] for entry in rest.json()["sessions"]] == [mine.id]
        assert rest.json()["next"] is None
        ended = (await client.get("/v1/sessions?state=ended", headers=everything)).json()
        assert ended == {"sessions": [], "next": None}
        for query, code in (
            ("limit=0", "bad_request"),
            ("limit=101", "bad_request"),
            ("state=asleep", "bad_request"),
            ("after=x", "bad_cursor"),
        ):
            assert error_of(await client.get(f"/v1/sessions?{query}", headers=everything)) == (400, code)


async def test_signed_addresses_of_a_session_open_without_a_header_and_end_with_the_token_that_asked(
    tmp_path: Path,
) -> None:
    async with answering(tmp_path, server={"api_key": KEY}) as (service, client):
        mine, sends = bearer(service, "talk", "publish", "subscribe"), bearer(service, "talk", "publish")
        made = (await client.post("/v1/sessions", json={"name": "talk"}, headers=mine)).json()
        shown = (await client.get("/v1/sessions/talk", headers=mine)).json()
        [listed] = (await client.get("/v1/sessions", headers=mine)).json()["sessions"]
        changed = (await client.patch("/v1/sessions/talk", json={"language": "en"}, headers=mine)).json()
        unread = (await client.patch("/v1/sessions/talk", json={"language": "en"}, headers=sends)).json()
        assert unread["captions_url"] == f"/v1/sessions/{made['id']}/captions.vtt"
        assert "#" not in unread["overlay_url"]
        captions = [body["captions_url"] for body in (made, shown, listed, changed)]
        for url in captions:
            assert (await client.get(url)).status_code == 200
        assert error_of(await client.get(captions[0].partition("?")[0]))[0] == 401
        assert service.auth.of(asked(f"{shown['events_url']}&types=caption.*")).tenant == SIGNED
        token = mine["Authorization"].partition(" ")[2]
        holder = service.auth.grants({"authorization": f"Bearer {token}"}).holder
        await client.delete(f"/v1/tokens/{holder}", headers={"Authorization": f"Bearer {KEY}"})
        for url in (*captions, shown["events_url"]):
            assert error_of(await client.get(url))[0] == 401


def asked(url: str) -> Scope:
    """A request for an address without any header."""
    path, _, query = url.partition("?")
    return {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}


# --- names and changes


async def test_a_name_can_be_chosen_with_options_and_belongs_to_its_live_session(tmp_path: Path) -> None:
    async with answering(tmp_path, server={"api_key": KEY, "data_dir": tmp_path}) as (service, client):
        body = {"name": "lecture", "vocabulary": ["Ada"]}
        mine = bearer(service, "lecture", "publish", "subscribe")
        assert error_of(await client.post("/v1/sessions", json={"name": "x"}, headers=mine))[0] == 403
        made = await client.post("/v1/sessions", json=body, headers=mine)
        assert (made.status_code, made.json()["name"]) == (201, "lecture")
        first = made.json()["id"]
        assert made.headers["Location"] == f"/v1/sessions/{first}"
        assert made.json()["whip_url"] == "/whip/lecture"
        assert made.json()["overlay_url"].startswith("/overlay/lecture#token=")
        assert made.json()["captions_url"].startswith(f"/v1/sessions/{first}/captions.vtt?"), (
            "of this broadcast alone"
        )
        session = service.sessions.find("lecture")
        assert session.speech.options.vocabulary == ("Ada",)
        assert error_of(await client.post("/v1/sessions", json=body, headers=mine)) == (409, "name_taken")
        session.media.attach(Sender())
        session.dispatch(cue("The first words.", 1.0))
        session.end("ended")
        await session.over.wait()
        again = await client.post("/v1/sessions", json={"name": "lecture"}, headers=mine)
        assert (again.status_code, again.json()["state"]) == (201, "created")
        second = again.json()["id"]
        assert service.sessions.find("lecture").id == second != first
        listed = (await client.get("/v1/sessions", headers=mine)).json()["sessions"]
        assert [(one["id"], one["name"]) for one in listed] == [(second, "lecture"), (first, "lecture")]
        for address, text in ((first, True), (second, False), ("lecture", False)):
            told = await client.get(f"/v1/sessions/{address}/captions.vtt", headers=mine)
            assert ("The first words." in told.text) is text, address
        other = bearer(service, "lectur", "publish", "subscribe")
        for address in (first, second, "lecture"):
            assert error_of(await client.get(f"/v1/sessions/{address}", headers=other))[0] == 403
        only = bearer(service, first, "subscribe")
        statuses = [
            (await client.get(f"/v1/sessions/{address}", headers=only)).status_code
            for address in (first, second, "lecture")
        ]
        assert statuses == [200, 403, 403], "a token for one broadcast is for that one alone"
        gone = await client.delete("/v1/sessions/lecture?purge=1", headers=mine)
        assert gone.json() == {"id": second, "purged": True}
        left = (await client.get("/v1/sessions/lecture", headers=mine)).json()
        assert (left["id"], left["state"]) == (first, "ended"), "the name leads to the newest that is left"
        for name in ("", "..", "a/b", "a" * 41, "é", second):
            assert error_of(await client.post("/v1/sessions", json={"name": name}, headers=mine))[0] == 400


async def test_a_live_session_is_changed_and_an_ended_one_is_not(tmp_path: Path) -> None:
    groups: dict[str, Any] = {
        "server": {"api_key": KEY, "data_dir": tmp_path},
        "hear": {"model": "whisper-base", "replace": {"stream service": "streamsvc"}},
    }
    async with answering(tmp_path, **groups) as (service, client):
        session = await service.sessions.create()
        url, mine = f"/v1/sessions/{session.id}", bearer(service, session.id, "publish")
        body = {"language": "de", "vocabulary": ["Ada"], "replace": {"a b": "c"}, "translate": True}
        changed = await client.patch(url, json=body, headers=mine)
        assert changed.status_code == 200, changed.text
        assert {name: changed.json()[name] for name in ("id", *body)} == {
            "id": session.id,
            **body,
            "replace": {"stream service": "streamsvc", "a b": "c"},
        }
        (vocabulary_kept,) = [(await client.patch(url, json={"language": None}, headers=mine)).json()]
        assert (vocabulary_kept["language"], vocabulary_kept["vocabulary"]) == (None, ["Ada"])
        watcher = bearer(service, session.id, "subscribe")
        assert error_of(await client.patch(url, json=body, headers=watcher)) == (403, "forbidden")
        for wrong, code in (
            ({}, "bad_update"),
            ({"language": "tlh"}, "unknown_language"),
            ({"speed": 2}, "bad_request"),
            ({"vocabulary": "Ada"}, "bad_request"),
            ({"vocabulary": ["a" * 101]}, "bad_request"),
            ({"replace": {"": "b"}}, "bad_request"),
        ):
            assert error_of(await client.patch(url, json=wrong, headers=mine)) == (400, code), wrong
        assert session.speech.options.vocabulary == ("Ada",)
        session.end("ended")
        await session.over.wait()
        assert error_of(await client.patch(url, json=body, headers=mine)) == (409, "session_ended")
        gone = bearer(service, "*", "publish")
        assert error_of(await client.patch("/v1/sessions/none", json=body, headers=gone)) == (
            404,
            "no_session",
        )


# --- the record


async def test_the_record_has_the_questions_that_its_reader_may_see(tmp_path: Path) -> None:
    async with answering(tmp_path, server={"api_key": KEY, "data_dir": tmp_path}) as (service, client):
        session = await service.sessions.create()
        session.dispatch(cue("Once more.", 1.0))
        session.dispatch(screen(2.0, "Budget"))
        url = f"/v1/sessions/{session.id}/export.md"
        reader, stranger = (bearer(service, session.id, *may) for may in (["subscribe"], ["publish"]))
        grants = service.auth.grants(httpx.Headers(reader))
        for audience, who, text in (
            (None, "a", "For all?"),
            ("x", grants.holder, "Mine?"),
            (audience_of(grants, "page"), "page", "The page's?"),
        ):
            answer = Answer("q", "Yes.", True)
            session.dispatch(Reply("q", 3.0, 0.0, answer, audience, question=text, asker=who))
        record = await client.get(url, headers=reader)
        assert record.headers["content-type"] == "text/markdown; charset=utf-8"
        assert f'filename="{session.id}.md"' in record.headers["content-disposition"]
        assert "# Budget" in record.text
        assert "**0:01** Once more." in record.text
        assert [name for name in ("For all?", "Mine?", "The page's?") if name in record.text] == [
            "For all?",
            "Mine?",
        ]
        page = await client.get(f"{url}?client=page", headers=reader)
        assert "The page's?" in page.text
        another = bearer(service, session.id, "subscribe")
        for headers in (another, {"Authorization": f"Bearer {KEY}"}):
            page = await client.get(f"{url}?client=page", headers=headers)
            assert "For all?" in page.text
            assert not any(name in page.text for name in ("Mine?", "The page's?"))
        assert error_of(await client.get(url, headers=stranger)) == (403, "forbidden")
        assert error_of(await client.get(url)) == (401, "unauthorized")
        everything = bearer(service, "*", "subscribe")
        assert error_of(await client.get("/v1/sessions/none/export.md", headers=everything)) == (
            404,
            "no_session",
        )


# --- rates


async def test_new_sessions_and_tokens_are_counted_by_token_and_with_the_key_by_address(
    tmp_path: Path,
) -> None:
    limits = {"requests_per_minute": 2}
    async with answering(tmp_path, server={"api_key": KEY, "data_dir": tmp_path}, limits=limits) as (
        service,
        client,
    ):
        one, other = bearer(service, "*", "publish"), bearer(service, "*", "publish")
        owner = {"Authorization": f"Bearer {KEY}"}
        for path, body, status in (
            ("/v1/sessions", {"speed": 1000}, 400),
            ("/v1/tokens", {"may": ["fly"]}, 400),
        ):
            answers = [
                (await client.post(path, json=body, headers=who)).status_code
                for who in (one, one, one, other, owner, owner, owner)
            ]
            assert answers == [status, status, 429, status, status, status, 429]
