"""Sessions are admitted, kept for their retention, and erased without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from engines import Engine
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock, config
from streamsvc.core.errors import (
    CapacityError,
    Forbidden,
    InvalidRequest,
    NotFound,
    SourceError,
    StreamsvcError,
)
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.roles import Payload
from streamsvc.events.store import Store
from streamsvc.ingest import source_process
from streamsvc.service import broadcast_ids, media_input, sessions
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from tests.builders.clips import clip
from tests.builders.fake_service import Peer, at, kept, rejected, serving
from tests.builders.session import Models, Sender, packets, send
from tests.fakes.local_role import LocalRole
from tests.fakes.vlm_role import Model, image


def test_ids_cannot_be_guessed_and_find_their_session(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            one, other = await running.sessions.create(), await running.sessions.create()
            assert one.id != other.id
            assert one.id.startswith("0.")
            assert len(one.id) >= 2 + 16
            assert running.sessions.find(one.id) is one
            with pytest.raises(NotFound) as caught:
                running.sessions.find("0.nobody")
            assert caught.value.code == "no_session"

    stage.run(main())


def test_no_session_gets_the_id_of_one_that_is_or_was(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ["0.a", "0.a", "0.b", "0.c"]
    monkeypatch.setattr(broadcast_ids, "new_id", lambda name: made.pop(0))
    (tmp_path / "0.b").mkdir()  # of one that is on disk alone

    async def main() -> None:
        async with serving(tmp_path) as running:
            assert [(await running.sessions.create()).id for _ in range(2)] == ["0.a", "0.c"]

    stage.run(main())


def test_no_more_sessions_are_let_in_than_can_be_served(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        before = rejected("capacity")
        async with serving(tmp_path, limits={"sessions": 2}) as running:
            one = await running.sessions.create()
            waiting = await running.sessions.create(name="waiting")
            await running.publications.publish(one.id, "good")
            await running.publications.publish("mine", "good")
            for enter in (
                running.sessions.create("rtsp://example.org/a"),
                running.publications.publish(None, "good"),
                running.publications.publish("waiting", "good"),
            ):
                with pytest.raises(CapacityError) as caught:
                    await enter
                assert (caught.value.code, caught.value.status, caught.value.retryable) == (
                    "capacity",
                    503,
                    True,
                )
                assert caught.value.retry_after > 0
            assert rejected("capacity") - before == 3
            assert len(running.sessions.by_id) == 3
            assert len(peers) == 2, "no peer was made for those who were refused"
            await running.sessions.delete(one.id)
            await one.over.wait()
            await running.publications.publish("waiting", "good")
            assert at(waiting, State.LIVE)

    stage.run(main())


def test_one_more_session_is_refused_where_it_would_make_the_others_late(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        before = rejected("budget")
        async with serving(tmp_path) as running:
            await running.publications.publish("mine", "good")
            running.load_controller.force(1)
            await clock.sleep(1.0)
            for enter in (
                running.sessions.create("rtsp://example.org/a"),
                running.publications.publish(None, "good"),
            ):
                with pytest.raises(CapacityError, match="late") as caught:
                    await enter
                assert caught.value.retry_after > 0
            assert rejected("budget") - before == 2
            running.load_controller.force(0)
            await running.sessions.create()

    stage.run(main())


def test_a_session_counts_while_its_source_is_being_opened(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object, **__: object) -> Any:
        await clock.sleep(5.0)
        raise SourceError("no answer", code="no_answer", retryable=True)

    monkeypatch.setattr(sessions, "open_source", slow)

    async def main() -> None:
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            opening = asyncio.create_task(running.sessions.create("rtsp://example.org/a"))
            await clock.sleep(1.0)
            with pytest.raises(CapacityError):
                await running.sessions.create("rtsp://example.org/b")
            with pytest.raises(SourceError):
                await opening
            with pytest.raises(SourceError):
                await running.sessions.create("rtsp://example.org/b")

    stage.run(main())


async def test_a_purge_waits_until_the_end_is_written_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, writing, whole = threading.Event(), threading.Event(), Store.put_meta

    def slow(self: Store, **values: str) -> None:
        if "ended_utc" in values:
            writing.set()
            free.wait(5.0)
        whole(self, **values)

    monkeypatch.setattr(Store, "put_meta", slow)
    async with serving(tmp_path) as running:
        session = await running.sessions.create()
        subscription = session.log.subscribe(["session.closed"])
        erasing = asyncio.create_task(running.sessions.delete(session.id, purge=True))
        await asyncio.to_thread(writing.wait, 5.0)
        done, _ = await asyncio.wait({erasing}, timeout=0.1)
        assert not done
        free.set()
        await erasing
        assert await subscription.next()
        assert await subscription.next() is None
        assert running.sessions.by_id == {}
    assert kept(tmp_path) == set()


def test_a_session_that_is_not_to_be_stored_never_touches_the_disk(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.sessions.create(options=SessionOptions(stored=False))
            await clock.sleep(2.0)
            await running.sessions.delete(session.id)
            await session.over.wait()
            assert kept(tmp_path) == set()

    stage.run(main())


async def test_a_source_that_cannot_be_had_leaves_nothing(tmp_path: Path) -> None:
    opened, data = tmp_path / "opened", tmp_path / "data"
    opened.mkdir()
    (opened / "empty.mp4").touch()
    (opened / "corrupt.mp4").write_bytes(b"no media at all" * 100)
    (opened / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n\n")
    clip(tmp_path / "outside.wav", video=None, audio="pcm_s16le")
    async with serving(data) as running:
        for source, kind, code, status in (
            (f"{opened}/absent.mp4", SourceError, "not_found", 422),
            (f"{opened}/empty.mp4", SourceError, "empty", 422),
            (f"{opened}/corrupt.mp4", SourceError, "corrupt", 422),
            (f"{opened}/a.srt", SourceError, "no_media", 422),
            (f"{tmp_path}/outside.wav", Forbidden, "outside_sources", 403),
            ("", SourceError, "bad_scheme", 422),
        ):
            before = rejected(code)
            with pytest.raises(kind) as caught:
                await running.sessions.create(f"file:{source}" if source else "", roots=(opened,))
            assert isinstance(caught.value, StreamsvcError)
            assert (caught.value.code, caught.value.status) == (code, status)
            assert caught.value.message
            assert rejected(code) - before == 1
        assert running.sessions.by_id == {}
        assert running.sessions.places._coming == []
    assert kept(data) == set()


async def test_a_source_plays_to_its_end_and_its_tracks_are_known_at_once(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=2.0)
    async with serving(tmp_path / "data") as running:
        session = await running.sessions.create(
            str(path), SessionOptions(stored=False), speed=None, roots=None
        )
        assert session.describe()["tracks"] == ["audio"]
        assert session.describe()["state"] == "live"
        async with asyncio.timeout(20):
            await session.over.wait()
        assert session.failure is None
        assert " ".join(cue.text for cue in session.dispatcher.cues).startswith("La la")


async def test_a_source_whose_process_dies_ends_its_session_with_the_reason_and_no_other(
    tmp_path: Path,
) -> None:
    path = clip(tmp_path / "a.mp4", video="libx264", seconds=30.0)
    async with serving(tmp_path / "data") as running:
        other = await running.sessions.create()
        session = await running.sessions.create(str(path), roots=None)
        source: Any = session.media.publisher
        async with asyncio.timeout(60):
            subscription, told = session.log.subscribe(client="me"), ""
            while "keyframe.sampled" not in told:  # its pictures are being decoded
                told += str(await subscription.next())
            os.kill(source._process.pid, signal.SIGKILL)
            await session.over.wait()
        assert session.failure is not None
        assert session.failure.code == "source_crashed"
        assert at(other, State.CREATED)
        again = await running.sessions.create(str(path), roots=None)
        assert at(again, State.LIVE)


async def test_a_deleted_session_lets_its_source_go(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=30.0)
    async with serving(tmp_path / "data") as running:
        session = await running.sessions.create(str(path), roots=None)
        await running.sessions.delete(session.id, purge=True)
        assert session.media.publisher is None
        assert running.sessions.by_id == {}


class Frozen(LocalRole):
    """A worker that never answers, whatever the deadline."""

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        await asyncio.Event().wait()
        raise AssertionError


class Stuck(Sender):
    """A publisher that is not closed before `let_go`."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def close(self) -> None:
        await self.let_go.wait()
        await super().close()


