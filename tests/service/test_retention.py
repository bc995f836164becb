"""Ended sessions are kept for their time, and no longer; nobody's go for the number of another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from streamsvc.core import clock, config, metrics
from streamsvc.core.errors import Conflict, NotFound
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.events.caption_push import Push, parse_target
from streamsvc.events.store import size_of
from streamsvc.events.stored import StoredSession
from streamsvc.service import retention
from streamsvc.service.revocations import FILE
from streamsvc.service.service import Service
from tests.builders.fake_service import kept, serving
from tests.builders.session import Sender
from tests.builders.units import cue
from tests.fakes.role import FakeRole


def test_an_ended_session_is_readable_for_its_retention_and_then_erased(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "IDLE_SECONDS", 1e9)  # on disk alone it goes by the wall clock

    async def main() -> None:
        async with serving(tmp_path, store={"retention": 100.0}) as running:
            session, live = await running.sessions.create(), await running.sessions.create()
            live.media.attach(Sender())
            await running.sessions.delete(session.id)
            await clock.sleep(90.0)
            assert running.sessions.find(session.id) is session
            assert (await session.log.since(0, None, session.log.seq))[0]
            assert (tmp_path / session.id / "session.db").exists()
            await clock.sleep(10.0 + 2 * retention.SECONDS)
            with pytest.raises(NotFound):
                running.sessions.find(session.id)
            assert not (tmp_path / session.id).exists()
            assert running.sessions.find(live.id) is live
            assert (tmp_path / live.id).exists()

    stage.run(main())


def test_sweeping_goes_on_after_a_sweep_that_failed(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_be_read(folder: Path) -> int:
        raise PermissionError(str(folder))

    async def main() -> None:
        async with serving(tmp_path, store={"retention": 20.0}) as running:
            session = await running.sessions.create()
            await running.sessions.delete(session.id)
            with monkeypatch.context() as patch, capture_logs() as lines:
                patch.setattr(retention, "size_of", cannot_be_read)
                await clock.sleep(2 * retention.SECONDS)
            told = [line for line in lines if line["event"] == "ended sessions could not be erased"]
            assert [line["error"] for line in told] == ["PermissionError"] * len(told) != []
            assert str(tmp_path) not in str(told)
            await clock.sleep(20.0 + 2 * retention.SECONDS)
            assert not (tmp_path / session.id).exists()

    stage.run(main())


def test_of_sessions_in_memory_alone_a_holder_s_own_oldest_go_first_and_never_another_s(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "UNSTORED", 2)

    async def main() -> None:
        async with serving(tmp_path) as running:
            made = []
            for holder, stored in (
                ("a", True),
                *[("b", False)] * 2,
                *[("a", False)] * 2,
                *[("a.child", False)] * 2,
                ("a", True),
            ):
                session = await running.sessions.create(options=SessionOptions(stored=stored), holder=holder)
                made.append(session)
                await running.sessions.delete(session.id)
                await clock.sleep(0.1)
            await clock.sleep(2 * retention.SECONDS)
            assert list(running.sessions.by_id.values()) == [*made[:3], *made[5:]]
            assert kept(tmp_path) == {made[0].id, made[7].id}

    stage.run(main())


def test_whoever_makes_and_deletes_many_takes_nothing_from_others(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            for stored in (True, False):
                theirs = await running.sessions.create(options=SessionOptions(stored=stored), holder="alice")
                await running.sessions.delete(theirs.id)
            for number in range(410):
                mine = await running.sessions.create(
                    options=SessionOptions(stored=number % 2 == 0), holder="mallory"
                )
                await running.sessions.delete(mine.id)
                await mine.over.wait()
            await retention.sweep(running.sessions)
            left = list(running.sessions.by_id.values())
            assert sum(session.holder == "alice" for session in left) == 2
            own = sum(session.holder == "mallory" and not session.options.stored for session in left)
            assert own == retention.UNSTORED

    stage.run(main())


def test_ended_sessions_on_disk_are_kept_up_to_so_many_bytes_and_at_rest(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"bytes": 1_500_000}) as running:
            made = []
            for _ in range(4):
                session = await running.sessions.create()
                made.append(session)
                await session.log.put_frame(0.0, bytes(600_000))
                await running.sessions.delete(session.id)
                await session.over.wait()
                states = [session.store.resting]
                assert session.store.frame(0.0) is not None
                assert [*states, session.store.resting] == [True, False]
                await clock.sleep(0.1)
            await clock.sleep(2 * retention.SECONDS)
            assert list(running.sessions.by_id.values()) == made[2:]
            assert all(session.store.resting for session in made[2:])
            assert kept(tmp_path) == {made[2].id, made[3].id}
            assert metrics.stored._value.get() == sum(size_of(tmp_path / one.id) for one in made[2:])
            assert metrics.stored_limit._value.get() == 1_500_000
            sweeps = metrics.retention_sweeps._value.get()
            await clock.sleep(2.5 * retention.SECONDS)
            assert metrics.retention_sweeps._value.get() - sweeps == 2

    stage.run(main())


def test_what_nobody_reads_any_more_leaves_the_memory_and_reads_as_before(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.sessions.create(name="talk")
            session.media.attach(Sender())
            session.dispatch(cue("The budget is nine million.", 1.0))
            session.end("ended")
            await session.over.wait()
            epoch, seq = session.log.epoch, session.log.seq
            figures = session.stats()
            assert "final" in figures["ages"], "which no log tells"
            await clock.sleep(2 * retention.IDLE_SECONDS)
            with pytest.raises(NotFound):
                running.sessions.find("talk")
            assert (await running.sessions.open("talk")).stats() == figures
        async with serving(tmp_path) as running:
            loaded = await running.sessions.open("talk")
            subscription = loaded.log.subscribe(["answer.*"], "me", lasting=True)
            await clock.sleep(2 * retention.IDLE_SECONDS)
            assert running.sessions.find("talk") is loaded, "somebody listens"
            loaded.log.unsubscribe(subscription)
            await clock.sleep(2 * retention.SECONDS)
            with pytest.raises(NotFound):
                running.sessions.find("talk")
            assert set(running.sessions.stored.by_id) == {loaded.id}
            with pytest.raises(Conflict) as caught:
                running.sessions.update("talk", SpeechOptions(), ["language"])
            assert caught.value.code == "session_ended"
            again = await running.sessions.open("talk")
            assert again is not loaded
            assert (again.log.epoch, again.log.seq) == (epoch, seq)
            assert again.stats() == figures
            assert [said.text for said in again.dispatcher.cues] == ["The budget is nine million."]
            for _ in range(4):
                await clock.sleep(retention.IDLE_SECONDS / 2)
                assert await running.sessions.open("talk") is again, "it is asked for from time to time"
            session = await running.sessions.create()
            await running.sessions.delete(session.id)
            await clock.sleep(retention.IDLE_SECONDS + 2 * retention.SECONDS)
            assert running.sessions.by_id == {}, "nor does one stay that never had a publisher"

    stage.run(main())


@pytest.mark.parametrize("more", ["reads", "sees", "clip"])
async def test_one_of_which_models_know_more_than_its_log_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    monkeypatch.setattr(retention, "IDLE_SECONDS", -1.0)
    async with serving(tmp_path, see={"clip": "c"} if more == "clip" else {}) as running:
        think = FakeRole({"drop": {}})
        roles = replace(running.sessions.shared.roles, think=think, reads=more == "reads")
        roles = replace(roles, vlm=think if more == "sees" else None)
        running.sessions.shared = replace(running.sessions.shared, roles=roles)
        read, unread = [await running.sessions.create() for _ in range(2)]
        read.media.attach(Sender())
        for session in (read, unread):
            await running.sessions.delete(session.id)
            await session.over.wait()
        await retention.sweep(running.sessions)
        assert list(running.sessions.by_id.values()) == [read]


async def test_one_that_is_asked_for_while_it_is_being_unloaded_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "IDLE_SECONDS", -1.0)
    async with serving(tmp_path) as running:
        session = await running.sessions.create()
        await running.sessions.delete(session.id)
        await session.over.wait()
        look = running.sessions.stored.look

        async def slow(name: str) -> StoredSession | None:
            found = await look(name)
            assert await running.sessions.open(name) is session
            return found

        monkeypatch.setattr(running.sessions.stored, "look", slow)
        await retention.sweep(running.sessions)
        assert running.sessions.find(session.id) is session
        monkeypatch.setattr(running.sessions.stored, "look", look)
        await retention.sweep(running.sessions)
        assert set(running.sessions.stored.by_id) == {session.id}


async def test_one_that_answers_or_pushes_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "IDLE_SECONDS", -1.0)
    async with serving(tmp_path) as running:
        session = await running.sessions.create()
        await running.sessions.delete(session.id)
        await session.over.wait()
        with monkeypatch.context() as patch:
            patch.setattr(type(session.questions), "idle", False)
            await retention.sweep(running.sessions)
            assert running.sessions.find(session.id) is session, "a question is open"
        target = parse_target("zoom", "https://zoom.example/closedcaption?id=1", "en-US")
        push = Push(target, False, session.clock, print)
        session.pushes[push.id] = push
        await retention.sweep(running.sessions)
        assert running.sessions.find(session.id) is session, "the end of a push is told until it is deleted"
        session.pushes.clear()
        await retention.sweep(running.sessions)
        assert running.sessions.by_id == {}


async def test_ended_sessions_keep_no_file_open(tmp_path: Path) -> None:
    def opened() -> list[str]:
        return [file.path for file in psutil.Process().open_files() if "session.db" in file.path]

    async with serving(tmp_path) as running:
        made = [await running.sessions.create() for _ in range(3)]
        assert opened(), "live ones have theirs open"
        for session in made:
            await running.sessions.delete(session.id)
            await session.over.wait()
        assert opened() == []
        assert (await running.sessions.open(made[0].id)).store.read(0, 10**6, 1)[0][0] == 1
        assert opened()
        await retention.sweep(running.sessions)
        assert opened() == []


def test_a_service_that_keeps_nothing_erases_nothing_of_the_one_that_has_the_folder(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"retention": 1e9}) as running:
            session = await running.sessions.create()
            await running.sessions.delete(session.id)
            await session.over.wait()
            (tmp_path / FILE).write_text("broken: the owner's business alone")
            settings = config.load(None, server={"data_dir": tmp_path}, store={"retention": 0.0})
            async with Service(settings, at_once=(), keeps=False):
                await clock.sleep(3 * retention.SECONDS)
            assert kept(tmp_path) >= {session.id}

    stage.run(main())
