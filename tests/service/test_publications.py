"""A publisher makes or continues a session, and a failed offer leaves nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.errors import (
    CapacityError,
    Conflict,
    InvalidRequest,
    NotFound,
    StreamsvcError,
)
from streamsvc.service.capacity import Room
from streamsvc.service.media_input import MediaInput, State
from tests.builders.fake_service import Peer, at, kept, serving
from tests.builders.session import sends

OFFER = (Path(__file__).parents[1] / "fixtures" / "obs.sdp").read_text()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 65, "a\0", "~", "a\\b"])
def test_a_name_that_is_no_id_is_refused(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer], name: str
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            with pytest.raises(InvalidRequest) as caught:
                await running.publications.publish(name, "good")
            assert caught.value.code == "bad_session_id"
            assert running.sessions.by_id == {}
        assert kept(tmp_path) == set()

    stage.run(main())


def test_a_publisher_makes_its_session_and_a_second_one_is_refused(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            publication = await running.publications.publish("mine", "good")
            session = running.sessions.find("mine")
            assert at(session, State.LIVE)
            assert running.publications.by_resource == {publication.resource: publication}
            assert len(publication.resource) >= 22, "128 bits: whoever guesses it ends the publication"
            with pytest.raises(Conflict) as caught:
                await running.publications.publish("mine", "good")
            assert (caught.value.code, caught.value.status) == ("already_publishing", 409)
            assert len(peers) == 1, "the second was not even answered"
            assert session.media.publisher is peers[0]

    stage.run(main())


def test_a_publisher_whose_media_have_stopped_may_come_from_elsewhere(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            first = await running.publications.publish("mine", "good")
            session = running.sessions.find("mine")
            sends(session)
            peers[0].tell("stalled", "silence")
            with pytest.raises(InvalidRequest):
                await running.publications.publish("mine", "bad")
            assert session.media.publisher is peers[0], "an offer without an answer replaces nothing"
            second = await running.publications.publish("mine", "good")
            assert session is running.sessions.find("mine")
            assert at(session, State.LIVE)
            assert session.media.publisher is peers[-1]
            await clock.sleep(1.0)
            assert peers[0].closed
            assert running.publications.by_resource == {second.resource: second}
            with pytest.raises(NotFound):
                await running.publications.unpublish(first.resource)
            with pytest.raises(Conflict):
                await running.publications.publish("mine", "good")

    stage.run(main())


def test_a_publisher_that_comes_back_within_the_window_goes_on_and_after_it_begins_anew(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            publication = await running.publications.publish("mine", "good")
            session = running.sessions.find("mine")
            sends(session)
            await running.publications.unpublish(publication.resource)
            assert at(session, State.STALLED)
            assert peers[0].closed
            with pytest.raises(NotFound) as caught:
                await running.publications.unpublish(publication.resource)
            assert caught.value.code == "no_publication"
            await running.publications.publish("mine", "good")
            assert at(session, State.LIVE)
            peers[1].tell("closed", "left")
            await clock.sleep(31.0)
            assert at(session, State.ENDED)
            again = await running.publications.publish("mine", "good")
            anew = running.sessions.find("mine")
            assert anew is running.sessions.find(again.session)
            assert at(anew, State.LIVE)
            assert anew.log.epoch != session.log.epoch
            assert running.sessions.find(session.id) is session, "the first broadcast stays"
            assert kept(tmp_path) == {session.id, anew.id}
            with pytest.raises(Conflict, match="/whip/mine begins another"):
                await running.publications.publish(session.id, "good")
            with pytest.raises(InvalidRequest):  # no door leads to another one's broadcasts
                await running.sessions.create(name=session.id)

    stage.run(main())


def test_an_offer_that_nobody_connects_for_is_counted_and_frees_its_place_at_once(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        before = metrics.ice_failures.labels("handshake")._value.get()
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            await running.publications.publish("mine", "good")
            session = running.sessions.find("mine")
            with pytest.raises(CapacityError):
                await running.publications.publish("other", "good")
            assert set(running.sessions.by_id) == {session.id}, "nothing is begun without a place"
            peers[0].tell("closed", "handshake")
            assert at(session, State.CREATED)
            await asyncio.sleep(0.1)
            assert running.publications.by_resource == {}
            assert peers[0].closed
            await running.publications.publish("other", "good")
            peers[1].tell("closed", "failed")
            await running.publications.publish("mine", "good")
            assert at(session, State.LIVE), "one that tries again finds its session"
            peers[2].tell("closed", "left")
            await clock.sleep(running.settings.ingest.resume_seconds + 1.0)
            assert at(session, State.ENDED)
            assert not running.sessions.live
        assert metrics.ice_failures.labels("handshake")._value.get() - before == 1

    stage.run(main())


def test_the_publication_of_a_deleted_session_is_forgotten(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.publications.publish("mine", "good")
            await running.sessions.delete("mine")
            await asyncio.sleep(1.0)
            assert peers[0].closed
            assert running.publications.by_resource == {}

    stage.run(main())


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
                await running.publications.publish("mine", offer)
            assert (caught.value.status, caught.value.code) == (status, code)
            assert caught.value.message
            assert running.sessions.by_id == {}
            assert kept(tmp_path) == set()
        with pytest.raises(StreamsvcError):
            await running.publications.publish((await running.sessions.create()).id, offer)
        assert [session.state for session in running.sessions.by_id.values()] == [State.CREATED], (
            "a session made before goes on"
        )


def test_an_offer_that_fails_late_does_not_end_what_another_has_begun(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            failing = asyncio.create_task(running.publications.publish("mine", "bad"))
            await asyncio.sleep(0.5)
            await running.publications.publish("mine", "good")
            with pytest.raises(InvalidRequest):
                await failing
            await asyncio.sleep(0.5)
            assert at(running.sessions.find("mine"), State.LIVE)

    stage.run(main())


def test_the_peer_of_a_publisher_that_is_refused_after_its_answer_is_closed(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(media: MediaInput, publisher: object) -> None:
        raise Conflict("another one was quicker", code="already_publishing")

    async def main() -> None:
        async with serving(tmp_path) as running:
            monkeypatch.setattr(MediaInput, "attach", refuse)
            with pytest.raises(Conflict):
                await running.publications.publish("mine", "good")
            assert [peer.closed for peer in peers] == [1]

    stage.run(main())


def test_the_end_of_a_session_removes_its_publications_and_one_task_watches_them_all(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            for _ in range(5):
                publication = await running.publications.publish("mine", "good")
                await running.publications.unpublish(publication.resource)
            await running.publications.publish("mine", "good")
            assert len(running.publications._watched) == 1
            session = running.sessions.find("mine")
            session.end("ended")
            await session.over.wait()
            await asyncio.sleep(0)
            assert running.publications.by_resource == {}
            assert running.publications._owners == {}
            assert running.publications._watched == set()

    stage.run(main())


def test_a_broadcast_that_is_ending_does_not_keep_the_next_one_of_its_name_away(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            first = await running.publications.publish("mine", "good")
            session = running.sessions.find("mine")
            session.end("deleted")
            second = await running.publications.publish("mine", "good")
            assert second.session != first.session
            assert running.sessions.resolve("mine") == second.session
            await session.over.wait()
            assert running.sessions.resolve("mine") == second.session

    stage.run(main())


def test_those_who_offer_much_and_never_connect_are_refused_and_others_are_not(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits={"unpublished_per_holder": 2}) as running:
            for _ in range(2):
                await running.publications.publish(None, "good", "mallory")
                peers[-1].tell("closed", "handshake")
            with pytest.raises(CapacityError) as caught:
                await running.publications.publish(None, "good", "mallory")
            assert caught.value.code == "too_many_unpublished"
            assert len(running.sessions.by_id) == len(peers) == 2
            await running.publications.publish(None, "good", "alice")
            await clock.sleep(running.settings.ingest.resume_seconds + 1.0)
            await running.publications.publish(None, "good", "mallory")

    stage.run(main())


def test_where_pictures_do_not_fit_an_offer_of_sound_alone_does_and_no_peer_is_made_of_the_other(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            fits = Room({"audio": 1, "audio_video": 0}, "cpu")
            monkeypatch.setattr(running.load_controller, "room", lambda coming: fits)
            assert running.sessions.room() == fits
            with pytest.raises(CapacityError):
                await running.publications.publish("mine", "m=audio 9 x\r\nm=video 9 x\r\n")
            assert peers == [] and running.sessions.by_id == {}
            with pytest.raises(InvalidRequest):  # as far as the stand-in for peers goes: it was let in
                await running.publications.publish("mine", "m=audio 9 x\r\nm=video 0 x\r\n")

    stage.run(main())


def test_nothing_fits_while_the_service_drains_and_the_settings_bound_what_the_load_allows(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            assert running.sessions.room() == Room({"audio": 1, "audio_video": 1}, "limit")
            with running.sessions.place():
                assert running.sessions.room() == Room({"audio": 0, "audio_video": 0}, "limit")
            running.sessions.draining = True
            assert running.sessions.room() == Room({"audio": 0, "audio_video": 0}, "draining")

    stage.run(main())
