"""Sessions of earlier runs read as they did before, by whoever could read them, until they are erased."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamsvc.core import clock
from streamsvc.core.errors import ConfigError, NotFound, StreamsvcError
from streamsvc.core.options import SessionOptions
from streamsvc.core.types import Answer, Gap, Keyframe, Speech, Translation, VideoFrame
from streamsvc.core.units import Reply
from streamsvc.events.store import Store
from streamsvc.service import app, broadcast_ids, retention, stored_sessions
from streamsvc.service.audience import audience_of
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.fake_service import kept, serving
from tests.builders.session import Sender
from tests.builders.units import cue, screen, sight

KEY = "the key of this service"
CLIENT = "a-name-that-nobody-guesses"
ROOT = {"authorization": f"Bearer {KEY}"}
READS = ("captions.vtt", "captions.srt", "captions.json", "captions.vtt?lang=de", "export.md", "frames/9.jpg")


@contextlib.asynccontextmanager
async def doors(folder: Path, **groups: Any) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """A service with a key, and a client that has it."""
    settings = {"server": {"data_dir": folder, "api_key": KEY}, **groups}
    async with serving(folder, **settings) as running:
        transport = httpx.ASGITransport(app=app.build(running))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=ROOT
        ) as client:
            yield running, client


async def talk(running: Service, name: str) -> Session:
    """A live session in which something was said, shown, translated, lost, and told to one alone."""
    session = await running.sessions.create(name=name)
    session.media.attach(Sender())
    said = cue("The budget is nine million.", 1.0)
    picture = VideoFrame("s", "main", 2.0, 0.0, None, 0, 0)
    original = session.dispatch(said)
    assert original is not None
    for unit in (
        Speech("s", "main", 1.0, 0.0, True),
        Translation("s", "main", 1.0, 0.0, original.id, "Das Budget.", "de", said.start, said.end),
        Keyframe("s", "main", 2.0, 0.0, picture, "scene"),
        sight(2.0, "boat"),
        screen(2.5, "Budget", "Nine million"),
        Gap("s", "main", 5.0, 0.0, 5.0, 6.0, "overload"),
        cue("Thank you all.", 7.0),
    ):
        session.dispatch(unit)
    await session.store_frame(2.0, b"a jpeg")
    body = {"question_id": "q", "text": "a secret", "supported": False, "evidence": [], "outcome": "closest"}
    owner = running.auth.grants(ROOT)
    session.log.emit("answer.done", body, audience=audience_of(owner, CLIENT))
    session.clock.advance(8.0)
    return session


async def read(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """What the doors tell of a session: bodies by path."""
    found = {}
    for path in READS:
        answer = await client.get(f"/v1/sessions/{name}/{path}")
        assert answer.status_code == 200, (path, answer.text)
        found[path] = answer.content
    return found


async def events(client: httpx.AsyncClient, name: str, query: str = "after=0", **headers: str) -> list[Any]:
    """The events of an ended session, as Server-Sent Events bring them: (id, event)."""
    answer = await client.get(f"/v1/sessions/{name}/events?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if "data: " in block]
    return [(block[0].removeprefix("id: "), json.loads(block[-1].removeprefix("data: "))) for block in blocks]


async def entry(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    listed = (await client.get("/v1/sessions?state=ended")).json()["sessions"]
    (found,) = [one for one in listed if one["name"] == name]
    assert isinstance(found, dict)
    return without_tokens({key: value for key, value in found.items() if key != "thumbnail_url"})


def without_tokens(shown: dict[str, Any]) -> dict[str, Any]:
    """A description of a session without the signatures of its addresses, which are of their moment."""
    return {
        key: re.sub(r"[?#].*", "", str(value)) if key.endswith("_url") else value
        for key, value in shown.items()
    }


async def test_an_ended_session_reads_after_a_restart_as_before(tmp_path: Path) -> None:
    async with doors(tmp_path) as (running, client):
        session = await talk(running, "talk")
        asked = {"session": "talk", "may": ["subscribe"]}
        token = (await client.post("/v1/tokens", json=asked)).json()["token"]
        await running.sessions.create(name="other")
        session.end("source_failed", StreamsvcError("it broke off", code="gone"))
        await session.over.wait()
        before, told, shown = (
            await read(client, "talk"),
            await events(client, "talk"),
            await entry(client, "talk"),
        )
        about = without_tokens((await client.get("/v1/sessions/talk")).json())
    async with doors(tmp_path) as (running, client):
        assert running.sessions.by_id == {}, "nothing is read before somebody asks"
        assert await entry(client, "talk") == shown
        assert running.sessions.by_id == {}
        assert without_tokens((await client.get("/v1/sessions/talk")).json()) == about
        assert await read(client, "talk") == before
        assert await events(client, "talk") == told
        assert told[-1][1]["type"] == "session.closed"
        assert "a secret" not in str(told)
        assert "a secret" in str(await events(client, "talk", f"after=0&client={CLIENT}"))
        resumed = await events(client, "talk", "", **{"last-event-id": told[4][0]})
        assert resumed[0][1]["seq"] == told[5][1]["seq"]
        assert [event for _, event in resumed][1:] == [event for _, event in told[6:]]
        after = await entry(client, "talk")
        assert {**after, "ended_utc": ""} == {**shown, "ended_utc": ""}
        assert after["ended_utc"][:18] == shown["ended_utc"][:18]
        found = (await client.get("/v1/sessions/talk/search?q=million")).json()
        assert {hit["kind"] for hit in found} >= {"speech"}
        assert (await client.get("/v1/sessions/talk/stats")).json()["coverage"] is not None
        theirs = {"authorization": f"Bearer {token}"}
        for path, status in (("talk", 200), ("other", 403)):
            assert (await client.get(f"/v1/sessions/{path}", headers=theirs)).status_code == status
        listed = (await client.get("/v1/sessions", headers=theirs)).json()["sessions"]
        assert [one["name"] for one in listed] == ["talk"]
        assert (await client.delete("/v1/sessions/talk?purge=1", headers=theirs)).status_code == 403
        assert (await client.get("/v1/sessions/talk", headers={"authorization": ""})).status_code == 401
        changed = await client.patch("/v1/sessions/talk", json={"vocabulary": []})
        assert (changed.status_code, changed.json()["error"]["code"]) == (409, "session_ended")


@pytest.mark.parametrize("unloaded", [False, True])
async def test_questions_and_their_answers_are_read_after_a_restart_by_whoever_could_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unloaded: bool
) -> None:
    texts = {"What was said about the budget?": "asker", "Who was thanked?": "session"}
    async with doors(tmp_path) as (running, client):
        session = await talk(running, "talk")
        made = await client.post("/v1/tokens", json={"session": "talk", "may": ["subscribe", "ask"]})
        mine = {"authorization": f"Bearer {made.json()['token']}"}
        asked = {}
        for text, audience in texts.items():
            body = {"text": text, "audience": audience}
            answer = await client.post(
                "/v1/sessions/talk/questions", json=body, headers={**mine, "accept": "text/event-stream"}
            )
            done = json.loads(answer.text.strip().rpartition("data: ")[2])
            assert done["type"] == "answer.done"
            asked[text] = f"/v1/sessions/talk/questions/{done['question_id']}"

        async def told(who: dict[str, str]) -> list[Any]:
            """What one reader finds: answers at their addresses, and the record."""
            answers = [await client.get(url, headers=who) for url in asked.values()]
            record = await client.get("/v1/sessions/talk/export.md", headers=who)
            return [*[(one.status_code, one.json()) for one in answers], record.text]

        # Another order of rights: tokens of the same second with the same claims would be one.
        other = await client.post("/v1/tokens", json={"session": "talk", "may": ["ask", "subscribe"]})
        others = {"authorization": f"Bearer {other.json()['token']}"}
        session.end("ended")
        await session.over.wait()
        before = await told(mine), await told(others)
        assert [status for status, _ in before[0][:2]] == [200, 200]
        assert [status for status, _ in before[1][:2]] == [404, 200]
        assert "about the budget?" in before[0][2]
        assert "about the budget?" not in before[1][2]
        held = (tmp_path / session.id / "session.db").read_bytes()
        assert made.json()["token"].encode() not in held
    async with doors(tmp_path) as (running, client):
        if unloaded:
            await running.sessions.open("talk")
            monkeypatch.setattr(retention, "IDLE_SECONDS", -1.0)
            await retention.sweep(running.sessions)
            assert running.sessions.by_id == {}
        assert (await told(mine), await told(others)) == before


async def test_nothing_of_a_question_is_kept_that_is_not_to_be_stored(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        session = await running.sessions.create(options=SessionOptions(stored=False))
        session.dispatch(Reply("q", 1.0, 0.0, Answer("q", "Yes.", True), None, question="What?"))
        assert session.store.questions() == []
        session = await running.sessions.create()
        session.dispatch(Reply("q", 1.0, 0.0, Answer("q", "Yes.", True), None, question="What?", asker="me"))
        (kept_question,) = session.store.questions()
        assert kept_question.text == "What?"
        assert "me" not in kept_question.asker


async def test_a_question_about_a_session_of_an_earlier_run_is_answered(tmp_path: Path) -> None:
    async with doors(tmp_path) as (running, _):
        await talk(running, "talk")
    async with doors(tmp_path) as (_, client):
        answer = await client.post(
            "/v1/sessions/talk/questions",
            json={"text": "What was said about the budget?", "audience": "session"},
            headers={"accept": "text/event-stream"},
        )
        assert "event: answer.done" in answer.text
        told = [event for _, event in await events(client, "talk")]
        assert told[-1]["type"] == "answer.done", "it is in the log, and counted on"
        assert [event["seq"] for event in told if "seq" in event][-1] > len(told) - 2


async def test_who_follows_a_name_goes_from_one_broadcast_to_the_next(tmp_path: Path) -> None:
    async def broadcast(running: Service) -> str:
        session = await talk(running, "talk")
        session.end("ended")
        await session.over.wait()
        return session.id

    async with doors(tmp_path) as (running, client):
        first = await broadcast(running)
        told = await events(client, "talk")
        assert told[-1][1]["type"] == "session.closed"
        seen = {"last-event-id": told[-1][0]}
        assert await events(client, "talk", "", **seen) == [], "it waits for the next one"
        second = await broadcast(running)
        gap, *anew = [event for _, event in await events(client, "talk", "", **seen)]
        assert (gap["type"], gap["reason"]) == ("log.gap", "new_epoch")
        assert {event["session"] for event in (gap, *anew)} == {second}
        assert [event["seq"] for event in anew] == [event["seq"] for _, event in told], "from its beginning"
        assert {event["epoch"] for event in anew} != {told[0][1]["epoch"]}
        assert await events(client, first) == told, "the first is read as it was"
        unused = await running.sessions.create(name="talk")
        assert running.sessions.resolve("talk") == unused.id, "it waits for a publisher there"
        await running.sessions.delete(unused.id)
        await unused.over.wait()
        assert running.sessions.resolve("talk") == second, "nothing was said in a newer one"
    async with doors(tmp_path) as (running, client):
        assert running.sessions.resolve("talk") == second
        assert (await client.get("/v1/sessions/talk")).json()["id"] == second
        assert await events(client, first) == told


async def test_a_session_that_was_cut_off_ends_as_interrupted_with_all_that_was_seen(tmp_path: Path) -> None:
    async with doors(tmp_path / "first") as (running, _):
        session = await talk(running, "talk")
        seq, epoch = session.log.seq, session.log.epoch
        shutil.copytree(tmp_path / "first", tmp_path / "second")  # as a killed process leaves it
    async with doors(tmp_path / "second") as (_, client):
        told = await events(client, "talk", f"after=0&client={CLIENT}")
        assert [event["seq"] for _, event in told] == list(range(1, seq + 2))
        assert {event["epoch"] for _, event in told} == {epoch}
        assert (told[-1][1]["type"], told[-1][1]["reason"]) == ("session.closed", "interrupted")
        assert "Thank you all." in (await client.get("/v1/sessions/talk/captions.vtt")).text
        assert (await entry(client, "talk"))["last_caption"] == "Thank you all."


@pytest.mark.parametrize("opened", [False, True])
async def test_a_session_of_an_earlier_run_is_erased_when_asked_and_stays_when_its_name_begins_anew(
    tmp_path: Path, opened: bool
) -> None:
    async with doors(tmp_path) as (running, _):
        for name in ("one", "two", "three"):
            await talk(running, name)
    async with doors(tmp_path) as (running, client):
        if opened:
            await running.sessions.open("one")
            await running.sessions.open("two")
        one, two, three = (running.sessions.resolve(name) for name in ("one", "two", "three"))
        assert (await client.delete("/v1/sessions/one")).json() == {"id": one, "purged": False}
        assert (await client.delete("/v1/sessions/one?purge=1")).json() == {"id": one, "purged": True}
        assert kept(tmp_path) == {two, three}
        for call in (client.get, client.delete):
            assert (await call("/v1/sessions/one")).status_code == 404
        anew = (await client.post("/v1/sessions", json={"name": "two"})).json()
        assert anew["state"] == "created"
        for address, said in (("two", False), (two, True)):
            captions = (await client.get(f"/v1/sessions/{address}/captions.vtt")).text
            assert ("budget" in captions) is said
        listed = (await client.get("/v1/sessions")).json()["sessions"]
        assert [found["id"] for found in listed] == [anew["id"], three, two]


def test_sessions_of_earlier_runs_go_by_time_and_bytes_while_the_service_runs(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    def aged(name: str, seconds: float) -> None:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        (path / "session.db").touch()
        stamp = clock.utc().timestamp() - seconds
        for file in path.iterdir():
            os.utime(file, (stamp, stamp))

    async def main() -> None:
        for name, seconds in (("old", 3700), ("new", 10), ("newer", 5)):
            aged(name, seconds)
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "session.db").write_bytes(b"no database " * 100)
        aged("broken", 3700)
        (tmp_path / "holiday").mkdir()
        empty = tmp_path / broadcast_ids.new_id("empty")  # its session was never written
        empty.mkdir()
        os.utime(empty, (clock.utc().timestamp() - 3700,) * 2)
        async with serving(tmp_path) as running:
            assert set(running.sessions.stored.by_id) == {"old", "new", "newer"}
            await running.sessions.open("newer")
            await clock.sleep(2 * retention.SECONDS)
            assert kept(tmp_path) == {"new", "newer", "holiday"}
            await retention.erase_over(running.sessions, 1_000_000)
            assert kept(tmp_path) == {"new", "newer", "holiday"}
            await retention.erase_over(running.sessions, 0)
            assert kept(tmp_path) == {"holiday"}
            with pytest.raises(NotFound):
                await running.sessions.open("new")

    stage.run(main())


async def test_files_that_break_are_told_and_can_be_erased(tmp_path: Path) -> None:
    async with doors(tmp_path) as (running, _):
        await talk(running, "talk")
    async with doors(tmp_path) as (running, client):
        (tmp_path / running.sessions.resolve("talk") / "session.db").write_bytes(b"no database " * 100)
        answer = await client.get("/v1/sessions/talk")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "unreadable")
        assert (await client.delete("/v1/sessions/talk?purge=1")).status_code == 200
        assert kept(tmp_path) == set()


async def test_a_log_that_cannot_be_read_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    close = Store.close

    def noted(store: Store, *, purge: bool) -> None:
        closed.append(purge)
        close(store, purge=purge)

    def fails(*_: object) -> None:
        raise ValueError("half of an event")

    async with doors(tmp_path) as (running, _):
        await talk(running, "talk")
    async with doors(tmp_path) as (running, client):
        monkeypatch.setattr(stored_sessions, "fill", fails)
        monkeypatch.setattr(Store, "close", noted)
        assert (await client.get("/v1/sessions/talk")).status_code == 500
        assert closed == [False]


async def test_a_second_service_on_one_data_folder_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    async with doors(tmp_path) as (running, client):
        await talk(running, "talk")
        with pytest.raises(ConfigError, match="another streamsvc keeps its sessions in"):
            async with serving(tmp_path):
                pass
        assert (await client.get("/v1/sessions/talk")).json()["state"] == "live"
    async with serving(tmp_path):
        pass
