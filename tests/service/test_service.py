"""The service lets in as many as it can serve, tells everybody the end.

What ended or never began leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from streamsvc.answers import router
from streamsvc.core import clock, config
from streamsvc.core.errors import CapacityError, ModelMissing
from streamsvc.events.log import EventLog
from streamsvc.service import engine_table, service, sessions
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from streamsvc.speech.pipeline import SpeechPipeline
from streamsvc.workers.look_cache import LookCache
from streamsvc.workers.ray_worker import RayWorker
from streamsvc.workers.supervisor import Worker
from tests.builders.clips import clip
from tests.builders.fake_service import Peer, at, serving
from tests.builders.session import OPUS, Sender


async def test_the_profile_gpu_thinks_by_the_vision_language_model(tmp_path: Path) -> None:
    groups = {"models": {"profile": "gpu"}, "think": {"model": "seer"}}
    async with Service(config.load(None, server={"data_dir": tmp_path}, **groups), at_once=()) as running:
        assert running.workers["think"].roles == {"think": "engines.vlm"}
        assert running.roles.vlm is running.roles.think
    async with Service(config.load(None, server={"data_dir": tmp_path}), at_once=()) as running:
        assert running.workers["think"].roles == {"think": "engines.chat"}
        assert running.roles.vlm is None


async def test_the_profile_remote_thinks_by_an_endpoint(tmp_path: Path) -> None:
    groups = {"models": {"profile": "remote"}, "remote": {"url": "http://127.0.0.1:9/v1", "model": "seer"}}
    async with Service(config.load(None, server={"data_dir": tmp_path}, **groups), at_once=()) as running:
        assert running.workers["think"].roles == {"think": "engines.remote"}
        assert running.roles.vlm is running.roles.think


async def test_on_ray_the_workers_carry_requests_and_no_weights_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayWorker, "program", "tests.fakes.ray_replicas")
    groups: dict[str, dict[str, Any]] = {
        "models": {"dir": tmp_path},
        "think": {"model": "smollm2-135m-instruct"},
        "workers": {"transport": "ray", "address": "10.0.0.1:6379"},
    }
    async with Service(config.load(None, server={"data_dir": tmp_path}, **groups), at_once=()) as running:
        assert {name: type(worker) for name, worker in running.workers.items()} == dict.fromkeys(
            ("hear", "see", "think"), RayWorker
        )
        assert running.workers["hear"].options == {"address": "10.0.0.1:6379", "worker": "hear"}
        assert running.roles.embed == running.workers["see"].role("embed")
        await running._check_models()
        assert running.wrong_models == {}


async def test_what_questions_are_routed_by_is_prepared_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Any] = []
    done = asyncio.Event()

    async def prepare(embed: Any, **_: Any) -> bool:
        prepared.append(embed)
        if len(prepared) == 2:
            done.set()
        return done.is_set()  # the first time the model is not loaded in time

    async def wait_ready(worker: Worker) -> None:
        assert worker.name == "see"

    monkeypatch.setattr(router, "prepare", prepare)
    monkeypatch.setattr(Worker, "wait_ready", wait_ready)
    async with Service(config.load(None, server={"data_dir": tmp_path}), at_once=("see",)) as running:
        await asyncio.wait_for(done.wait(), 20)
        assert prepared == [running.roles.embed] * 2


async def test_a_service_with_a_broken_model_is_not_ready_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def checked(settings: config.Settings, workers: tuple[str, ...]) -> dict[str, str]:
        threads.append(threading.get_ident())
        return engine_table.wrong_models(settings, workers)

    async def wait_ready(worker: Worker) -> None:
        pytest.fail(f"{worker.name} was waited for")

    monkeypatch.setattr(service, "wrong_models", checked)
    monkeypatch.setattr(Worker, "wait_ready", wait_ready)
    broken = tmp_path / "models" / "whisper-tiny.en" / "model.bin"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(bytes(4096))
    settings = config.load(None, server={"data_dir": tmp_path / "data"}, models={"dir": tmp_path})
    async with Service(settings, at_once=("hear",)) as running:
        assert running.wrong_models is None
        with pytest.raises(ModelMissing, match=r"model\.bin: broken .4096 of .*streamsvc models pull"):
            await running.ready()
        assert list(running.wrong_models or ()) == ["whisper-tiny.en", "smollm2-135m-instruct"]
    assert threads
    assert threads != [threading.get_ident()], "the loop waits for nothing"


# --- ids and capacity
# -----------------------------------------------------------------------------------------------


def test_strain_is_told_to_live_sessions_and_not_to_what_can_wait(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.publications.publish("mine", "good")
            patient = await running.sessions.create(speed=None)
            patient.media.attach(Sender(OPUS))
            running.load_controller.force(3)
            await clock.sleep(1.0)
            assert (running.sessions.find("mine").level, patient.level) == (3, 0)

    stage.run(main())


# --- the end
# --------------------------------------------------------------------------------------------------------


def test_the_end_of_the_service_is_told_and_nobody_gets_in_after_it(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.sessions.create()
            subscription = session.log.subscribe(["session.*"])
            await running.drain("update", 5.0)
            assert at(session, State.ENDED)
            told = "".join(text for _, text in await subscription.next() or [])
            assert '"session.going_away"' in told
            assert '"time_left_ms":5000.0' in told
            assert '"session.closed"' in told
            assert '"reason":"update"' in told
            with pytest.raises(CapacityError, match="going away"):
                await running.sessions.create()

    stage.run(main())


def test_live_sessions_go_on_while_the_service_is_patient(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[tuple[EventLog, str, Any]] = []
    emit = EventLog.emit

    def noted(log: EventLog, kind: str, body: Any, *rest: Any, **options: Any) -> Any:
        emitted.append((log, kind, body))
        return emit(log, kind, body, *rest, **options)

    monkeypatch.setattr(EventLog, "emit", noted)

    async def main() -> None:
        async with serving(tmp_path) as running:
            leaves, stays = await running.sessions.create(), await running.sessions.create()
            start = clock.now()
            draining = asyncio.create_task(running.drain("update", 5.0, patience=30.0))
            await clock.sleep(10)
            assert not at(leaves, State.ENDED)
            leaves.end("deleted")
            await clock.sleep(10)
            assert at(leaves, State.ENDED)
            assert not stays.over.is_set()
            await draining
            assert clock.now() - start == pytest.approx(30.0, abs=1.0)
            assert stays.over.is_set()
        told = [body for log, kind, body in emitted if log is stays.log and kind == "session.going_away"]
        assert [body["time_left_ms"] for body in told] == [
            35000.0
        ]  # once: the end of the service drains again

    stage.run(main())


def test_a_session_that_does_not_end_is_not_waited_for_longer_than_said(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: SpeechPipeline) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(SpeechPipeline, "_recognise", never)

    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.sessions.create()
            start = clock.now()
            await running.drain("update", 3.0)
            assert clock.now() - start == pytest.approx(3.0, abs=0.2)
            assert not session.over.is_set()
        assert session.over.is_set()
        assert session.log.seq

    stage.run(main())


def test_a_source_that_opens_while_the_service_ends_is_closed(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Sender()

    async def slow(*_: object, **__: object) -> Any:
        await clock.sleep(1.0)
        return source

    monkeypatch.setattr(sessions, "open_source", slow)

    async def main() -> None:
        async with serving(tmp_path) as running:
            opening = asyncio.create_task(running.sessions.create("rtsp://example.org/a"))
            await clock.sleep(0.5)
            await running.drain()
            with pytest.raises(CapacityError):
                await opening
            assert source.closed == 1
            assert running.sessions.by_id == {}

    stage.run(main())


# --- what is kept
# ---------------------------------------------------------------------------------------------------


# --- sources
# --------------------------------------------------------------------------------------------------------


# --- publishers
# -----------------------------------------------------------------------------------------------------


async def test_all_sessions_look_through_one_memory_of_pictures(tmp_path: Path) -> None:
    async with Service(config.load(None, server={"data_dir": tmp_path}), at_once=()) as running:
        assert isinstance(running.roles.see, LookCache)
        assert not isinstance(running.roles.hear, LookCache)


async def test_a_source_that_has_a_process_takes_no_decoding_thread_of_all_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise RuntimeError("all threads wait for another source")

    path = clip(tmp_path / "a.mp4", video="libx264", audio="aac", seconds=2.0)
    async with serving(tmp_path / "data") as running:
        monkeypatch.setattr(running._media, "submit", busy)
        session = await running.sessions.create(str(path), speed=None, roots=None)
        heard = session.log.subscribe(["caption.final", "sight.ready", "session.closed"])
        await session.over.wait()
        told = [json.loads(text) for _, text in await heard.next() or ()]
    assert {event["type"] for event in told} == {"caption.final", "sight.ready", "session.closed"}
    assert told[-1]["reason"] == "source_ended"