def test_a_deleted_session_ends_in_time_whatever_its_models_and_its_publisher_wait_for(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path / "data") as running:
            frozen = Frozen(Engine({}))
            running.use_roles(replace(Models().roles(), hear=frozen, see=frozen))
            session = await running.sessions.create(name="mine")
            publisher = Stuck()
            session.media.attach(publisher)
            await send(session, packets(tmp_path, 1.0))
            begun = clock.now()
            async with asyncio.timeout(3600.0):
                await running.sessions.delete("mine", purge=True)
            assert running.settings.limits.delete_seconds == 10.0
            assert 10.0 <= clock.now() - begun < 10.0 + 2 * media_input.CLOSE_SECONDS
            assert at(session, State.ENDED)
            assert session.failure is None
            assert kept(tmp_path / "data") == set()
            publisher.let_go.set()
            await asyncio.sleep(0.1)
            assert publisher.closed == 1

    stage.run(main())


def test_a_session_that_ends_already_is_deleted_in_time_too(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "data") as running:
            running.use_roles(replace(Models().roles(), hear=Frozen(Engine({}))))
            session = await running.sessions.create()
            session.media.attach(Sender())
            await send(session, packets(tmp_path, 0.5))
            session.end("source_ended")
            async with asyncio.timeout(3600.0):
                await running.sessions.delete(session.id)
                await session.over.wait()
            assert at(session, State.ENDED)

    stage.run(main())


