"""The service lets in as many as it can serve, tells everybody the end, and what ended or never began leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from streamsvc.core import clock, config, metrics
from streamsvc.core.errors import (
    CapacityError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    SourceError,
    StreamsvcError,
)
from streamsvc.core.types import Question
from streamsvc.events.store import Store
from streamsvc.ingest import peer
from streamsvc.service import service
from streamsvc.service.service import Service
from streamsvc.service.session import Session, State
from streamsvc.speech.pipeline import SpeechPipeline
from streamsvc.workers.look_cache import LookCache
from tests.builders.clips import clip
from tests.builders.session import OPUS, Models, Sender
from tests.fakes.vlm_role import Model, jpeg


@contextlib.asynccontextmanager
async def serving(
    folder: Path, models: Models | None = None, **groups: dict[str, Any]
) -> AsyncIterator[Service]:
    """A service whose workers never start, with stand-in models."""
    async with Service(
        config.load(None, **{"server": {"data_dir": folder}, **groups}), at_once=()
    ) as running:
        running.roles = (models or Models()).roles()
        yield running


async def test_the_profile_gpu_thinks_by_the_vision_language_model(tmp_path: Path) -> None:
    groups = {"models": {"profile": "gpu"}, "think": {"model": "seer"}}
    async with Service(config.load(None, server={"data_dir": tmp_path}, **groups), at_once=()) as running:
        assert running.workers["think"].roles == {"think": "engines.vlm"}
        assert running.roles.sight is running.roles.think
    async with Service(config.load(None, server={"data_dir": tmp_path}), at_once=()) as running:
        assert running.workers["think"].roles == {"think": "engines.llm"}
        assert running.roles.sight is None


async def test_the_profile_remote_thinks_by_an_endpoint(tmp_path: Path) -> None:
    groups = {"models": {"profile": "remote"}, "remote": {"url": "http://127.0.0.1:9/v1", "model": "seer"}}
    async with Service(config.load(None, server={"data_dir": tmp_path}, **groups), at_once=()) as running:
        assert running.workers["think"].roles == {"think": "engines.remote"}
        assert running.roles.sight is running.roles.think


class Peer(Sender):
    """A WebRTC peer as the WHIP door sees it; `tell` is what it says of itself."""

    sdp, etag = "v=0", '"tag"'

    def __init__(self, tell: Any) -> None:
        super().__init__(OPUS)
        self.tell = tell

    async def add_candidates(self, fragment: str) -> None:
        """Taken."""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> list[Peer]:
    """Every offer is answered by a stand-in, which is put here; the offer "bad" fails once `unlock` is set."""
    made: list[Peer] = []

    async def answer(offer: str, *_: object, on_state: Any, **__: object) -> Peer:
        if offer != "good":
            await asyncio.sleep(1.0)  # negotiating
            raise InvalidRequest("no", code="malformed_sdp")
        made.append(Peer(on_state))
        return made[-1]

    monkeypatch.setattr(peer, "answer", answer)
    return made


def rejected(reason: str) -> float:
    return float(metrics.sessions_rejected.labels(reason)._value.get())


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def at(session: Session, state: State) -> bool:
    return session.state is state


# --- ids and capacity -----------------------------------------------------------------------------------------------


def test_ids_cannot_be_guessed_and_find_their_session(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            one, other = await running.create(), await running.create()
            assert one.id != other.id
            assert one.id.startswith("0.")
            assert len(one.id) >= 2 + 16
            assert running.find(one.id) is one
            with pytest.raises(NotFound) as caught:
                running.find("0.nobody")
            assert caught.value.code == "no_session"

    stage.run(main())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 65, "a\0", "~", "a\\b"])
def test_a_name_that_is_no_id_is_refused(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer], name: str
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            with pytest.raises(InvalidRequest) as caught:
                await running.publish(name, "good")
            assert caught.value.code == "bad_session_id"
            assert running.sessions == {}
        assert kept(tmp_path) == set()

    stage.run(main())


def test_no_more_sessions_are_let_in_than_can_be_served(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        before = rejected("capacity")
        async with serving(tmp_path, limits={"sessions": 2}) as running:
            one = await running.create()
            await running.publish("mine", "good")
            for enter in (running.create(), running.publish(None, "good"), running.publish("other", "good")):
                with pytest.raises(CapacityError) as caught:
                    await enter
                assert (caught.value.code, caught.value.status, caught.value.retryable) == (
                    "capacity",
                    503,
                    True,
                )
                assert caught.value.retry_after > 0
            assert rejected("capacity") - before == 3
            assert len(running.sessions) == 2
            await running.delete(one.id)
            await one.over.wait()
            assert at(await running.create(), State.CREATED)

    stage.run(main())


def test_one_more_session_is_refused_where_it_would_make_the_others_late(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        before = rejected("budget")
        async with serving(tmp_path) as running:
            await running.publish("mine", "good")
            running.load_controller.force(1)
            await clock.sleep(1.0)
            running.load_controller.admit()  # it has hardly begun: what it costs is not known
            await clock.sleep(30.0)
            for enter in (running.create(), running.publish(None, "good")):
                with pytest.raises(CapacityError, match="late") as caught:
                    await enter
                assert caught.value.retry_after > 0
            assert rejected("budget") - before == 2
            running.load_controller.force(0)
            await running.create()

    stage.run(main())


def test_strain_is_told_to_live_sessions_and_not_to_what_can_wait(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.publish("mine", "good")
            patient = await running.create(speed=None)
            patient.attach(Sender(OPUS))
            running.load_controller.force(3)
            await clock.sleep(1.0)
            assert (running.find("mine").report.level, patient.report.level) == (3, 0)

    stage.run(main())


def test_a_session_counts_while_its_source_is_being_opened(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object, **__: object) -> Any:
        await clock.sleep(5.0)
        raise SourceError("no answer", code="no_answer", retryable=True)

    monkeypatch.setattr(service, "open_source", slow)

    async def main() -> None:
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            opening = asyncio.create_task(running.create("rtsp://example.org/a"))
            await clock.sleep(1.0)
            with pytest.raises(CapacityError):
                await running.create()
            with pytest.raises(SourceError):
                await opening
            await running.create()

    stage.run(main())


# --- the end --------------------------------------------------------------------------------------------------------


def test_the_end_of_the_service_is_told_and_nobody_gets_in_after_it(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.create()
            subscription = session.log.subscribe(["session.*"])
            await running.drain("update", 5.0)
            assert at(session, State.ENDED)
            told = "".join(text for _, text in await subscription.next() or [])
            assert '"session.going_away"' in told
            assert '"time_left_ms":5000.0' in told
            assert '"session.closed"' in told
            assert '"reason":"update"' in told
            with pytest.raises(CapacityError, match="going away"):
                await running.create()

    stage.run(main())


def test_a_session_that_does_not_end_is_not_waited_for_longer_than_said(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: SpeechPipeline) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(SpeechPipeline, "transcribe", never)

    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.create()
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

    monkeypatch.setattr(service, "open_source", slow)

    async def main() -> None:
        async with serving(tmp_path) as running:
            opening = asyncio.create_task(running.create("rtsp://example.org/a"))
            await clock.sleep(0.5)
            await running.drain()
            with pytest.raises(CapacityError):
                await opening
            assert source.closed == 1
            assert running.sessions == {}

    stage.run(main())


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_an_ended_session_is_readable_for_its_retention_and_then_erased(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"retention": 100.0}) as running:
            session, live = await running.create(), await running.create()
            live.attach(Sender())
            await running.delete(session.id)
            await clock.sleep(90.0)
            assert running.find(session.id) is session
            assert (await session.log.since(0, None, session.log.seq))[0]
            assert (tmp_path / session.id / "session.db").exists()
            await clock.sleep(10.0 + 2 * service._JANITOR)
            with pytest.raises(NotFound):
                running.find(session.id)
            assert not (tmp_path / session.id).exists()
            assert running.find(live.id) is live
            assert (tmp_path / live.id).exists()

    stage.run(main())


def test_of_too_many_ended_sessions_the_oldest_go_first(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_ENDED", 2)

    async def main() -> None:
        async with serving(tmp_path) as running:
            made = [await running.create() for _ in range(4)]
            for session in made:
                await running.delete(session.id)
            await clock.sleep(2 * service._JANITOR)
            assert list(running.sessions.values()) == made[2:]
            assert kept(tmp_path) == {session.id for session in made[2:]}

    stage.run(main())


async def test_a_purge_waits_until_the_end_is_written_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, writing, whole = threading.Event(), threading.Event(), Store.append

    def slow(self: Store, events: Any) -> None:
        if any(kind == "session.closed" for _, kind, *_ in events):
            writing.set()
            free.wait(5.0)
        whole(self, events)

    monkeypatch.setattr(Store, "append", slow)
    async with serving(tmp_path) as running:
        session = await running.create()
        subscription = session.log.subscribe(["session.closed"])
        erasing = asyncio.create_task(running.delete(session.id, purge=True))
        await asyncio.to_thread(writing.wait, 5.0)
        done, _ = await asyncio.wait({erasing}, timeout=0.1)
        assert not done
        free.set()
        await erasing
        assert await subscription.next()
        assert await subscription.next() is None
        assert running.sessions == {}
    assert kept(tmp_path) == set()


def test_a_session_that_is_not_to_be_stored_never_touches_the_disk(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            session = await running.create(no_store=True)
            await clock.sleep(2.0)
            await running.delete(session.id)
            await session.over.wait()
            assert kept(tmp_path) == set()

    stage.run(main())


def test_a_name_used_again_after_a_restart_shows_nothing_of_the_earlier_session(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    earlier = Store(tmp_path / "mine", events=10, frames=10)
    earlier.put_frame(100.0, b"an old picture")
    earlier.close(purge=False)

    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.publish("mine", "good")
            assert running.find("mine").store.frame(1000.0) is None

    stage.run(main())


def test_a_name_never_reaches_a_folder_that_is_not_a_session_s(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"dear")

    async def main() -> None:
        async with serving(tmp_path) as running:
            for offer in ("good", "bad"):
                with pytest.raises(Conflict) as caught:
                    await running.publish("holiday", offer)
                assert caught.value.code == "name_taken"
            assert running.sessions == {}

    stage.run(main())
    assert (tmp_path / "holiday" / "beach.jpg").read_bytes() == b"dear"


# --- sources --------------------------------------------------------------------------------------------------------


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
                await running.create(f"file:{source}" if source else "", roots=(opened,))
            assert isinstance(caught.value, StreamsvcError)
            assert (caught.value.code, caught.value.status) == (code, status)
            assert caught.value.message
            assert rejected(code) - before == 1
        assert running.sessions == {}
        assert running._opening == 0
    assert kept(data) == set()


async def test_a_source_plays_to_its_end_and_its_tracks_are_known_at_once(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=2.0)
    async with serving(tmp_path / "data") as running:
        session = await running.create(str(path), speed=None, roots=None, no_store=True)
        assert session.describe()["tracks"] == ["audio"]
        assert session.describe()["state"] == "live"
        async with asyncio.timeout(20):
            await session.over.wait()
        assert session.failure() is None
        assert " ".join(cue.text for cue in session.cues).startswith("La la")


async def test_a_deleted_session_lets_its_source_go(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=30.0)
    async with serving(tmp_path / "data") as running:
        session = await running.create(str(path), roots=None)
        await running.delete(session.id, purge=True)
        assert session.publisher is None
        assert running.sessions == {}


async def test_the_failure_of_one_session_is_its_own_and_its_text_is_not_logged(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=2.0)

    def broken(*_: object) -> Any:
        raise RuntimeError("somebody said a secret")

    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path / "data") as running:
            other = await running.create()
            session = await running.create(str(path), speed=None, roots=None)
            session.ear._heard = broken  # type: ignore[method-assign,assignment]
            async with asyncio.timeout(20):
                await session.over.wait()
            assert at(other, State.CREATED)
    assert session.failure() is not None
    assert any(entry["event"] == "session failed" and "RuntimeError" in entry["error"] for entry in logs)
    assert "secret" not in str([{**entry, "exc_info": None} for entry in logs]), (
        "exc_info is told by its places alone"
    )


# --- publishers -----------------------------------------------------------------------------------------------------


def test_a_publisher_makes_its_session_and_a_second_one_is_refused(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            publication = await running.publish("mine", "good")
            session = running.find("mine")
            assert at(session, State.LIVE)
            assert running.publications == {publication.resource: publication}
            with pytest.raises(Conflict) as caught:
                await running.publish("mine", "good")
            assert (caught.value.code, caught.value.status) == ("already_publishing", 409)
            assert len(peers) == 1, "the second was not even answered"
            assert session.publisher is peers[0]

    stage.run(main())


def test_a_publisher_that_comes_back_within_the_window_goes_on_and_after_it_begins_anew(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            publication = await running.publish("mine", "good")
            session = running.find("mine")
            await running.unpublish(publication.resource)
            assert at(session, State.STALLED)
            assert peers[0].closed
            with pytest.raises(NotFound) as caught:
                await running.unpublish(publication.resource)
            assert caught.value.code == "no_publication"
            await running.publish("mine", "good")
            assert at(session, State.LIVE)
            peers[1].tell("closed", "left")
            await clock.sleep(31.0)
            assert at(session, State.ENDED)
            await running.publish("mine", "good")
            anew = running.find("mine")
            assert anew is not session
            assert at(anew, State.LIVE)
            assert anew.log.epoch != session.log.epoch

    stage.run(main())


def test_a_publisher_that_ends_by_itself_is_forgotten_and_a_failed_connection_counted(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        before = metrics.ice_failures.labels("handshake")._value.get()
        async with serving(tmp_path) as running:
            await running.publish("mine", "good")
            peers[0].tell("closed", "handshake")
            await asyncio.sleep(0.1)
            assert running.publications == {}
            assert peers[0].closed
            assert at(running.find("mine"), State.STALLED)
        assert metrics.ice_failures.labels("handshake")._value.get() - before == 1

    stage.run(main())


def test_the_publication_of_a_deleted_session_is_forgotten(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.publish("mine", "good")
            await running.delete("mine")
            await asyncio.sleep(1.0)
            assert peers[0].closed
            assert running.publications == {}

    stage.run(main())


OFFER = (Path(__file__).parents[1] / "fixtures" / "obs.sdp").read_text()


@pytest.mark.parametrize(
    ("offer", "status", "code"),
    [
        ("no SDP at all", 400, "malformed_sdp"),
        (OFFER[:300], 422, "no_media"),
        (OFFER.replace("a=sendonly", "a=recvonly"), 422, "no_media"),
        (OFFER.replace("H264/90000", "AV1/90000"), 422, "no_supported_codec"),
    ],
)
async def test_an_offer_that_cannot_be_answered_leaves_nothing_and_its_name_free(
    tmp_path: Path, offer: str, status: int, code: str
) -> None:
    async with serving(tmp_path) as running:
        for _ in range(2):
            with pytest.raises(StreamsvcError) as caught:
                await running.publish("mine", offer)
            assert (caught.value.status, caught.value.code) == (status, code)
            assert caught.value.message
            assert running.sessions == {}
            assert kept(tmp_path) == set()
        with pytest.raises(StreamsvcError):
            await running.publish((await running.create()).id, offer)
        assert [session.state for session in running.sessions.values()] == [State.CREATED], (
            "a session made before goes on"
        )


def test_an_offer_that_fails_late_does_not_end_what_another_has_begun(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            failing = asyncio.create_task(running.publish("mine", "bad"))
            await asyncio.sleep(0.5)
            await running.publish("mine", "good")
            with pytest.raises(InvalidRequest):
                await failing
            await asyncio.sleep(0.5)
            assert at(running.find("mine"), State.LIVE)

    stage.run(main())


async def test_all_sessions_look_through_one_memory_of_pictures(tmp_path: Path) -> None:
    async with Service(config.load(None, server={"data_dir": tmp_path}), at_once=()) as running:
        assert isinstance(running.roles.see, LookCache)
        assert not isinstance(running.roles.hear, LookCache)


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
        running.roles = replace(Models().roles(), sight=model)
        for adapter in ("legal", "empty", "not a name", "../medical", ""):
            with pytest.raises(InvalidRequest, match="there are: medical") as refused:
                await running.create(adapter=adapter)
            assert refused.value.code == "no_adapter"
        assert running.sessions == {}
        session = await running.create(adapter="medical")
        model.affinity = session.id
        assert session.eye.seer is not None
        question = Question("q", "What colour is the car?", 0.0, clock.now() + 30.0, image=jpeg("sent"))
        assert [clause.text async for clause in session.eye.seer.clauses(question, "look", words=33)] == [
            "A red car."
        ]
        assert [asked["adapter"] for asked in model.asked] == ["medical"]
    async with serving(tmp_path / "data") as running:
        with pytest.raises(InvalidRequest, match="of the profile gpu"):
            await running.create(adapter="medical")


async def test_a_hangover_that_cannot_be_opens_no_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        for seconds in (0.05, 6.0):
            with pytest.raises(InvalidRequest) as refused:
                await running.create(hangover=seconds)
            assert refused.value.code == "bad_hangover"
        assert running.sessions == {}
        await running.create(hangover=5.0)
