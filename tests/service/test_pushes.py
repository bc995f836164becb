"""Caption pushes of a session are bounded, distinct, listed until they are deleted, and stopped with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamsvc.core.errors import CapacityError, Conflict, NotFound
from streamsvc.events.caption_push import parse_target
from tests.builders.fake_service import serving
from tests.fakes.http_receiver import listening


def test_pushes_are_bounded_and_distinct_and_end_with_their_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            listening() as receiver,
            serving(tmp_path, limits={"pushes": 2}, server={"private_urls": True}) as running,
        ):
            session = await running.sessions.create()
            one, other, another = (
                parse_target("zoom", f"{receiver.url}/{name}?k=1", "en-US") for name in "abc"
            )
            first = await running.pushes.add(session.id, one)
            with pytest.raises(Conflict) as refused:
                await running.pushes.add(session.id, one)
            assert refused.value.code == "already_pushed"
            second = await running.pushes.add(session.id, other)
            with pytest.raises(CapacityError):
                await running.pushes.add(session.id, another)
            assert await running.pushes.all(session.id) == [first, second]
            assert running.pushes.running
            await running.pushes.remove(session.id, first.id)
            with pytest.raises(NotFound):
                await running.pushes.remove(session.id, first.id)
            await running.sessions.delete(session.id, purge=True)
            async with asyncio.timeout(5):
                while not second.over:  # noqa: ASYNC110  # a push has no event for its end
                    await asyncio.sleep(0.01)
            with pytest.raises(NotFound):
                await running.pushes.all(session.id)
            assert not running.pushes.running

    asyncio.run(main())


def test_an_ended_session_takes_no_push(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            listening() as receiver,
            serving(tmp_path, server={"private_urls": True}) as running,
        ):
            session = await running.sessions.create()
            session.end("ended")
            await session.over.wait()
            with pytest.raises(Conflict) as refused:
                await running.pushes.add(session.id, parse_target("zoom", f"{receiver.url}/a?k=1", "en-US"))
            assert refused.value.code == "session_ended"

    asyncio.run(main())


async def test_the_pushes_of_a_session_that_is_on_disk_alone_are_none(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        await running.sessions.create(name="talk")
    async with serving(tmp_path) as running:
        assert await running.pushes.all("talk") == []
        with pytest.raises(NotFound) as caught:
            await running.pushes.remove("talk", "p")
        assert caught.value.code == "no_push"