async def test_a_source_whose_process_hangs_does_not_keep_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_process, "STEP_SECONDS", 3600.0)
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=30.0)
    async with serving(tmp_path / "data", limits={"delete_seconds": 0.2}) as running:
        session = await running.sessions.create(str(path), roots=None)
        source: Any = session.media.publisher
        os.kill(source._process.pid, signal.SIGSTOP)
        async with asyncio.timeout(100):
            await running.sessions.delete(session.id, purge=True)
        assert running.sessions.by_id == {}


async def test_the_failure_of_one_session_is_its_own_and_its_text_is_not_logged(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=2.0)

    def broken(*_: object) -> Any:
        raise RuntimeError("somebody said a secret")

    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path / "data") as running:
            other = await running.sessions.create()
            session = await running.sessions.create(str(path), speed=None, roots=None)
            session.speech._recognised = broken  # type: ignore[method-assign,assignment]
            async with asyncio.timeout(20):
                await session.over.wait()
            assert at(other, State.CREATED)
    assert session.failure is not None
    assert any(entry["event"] == "session failed" and "RuntimeError" in entry["error"] for entry in logs)
    assert "secret" not in str([{**entry, "exc_info": None} for entry in logs]), (
        "exc_info is told by its places alone"
    )


async def test_a_session_has_an_adapter_that_is_there_or_is_not_opened(tmp_path: Path) -> None:
    for name in ("medical", "not a name"):
        (tmp_path / "models" / "adapters" / name).mkdir(parents=True)
        (tmp_path / "models" / "adapters" / name / "adapter_model.safetensors").touch()
    (tmp_path / "models" / "adapters" / "empty").mkdir()
    groups: dict[str, Any] = {"models": {"dir": tmp_path, "profile": "gpu"}, "think": {"model": "seer"}}
    async with Service(
        config.load(None, server={"data_dir": tmp_path / "data"}, **groups), at_once=()
    ) as running:
        model = Model()
        running.use_roles(replace(Models().roles(), think=model, vlm=model, reads=True))
        for adapter in ("legal", "empty", "not a name", "../medical", ""):
            with pytest.raises(InvalidRequest, match="there are: medical") as refused:
                await running.sessions.create(options=SessionOptions(vision=VisionOptions(adapter=adapter)))
            assert refused.value.code == "no_adapter"
        assert running.sessions.by_id == {}
        session = await running.sessions.create(
            options=SessionOptions(vision=VisionOptions(adapter="medical"))
        )
        model.affinity = session.id
        assert session.vision.vlm is not None
        subscription = session.log.subscribe(["answer.done"], "me", lasting=True)
        session.questions.ask(QuestionRequest("What is it?", client="me", image=image()))
        event = json.loads((await subscription.next() or [])[0][1])
        assert event["text"] == "A red car."
        assert [asked["adapter"] for asked in model.asked] == ["medical"]
    async with serving(tmp_path / "data") as running:
        with pytest.raises(InvalidRequest, match="need the profile gpu"):
            await running.sessions.create(options=SessionOptions(vision=VisionOptions(adapter="medical")))


async def test_a_hangover_that_cannot_be_opens_no_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        for seconds in (0.05, 6.0):
            with pytest.raises(InvalidRequest) as refused:
                await running.sessions.create(options=SessionOptions(SpeechOptions(hangover=seconds)))
            assert refused.value.code == "bad_hangover"
        assert running.sessions.by_id == {}
        await running.sessions.create(options=SessionOptions(SpeechOptions(hangover=5.0)))


def test_nobody_begins_a_broadcast_at_the_id_of_a_session_without_a_name(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            mine = await running.sessions.create()
            mine.end("ended")
            await mine.over.wait()
            for again in (running.sessions.create(name=mine.id), running.publications.publish(mine.id, "x")):
                with pytest.raises(StreamsvcError) as refused:
                    await again
                assert refused.value.code in ("bad_session_id", "session_ended")
            running.sessions.start(f"{mine.id}.20991231-000000-abcd")  # of an earlier version
            assert running.sessions.resolve(mine.id) == mine.id

    stage.run(main())
