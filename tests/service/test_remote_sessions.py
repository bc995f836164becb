"""Sessions of other nodes are read at any node: events that resume, captions, search, pictures, their end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.errors import CapacityError, ClusterUnavailable, NotFound
from streamsvc.core.options import SessionOptions
from streamsvc.core.types import Keyframe, VideoFrame
from streamsvc.events.subscription import Subscription
from streamsvc.service import remote_sessions
from streamsvc.service.media_input import State
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.nodes import eventually, node, pair, published, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.units import cue


async def texts(subscription: Subscription, count: int) -> list[dict[str, Any]]:
    """So many events, as a subscriber is sent them."""
    got: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while len(got) < count:
            got += [json.loads(text) for _, text in await subscription.next() or ()]
    return got


async def test_what_was_said_at_one_node_is_read_at_another(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        session.dispatch(cue("the kettle boils", 1.0))
        await session.store_frame(2.0, b"\xff\xd8\xff a picture")
        frame = VideoFrame("s", "main", 2.0, 0.0, None, 0, 0)
        session.dispatch(Keyframe("s", "main", 2.0, 0.0, frame, "first"))
        await session.log.flush()
        base = "/v1/sessions/talk"
        told = (await two.client.get(base)).json()
        assert (told["id"], told["state"], told["tracks"]) == (session.id, "live", ["audio"])
        assert "the kettle boils" in (await two.client.get(f"{base}/captions.vtt")).text
        assert "the kettle boils" in (await two.client.get(f"{base}/export.md")).text
        hits = (await two.client.get(f"{base}/search", params={"q": "kettle"})).json()
        assert [hit["text"] for hit in hits][:1] == ["the kettle boils"]
        picture = await two.client.get(f"{base}/frames/2.5.jpg")
        assert (picture.status_code, picture.content) == (200, b"\xff\xd8\xff a picture")
        assert (await two.client.get(f"{base}/hls/captions.m3u8")).status_code == 200
        followed = await two.session("talk")
        assert abs(followed.clock.position() - session.clock.position()) < 2.0
        session.dispatch(cue("and then tea", 3.0))
        await until(lambda: len(followed.dispatcher.cues) == 2)
        assert "and then tea" in (await two.client.get(f"{base}/captions.srt")).text
        assert two.service.sessions.by_id == {}, "it takes no place here"


async def test_a_subscriber_at_another_node_resumes_and_misses_nothing(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        for second in range(5):
            session.dispatch(cue(f"word{second}", float(second)))
        await session.log.flush()
        followed = await two.session("talk")
        assert (followed.log.epoch, followed.log.seq) == (session.log.epoch, session.log.seq)
        missed, gap = await followed.log.since(2, session.log.epoch, followed.log.seq)
        assert gap is None
        assert [entry.seq for entry in missed] == list(range(3, session.log.seq + 1))
        here = session.log.subscribe()
        there = followed.log.subscribe()
        session.dispatch(cue("now and", 6.0, final=False))
        for second in range(7, 12):
            session.dispatch(cue(f"later{second}", float(second)))
        said = [event for event in await texts(here, 6) if event["type"] == "caption.final"]
        read = await texts(there, 5)
        finals = [event for event in read if event["type"] == "caption.final"]
        assert [event["seq"] for event in finals] == [event["seq"] for event in said]
        assert [event["text"] for event in finals] == [f"later{second}" for second in range(7, 12)]
        for log, subscription in ((session.log, here), (followed.log, there)):
            log.unsubscribe(subscription)


async def test_events_that_are_not_kept_and_private_ones_reach_those_that_they_are_for(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        await session.log.flush()
        followed = await two.session("talk")
        asker = followed.log.subscribe(["caption.partial", "session.flushed"], "asker")
        other = followed.log.subscribe(["caption.partial", "session.flushed"], "other")

        async def growing() -> None:
            while True:  # until the owner knows that it is followed, it passes on nothing
                session.dispatch(cue("so far", 1.0, final=False))
                await asyncio.sleep(0.05)

        task = asyncio.create_task(growing())
        try:
            for subscription in (asker, other):
                (first, *_) = await texts(subscription, 1)
                assert (first["type"], first["text"]) == ("caption.partial", "so far")
                assert "seq" not in first
        finally:
            task.cancel()
        session.log.emit("session.flushed", {}, audience="asker")
        session.log.emit("session.flushed", {}, audience="other")
        await session.log.flush()
        await until(lambda: followed.log.seq == session.log.seq)
        for subscription in (asker, other):
            got = [event for event in await texts(subscription, 1) if event["type"] != "caption.partial"]
            while not got:
                got = [e for e in await texts(subscription, 1) if e["type"] != "caption.partial"]
            assert len(got) == 1, "each its own alone"
            followed.log.unsubscribe(subscription)


async def test_a_followed_session_stalls_resumes_and_ends_with_its_owner(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        await session.log.flush()
        followed = await two.session("talk")
        peers[0].tell("stalled", "no media")
        await until(lambda: followed.state is State.STALLED)
        peers[0].tell("resumed", "media")
        await until(lambda: followed.state is State.LIVE)
        subscription = followed.log.subscribe(["session.*"])
        session.end("deleted")
        await session.over.wait()
        assert [event["type"] for event in await texts(subscription, 1)] == ["session.closed"]
        assert await subscription.next() is None
        followed.log.unsubscribe(subscription)
        await until(lambda: followed.state is State.ENDED)
        stats = (await two.client.get("/v1/sessions/talk/stats")).json()
        assert stats["state"] == "ended"


async def test_a_dead_nodes_session_is_stalled_within_a_lease(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        await session.log.flush()
        followed = await two.session("talk")
        assert followed.state is State.LIVE
        one.cut_off()
        await until(lambda: followed.state is State.STALLED)
        listed = (await two.client.get("/v1/sessions")).json()["sessions"]
        assert [(entry["id"], entry["state"]) for entry in listed] == [(session.id, "stalled")]
        told = (await two.client.get("/v1/sessions/talk")).json()
        assert told["state"] == "stalled"


async def test_what_nobody_reads_is_let_go_and_comes_back(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_sessions, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(remote_sessions, "IDLE_SECONDS", 0.0)
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        await session.log.flush()
        followed = await two.session("talk")
        subscription = followed.log.subscribe()
        await two.part.remote.look()
        assert list(two.part.remote.by_id) == [session.id], "somebody reads it"
        followed.log.unsubscribe(subscription)
        await two.part.remote.look()
        assert two.part.remote.by_id == {}
        assert (await two.session("talk")) is not followed


async def test_so_many_sessions_are_followed_and_no_more(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_sessions, "MOST", 1)
    async with pair(redis_server, tmp_path) as (one, two):
        for name in ("first", "second"):
            await published(one, name)
        first = await two.session("first")
        second = await two.session("second")
        assert list(two.part.remote.by_id) == [second.id], "the unused one has made room"
        subscription = second.log.subscribe()
        with pytest.raises(CapacityError) as full:
            await two.session("first")
        assert full.value.code == "too_many_followed"
        second.log.unsubscribe(subscription)
        assert first.id != second.id


async def test_an_erased_session_is_gone_and_one_without_a_log_is_told_by_its_node_alone(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(redis_server, tmp_path, "one") as one, silent_node(redis_server, tmp_path, "two") as two:
        session = await published(one)
        await session.log.flush()
        followed = await two.session("talk")
        subscription = followed.log.subscribe(["log.gap"])
        monkeypatch.setattr(remote_sessions, "GONE_SECONDS", 0.0)
        assert (await two.client.delete("/v1/sessions/talk?purge=1")).status_code == 200
        with pytest.raises(NotFound):
            await one.session(session.id)
        await two.part.remote.look()
        with pytest.raises(NotFound):
            await two.session(session.id)
        with pytest.raises(ClusterUnavailable):
            while await subscription.next() is not None:
                pass
        made = await one.client.post("/v1/sessions", json={"name": "private", "no_store": True})
        assert made.status_code == 201
        await eventually(two, "private")
        refused = await two.client.get("/v1/sessions/private/captions.vtt")
        assert error_of(refused) == (503, "cluster_unavailable")


async def test_an_event_that_is_not_understood_ends_no_following(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        await session.log.flush()
        followed, redis = await two.session("talk"), two.part.node.redis
        live = redis.of(session.id, "live")
        for text in ("no json", "[1", '{"text":"no epoch"'):
            await redis.run("XADD", live, "*", "type", "caption.partial", "json", text)
        await asyncio.sleep(0.5)  # they are read before what comes now
        session.dispatch(cue("the kettle boils", 1.0))
        await until(lambda: [one.text for one in followed.dispatcher.cues] == ["the kettle boils"])


@pytest.mark.parametrize("told", [{}, {"options": "no json"}, {"options": "{}"}, {"options": "[]"}])
def test_options_that_are_not_understood_are_the_defaults(told: dict[str, str]) -> None:
    assert remote_sessions.options_of(told) == SessionOptions()
