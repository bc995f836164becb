"""A place is held by a publisher alone, and those who wait for one are few."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError
from streamsvc.service.media_input import State
from streamsvc.service.places import holds
from tests.builders.fake_service import Peer, at, rejected, serving
from tests.builders.session import Sender, sends


def test_a_session_holds_a_place_from_its_publisher_to_its_end(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            waiting = [await running.sessions.create() for _ in range(5)]
            session = waiting[0]
            with running.sessions.place(session):
                with pytest.raises(CapacityError), running.sessions.place(waiting[1]):
                    raise AssertionError("there was one place, and somebody is coming to it")
                session.media.attach(Sender())
            sends(session)
            with pytest.raises(CapacityError), running.sessions.place(waiting[1]):
                raise AssertionError("the place is taken")
            session.media.detach("left")
            assert holds(session), "it waits for its publisher to come back"
            assert running.sessions.places.taken == 1, "those who wait for their first one hold none"
            with running.sessions.place(session):
                session.media.attach(Sender())
            session.end("ended")
            await session.over.wait()
            assert not holds(session)
            with running.sessions.place(waiting[1]):
                pass

    stage.run(main())


def test_a_place_that_was_not_taken_is_free(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            for _ in range(2):
                with pytest.raises(ValueError, match="no answer"), running.sessions.place():
                    raise ValueError("no answer")

    stage.run(main())


def test_those_who_wait_are_bounded_for_each_holder_and_in_all(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        before = rejected("unpublished")
        limits = {"unpublished": 5, "unpublished_per_holder": 3, "unpublished_seconds": 60.0}
        async with serving(tmp_path, limits=limits) as running:
            made = [await running.sessions.create(holder="mallory") for _ in range(3)]
            with pytest.raises(CapacityError) as caught:
                await running.sessions.create(holder="mallory")
            assert (caught.value.code, caught.value.status) == ("too_many_unpublished", 503)
            for _ in range(2):
                await running.sessions.create(holder="alice")
            with pytest.raises(CapacityError):
                await running.sessions.create(holder="bob")
            assert rejected("unpublished") - before == 2
            made[0].media.attach(Sender())
            await running.sessions.create(holder="bob")
            await clock.sleep(61.0)
            assert [session.state for session in made] == [State.LIVE, State.ENDED, State.ENDED]
            for _ in range(3):
                assert at(await running.sessions.create(holder="mallory"), State.CREATED)

    stage.run(main())


def test_one_token_with_those_made_with_it_has_its_share_of_places(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        before = rejected("token_share")
        async with serving(tmp_path, limits={"sessions": 6, "sessions_per_token": 2}) as running:
            taken = [await running.sessions.create(holder=f"mallory.{child}") for child in range(3)]
            for session in taken[:2]:
                with running.sessions.place(session):
                    session.media.attach(Sender())
            with pytest.raises(CapacityError) as caught, running.sessions.place(taken[2]):
                raise AssertionError("the token has its share")
            assert caught.value.code == "too_many_of_token"
            with pytest.raises(CapacityError), running.sessions.place(holder="mallory"):
                raise AssertionError("also for a new session")
            assert rejected("token_share") - before == 2
            place = running.sessions.place
            coming = place(holder="alice"), place(holder="alice"), place(holder="alice")
            with coming[0], coming[1], pytest.raises(CapacityError), coming[2]:
                raise AssertionError("those whose source is being opened count too")
            taken[0].end("ended")
            await taken[0].over.wait()
            with place(taken[2]), place(holder="owner"), place(holder="owner"), place(holder="owner"):
                pass

    stage.run(main())


def test_tokens_made_with_one_token_share_its_waiting_sessions(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits={"unpublished_per_holder": 3}) as running:
            for child in range(3):
                await running.sessions.create(holder=f"mallory.{child}")
            with pytest.raises(CapacityError):
                await running.sessions.create(holder="mallory.more")
            await running.sessions.create(holder="alice")

    stage.run(main())


def test_those_who_wait_keep_no_publisher_out_and_the_owner_has_no_share(
    stage: asyncio.Runner, tmp_path: Path, peers: list[Peer]
) -> None:
    async def main() -> None:
        limits = {"unpublished": 6, "unpublished_per_holder": 2}
        async with serving(tmp_path, limits=limits) as running:
            for holder in ("mallory", "mallory", "eve", "eve", "owner", "owner"):
                await running.sessions.create(holder=holder)
            with pytest.raises(CapacityError):
                await running.sessions.create(holder="alice")
            await running.publications.publish("talk", "good", "alice")
            assert at(running.sessions.find("talk"), State.LIVE)
            with pytest.raises(CapacityError) as caught:
                await running.publications.publish("more", "good", "mallory")
            assert caught.value.code == "too_many_unpublished", "it has its share"
        async with serving(tmp_path / "open", limits=limits) as running:
            for holder in ("owner", "local", "owner", "local", "owner", "local"):
                await running.sessions.create(holder=holder)

    stage.run(main())
