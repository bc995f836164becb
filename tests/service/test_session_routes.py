"""Sessions by HTTP: sources and options that are refused, the list, changes, records, search, statistics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamsvc.core.types import Answer, EncodedFrame
from streamsvc.core.units import Reply
from streamsvc.service import app
from streamsvc.service.service import Service
from streamsvc.speech.pipeline import SpeechPipeline
from tests.builders import fake_service
from tests.builders.clips import clip
from tests.builders.internet import INSIDE, PUBLIC, internet, two_sites
from tests.builders.internet import Answer as Answered
from tests.builders.service import error_of, open_session, serving
from tests.builders.session import OPUS, Sender
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
    return {"Authorization": f"Bearer {token}"}


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
    async with serving(tmp_path, limits={"sessions": 1}) as (_, _, client):
        session = await open_session(client)
        answer = await client.post("/v1/sessions", json={})
        assert error_of(answer) == (503, "capacity")
        assert int(answer.headers["Retry-After"]) >= 1
        await client.delete(f"/v1/sessions/{session}")
        async with asyncio.timeout(5):
            while (await client.post("/v1/sessions", json={})).status_code != 201:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


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


# --- names and changes


async def test_a_name_can_be_chosen_with_options_and_belongs_to_its_live_session(tmp_path: Path) -> None:
    async with answering(tmp_path, server={"api_key": KEY, "data_dir": tmp_path}) as (service, client):
        body = {"name": "lecture", "vocabulary": ["Ada"]}
        mine = bearer(service, "lecture", "publish", "subscribe")
        assert error_of(await client.post("/v1/sessions", json={"name": "x"}, headers=mine))[0] == 403
        made = await client.post("/v1/sessions", json=body, headers=mine)
        assert (made.status_code, made.json()["id"]) == (201, "lecture")
        assert made.json()["whip_url"] == "/whip/lecture"
        session = service.sessions.find("lecture")
        assert session.speech.options.vocabulary == ("Ada",)
        assert error_of(await client.post("/v1/sessions", json=body, headers=mine)) == (409, "name_taken")
        session.end("ended")
        await session.over.wait()
        again = await client.post("/v1/sessions", json={"name": "lecture"}, headers=mine)
        assert (again.status_code, again.json()["state"]) == (201, "created")
        assert service.sessions.find("lecture") is not session
        for name in ("", "..", "a/b", "a" * 65, "é"):
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
        asker = service.auth.asker(httpx_request(reader))
        for audience, who, text in (
            (None, "a", "For all?"),
            ("x", asker, "Mine?"),
            ("page", "page", "Theirs?"),
        ):
            answer = Answer("q", "Yes.", True)
            session.dispatch(Reply("q", 3.0, 0.0, answer, audience, question=text, asker=who))
        record = await client.get(url, headers=reader)
        assert record.headers["content-type"] == "text/markdown; charset=utf-8"
        assert f'filename="{session.id}.md"' in record.headers["content-disposition"]
        assert "# Budget" in record.text
        assert "**0:01** Once more." in record.text
        assert [name for name in ("For all?", "Mine?", "Theirs?") if name in record.text] == [
            "For all?",
            "Mine?",
        ]
        page = await client.get(f"{url}?client=page", headers=reader)
        assert "Theirs?" in page.text
        assert error_of(await client.get(url, headers=stranger)) == (403, "forbidden")
        assert error_of(await client.get(url)) == (401, "unauthorized")
        everything = bearer(service, "*", "subscribe")
        assert error_of(await client.get("/v1/sessions/none/export.md", headers=everything)) == (
            404,
            "no_session",
        )


def httpx_request(headers: dict[str, str]) -> Any:
    """A request as `Auth.asker` sees it."""
    return httpx.Request("GET", "http://127.0.0.1/", headers=headers)


# --- statistics


async def test_statistics_tell_what_comes_in_and_what_the_level_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpeechPipeline, "backlog", 1.25)
    async with answering(tmp_path) as (service, client):
        session = await service.sessions.create()
        url = f"/v1/sessions/{session.id}/stats"
        empty = (await client.get(url)).json()
        assert (empty["ingest"], empty["coverage"], empty["state"]) == ({}, None, "created")
        session.media.attach(Sender(OPUS))
        frame = EncodedFrame("s", "main", 0.0, 0.0, "audio", bytes(80), "opus", True)
        session.media.tap(frame)
        session.apply_level(6, "sound waits to be processed")
        body = (await client.get(url)).json()
        assert (body["ingest"]["audio"]["frames"], body["ingest"]["audio"]["bytes"]) == (1, 80)
        assert body["ingest"]["audio_lost"] == 0
        assert body["backlog"] == 1.25, "seconds of audio"
        assert body["message"].startswith("Captions are late: this machine is busy. For now, ")
        assert "questions are refused" in body["reduced"]


async def test_the_answers_are_in_the_openapi_document(tmp_path: Path) -> None:
    async with answering(tmp_path) as (_, client):
        document = (await client.get("/openapi.json")).json()
        paths = document["paths"]
        assert {"get", "post"} <= set(paths["/v1/sessions"])
        assert {"get", "patch", "delete"} <= set(paths["/v1/sessions/{session_id}"])
        assert (
            "text/markdown"
            in paths["/v1/sessions/{session_id}/export.md"]["get"]["responses"]["200"]["content"]
        )
        for path, method, model in (
            ("/v1/sessions", "get", "SessionPage"),
            ("/v1/sessions/{session_id}", "patch", "UpdatedSession"),
            ("/v1/sessions/{session_id}/stats", "get", "Stats"),
        ):
            schema = paths[path][method]["responses"]["200"]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith(f"/{model}")
