"""Publishers by stream key: who is admitted, what holds a place, and how a publication ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import (
    CapacityError,
    Conflict,
    Forbidden,
    InvalidRequest,
    RateLimited,
    SourceError,
    Unauthorized,
)
from streamsvc.core.types import EncodedFrame, Grants
from streamsvc.ingest.source import SourceSink
from streamsvc.service.auth import LOCAL
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from streamsvc.service.stream_keys import StreamKey, StreamPublication, parse, token_of
from tests.builders.fake_service import at, kept, rejected, serving
from tests.builders.session import Sender, sends

KEY = "a-key-of-this-test"
OPEN = Grants("local", "*", frozenset({"publish"}), None, LOCAL)


class Live(Sender):
    """A source that is live until it is left or closed. `opening`: set once it may be opened."""

    def __init__(self) -> None:
        super().__init__()
        self.duration: float | None = None
        self.opening, self.left = asyncio.Event(), asyncio.Event()
        self.opening.set()
        self.failure: SourceError | None = None

    async def opened(self, session: str) -> Live:
        await self.opening.wait()
        if self.failure is not None:
            raise self.failure
        return self

    async def run(self, sink: SourceSink) -> None:
        at = max(0.0, clock.now() - sink.zero())
        sink.tap(EncodedFrame("s", "main", at, clock.now(), "audio", b"\xf8\xff\xfe", "opus", True))
        await self.left.wait()

    async def close(self) -> None:
        await super().close()
        self.left.set()


class Leaving(Live):
    """One that ends as sources do: decoders have every frame first."""

    async def run(self, sink: SourceSink) -> None:
        await super().run(sink)
        await sink.taken()


async def published(running: Service, source: Live, name: str = "mine") -> StreamPublication:
    return await running.stream_publishers.publish("rtmp", name, OPEN, "10.0.0.1", source.opened)


def test_a_key_is_a_name_and_perhaps_a_token_which_is_never_shown() -> None:
    assert parse("studio") == StreamKey("studio", "")
    key = parse("studio?x=1&token=a%2Fb")
    assert (key.name, key.token) == ("studio", "a/b")
    assert "a/b" not in repr(key)
    assert token_of("?token=t") == token_of("token=t") == "t"
    for wrong in ("", "?token=a", "a/b", "a b?token=x", "x" * 41):
        with pytest.raises(InvalidRequest) as caught:
            parse(wrong)
        assert caught.value.code == "bad_session_id"


def test_grants_decide_and_wrong_keys_of_an_address_are_counted(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        limits = {"failures_per_minute": 3}
        async with serving(tmp_path, server={"api_key": KEY}, limits=limits) as running:
            check = running.stream_publishers.check
            owner = check(StreamKey("mine", KEY), "10.0.0.1")
            token = running.auth.token(owner, session="mine", may=("publish",), seconds=60).token
            reader = running.auth.token(owner, session="mine", may=("subscribe",), seconds=60).token
            assert check(StreamKey("mine", token), "10.0.0.1").session == "mine"
            with pytest.raises(Forbidden):
                check(StreamKey("other", token), "10.0.0.1")
            with pytest.raises(Forbidden):
                check(StreamKey("mine", reader), "10.0.0.1")
            assert check(StreamKey("mine", reader), "10.0.0.1", "subscribe").session == "mine"
            for wrong in ("", "wrong", token[:-1]):
                with pytest.raises(Unauthorized):
                    check(StreamKey("mine", wrong), "10.0.0.2")
            with pytest.raises(RateLimited):
                check(StreamKey("mine", "wrong"), "10.0.0.2")
            assert check(StreamKey("mine", KEY), "10.0.0.2"), "a right key is never refused for wrong ones"

    stage.run(main())


def test_a_place_is_held_from_admission_on_and_a_second_publisher_is_refused(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits={"sessions": 1}) as running:
            source, second = Live(), Live()
            source.opening.clear()
            publication = await published(running, source)
            session = running.sessions.find("mine")
            assert publication.session == session.id
            with pytest.raises(Conflict) as caught:
                await published(running, second)
            assert caught.value.code == "already_publishing"
            before = rejected("capacity")
            with pytest.raises(CapacityError):
                await published(running, second, "other")
            assert rejected("capacity") - before == 1
            source.opening.set()
            await asyncio.sleep(0.1)
            assert at(session, State.LIVE)
            assert set(running.sessions.by_id) == {session.id}

    stage.run(main())


def test_a_publisher_that_leaves_and_comes_back_goes_on_with_its_session(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            first, again = Live(), Live()
            publication = await published(running, first)
            await asyncio.sleep(0.1)
            session = running.sessions.find("mine")
            first.left.set()
            await publication.over.wait()
            assert (publication.why, first.closed) == ("publisher_left", 1)
            assert at(session, State.STALLED)
            second = await published(running, again)
            await asyncio.sleep(0.1)
            assert second.session == session.id
            assert at(session, State.LIVE)
            second.stop("publisher_left")
            await second.over.wait()
            assert again.closed
            await clock.sleep(running.settings.ingest.resume_seconds + 1.0)
            assert at(session, State.ENDED)
            third = Live()
            anew = await published(running, third)
            assert anew.session != session.id

    stage.run(main())


def test_one_that_comes_back_takes_over_once_its_old_connection_is_silent_and_nobody_else_does(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, server={"api_key": KEY}) as running:
            publishers = running.stream_publishers
            owner = publishers.check(StreamKey("mine", KEY), "")
            tokens = [running.auth.token(owner, session="mine", may=("publish",), seconds=600) for _ in "ab"]
            mine, another = (publishers.check(StreamKey("mine", made.token), "") for made in tokens)
            first, early, again = Live(), Live(), Live()

            async def came(grants: Grants, source: Live) -> StreamPublication:
                publication = await publishers.publish("srt", "mine", grants, "", source.opened)
                await asyncio.sleep(0.1)
                return publication

            old = await came(mine, first)
            session = running.sessions.find("mine")
            with pytest.raises(Conflict):
                await came(mine, early)
            await clock.sleep(running.settings.ingest.takeover_seconds)
            for other in (another, owner):
                with pytest.raises(Conflict):
                    await came(other, early)
            new = await came(mine, again)
            assert (old.why, first.closed) == ("taken_over", 1)
            assert session.media.publisher is again
            assert at(session, State.LIVE)
            assert not new.over.is_set()
            with pytest.raises(Conflict):
                await came(mine, early)
            again.left.set()
            await new.over.wait()
            assert running.sessions.resolve("mine") == session.id == new.session

    stage.run(main())


def test_one_whose_old_connection_is_alive_again_does_not_take_over(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            first, again = Live(), Live()
            old = await published(running, first)
            await clock.sleep(2.0)
            again.opening.clear()
            new = await published(running, again)
            sends(running.sessions.find("mine"))
            again.opening.set()
            await new.over.wait()
            assert (new.why, again.closed) == ("already_publishing", 1)
            assert not old.over.is_set()

    stage.run(main())


def test_a_publisher_has_left_before_the_last_that_it_sent_is_decoded(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            decoded = asyncio.Event()
            first, again = Leaving(), Live()
            old = await published(running, first)
            session = running.sessions.find("mine")
            monkeypatch.setattr(session.media, "wait_until_taken", decoded.wait)
            await asyncio.sleep(0.1)
            first.left.set()
            await asyncio.sleep(0.1)
            assert (session.media.publisher, first.closed) == (None, 0)
            new = await published(running, again)
            await asyncio.sleep(0.1)
            assert at(session, State.LIVE)
            decoded.set()
            await old.over.wait()
            assert (old.why, first.closed) == ("publisher_left", 1)
            assert session.media.publisher is again and not new.over.is_set()

    stage.run(main())


def test_of_a_source_that_never_opens_nothing_is_left(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            broken, waiting = Live(), Live()
            broken.failure = SourceError("no", code="no_media")
            publication = await published(running, broken)
            await publication.over.wait()
            assert publication.why == "no_media"
            waiting.opening.clear()
            stopped = await published(running, waiting)
            stopped.stop("publisher_left")
            await stopped.over.wait()
            await asyncio.sleep(0.1)
            assert running.sessions.by_id == {}
            assert running.sessions.places.taken == 0
        assert kept(tmp_path) == set()

    stage.run(main())


def test_a_publication_ends_with_its_token_and_with_its_session(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, server={"api_key": KEY}) as running:
            publishers, source, other = running.stream_publishers, Live(), Live()
            owner = publishers.check(StreamKey("mine", KEY), "")
            made = running.auth.token(owner, session="mine", may=("publish",), seconds=60)
            grants = publishers.check(StreamKey("mine", made.token), "")
            publication = await publishers.publish("rtmp", "mine", grants, "", source.opened)
            await asyncio.sleep(0.1)
            assert running.sessions.find("mine").holder == grants.holder
            running.auth.revoke(owner, made.id)
            running.started.sweep()
            await publication.over.wait()
            assert (publication.why, source.closed) == ("token_revoked", 1)
            deleted = await publishers.publish("rtmp", "other", owner, "", other.opened)
            await asyncio.sleep(0.1)
            await running.sessions.delete("other")
            await deleted.over.wait()
            assert other.closed

    stage.run(main())
