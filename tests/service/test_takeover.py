"""A session goes on at another node when its own has died: epoch, seq, clock, timeline; and who may not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamsvc.cluster.records import SharedSession
from streamsvc.core import metrics
from streamsvc.core.errors import CapacityError, ClusterUnavailable, Conflict
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.types import Speech
from streamsvc.service import takeover
from streamsvc.service.media_input import State
from streamsvc.service.takeover import Life, lost_at, probe
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.free_ports import free_tcp_port
from tests.builders.nodes import Node, eventually, node, pair, published, silent_node
from tests.builders.redis_server import RedisServer
from tests.builders.service import error_of
from tests.builders.units import cue


def taken(epoch: str) -> float:
    return float(metrics.cluster_takeovers.labels(epoch)._value.get())


async def dead(one: Node, two: Node, name: str = "talk") -> SharedSession:
    """Let the first node die, as the second sees it; what it knows of its session then."""
    one.cut_off()
    async with asyncio.timeout(10):
        while True:
            shared = await eventually(two, name)
            if shared.stalled and "one" not in two.part.node.nodes:
                return shared
            await asyncio.sleep(0.02)


async def test_a_session_goes_on_where_its_publisher_comes_back(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    kept = taken("kept")
    async with pair(redis_server, tmp_path) as (one, two):
        speech = SpeechOptions(language="en", vocabulary=("Ada",))
        await one.service.sessions.create(name="talk", options=SessionOptions(speech))
        session = await published(one)
        session.dispatch(cue("before", 0.0))
        session.dispatch(Speech(session.id, "main", 0.1, 0.0, True))
        await session.log.flush()
        epoch, seq, zero = session.log.epoch, session.log.seq, session.clock.zero
        await dead(one, two)
        await two.service.publications.publish("talk", "good")
        went_on = await two.session("talk")
        await went_on.log.flush()
        assert (went_on.id, went_on.state, went_on.log.epoch) == (session.id, State.LIVE, epoch)
        assert abs(went_on.clock.zero - zero) < 0.5
        assert [one.text for one in went_on.dispatcher.cues] == ["before"]
        assert went_on.speech.options.vocabulary == ("Ada",)
        entries, gap = await went_on.log.since(seq, epoch, went_on.log.seq)
        events = [json.loads(entry.text + "}") for entry in entries]
        assert gap is None
        assert [event["seq"] for event in events] == list(range(seq + 1, seq + 1 + len(events)))
        told = [event["type"] for event in events]
        assert told[:3] == ["speech.stopped", "caption.gap", "session.updated"]
        assert "session.resumed" in told and "session.created" not in told
        lost = next(event for event in events if event["type"] == "caption.gap")
        assert (lost["reason"], lost["start"]) == ("node_lost", pytest.approx(0.3)), "the end of the last cue"
        assert lost["end"] <= went_on.clock.position()
        rows = await two.part.node.log.read(session.id, 0, 1000)
        assert [row[0] for row in rows] == list(range(1, went_on.log.seq + 1)), "each once, in order"
        assert taken("kept") == kept + 1
        assert (tmp_path / "two" / session.id / "session.db").exists()


async def test_what_may_be_missing_means_a_new_epoch(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(_address: str, _node: str) -> Life:
        return Life.UNKNOWN

    monkeypatch.setattr(takeover, "probe", unknown)
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        epoch, seq = session.log.epoch, session.log.seq
        await dead(one, two)
        await two.service.publications.publish("talk", "good")
        went_on = await two.session("talk")
        await went_on.log.flush()
        assert went_on.log.epoch != epoch
        assert went_on.log.seq > seq, "seq goes on all the same"
        entries, gap = await went_on.log.since(seq, epoch, went_on.log.seq)
        assert gap is not None and "new_epoch" in gap.text
        assert entries[0].seq == 1, "all is read again"


async def test_a_log_that_misses_something_means_a_new_epoch(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session, redis = await published(one), two.part.node.redis
        await dead(one, two)
        await redis.run("HSET", redis.of(session.id, "meta"), "behind", "1")
        await two.service.publications.publish("talk", "good")
        assert (await two.session("talk")).log.epoch != session.log.epoch


async def test_what_was_not_stored_ends_with_its_node(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        await one.service.sessions.create(name="talk", options=SessionOptions(stored=False))
        await published(one)
        await eventually(two, "talk")
        await dead(one, two)
        with pytest.raises(ClusterUnavailable) as gone:
            await two.service.publications.publish("talk", "good")
        assert gone.value.code == "not_stored"
        assert two.service.sessions.by_id == {}


async def test_a_takeover_that_fails_leaves_the_session_to_others(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rebuilt(shared: SharedSession) -> None:
        raise CapacityError("the disk is full")

    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        shared = await dead(one, two)
        monkeypatch.setattr(two.part.takeover, "_rebuilt", rebuilt)
        with pytest.raises(CapacityError):
            await two.part.takeover.take_over(shared)
        assert await two.part.node.registry.owner(session.id) is None


async def test_a_node_that_answers_keeps_its_session(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with node(redis_server, tmp_path, "one") as one, silent_node(redis_server, tmp_path, "two") as two:
        session = await published(one)
        await dead(one, two)
        with pytest.raises(Conflict) as kept:
            await two.service.publications.publish("talk", "good")
        assert kept.value.code == "already_publishing"
        assert session.state is State.LIVE
        assert two.service.sessions.by_id == {}


async def test_a_node_is_asked_where_it_is_not_known_who_lives(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "_PROBE_SECONDS", 30.0)
    async with node(redis_server, tmp_path, "one") as one, silent_node(redis_server, tmp_path, "two") as two:
        session = await published(one)
        await until(lambda: "one" in two.part.node.nodes)
        shared = await eventually(two, session.id)
        assert await two.part.takeover.life_of(shared) is Life.DEAD, "another process of that name"
        two.part.node.contact.lost()  # what is known of the nodes is of before an outage
        assert await two.part.takeover.life_of(shared) is Life.ALIVE


async def test_a_node_that_comes_back_gives_its_session_up(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        subscription = session.log.subscribe()
        redis = one.part.node.redis
        await dead(one, two)
        await two.service.publications.publish("talk", "good")
        for name in ("run", "scripts", "pipeline"):
            delattr(redis, name)  # it reaches Redis again
        await until(lambda: session.id not in one.service.sessions.by_id)
        seen = []
        with pytest.raises(Exception, match="moved"):
            while (batch := await subscription.next()) is not None:
                seen += [json.loads(text)["type"] for _, text in batch]
        assert "session.closed" not in seen, "it goes on elsewhere"
        session.log.unsubscribe(subscription)
        assert not (tmp_path / "one" / session.id).exists()
        assert (await one.session("talk")).state is State.LIVE, "followed from now on"


async def test_a_full_node_takes_no_session_over(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    full = {"limits": {"sessions": 1}, "budget": {"admission": False}}
    async with pair(redis_server, tmp_path, **full) as (one, two):
        await published(one)
        await published(two, "other")
        await dead(one, two)
        with pytest.raises(CapacityError):
            await two.service.publications.publish("talk", "good")
        assert len(two.service.sessions.by_id) == 1
        assert (await eventually(two, "talk")).stalled, "another node may have room"


async def test_one_node_alone_takes_a_session_over(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with (
        pair(redis_server, tmp_path) as (one, two),
        silent_node(redis_server, tmp_path, "three") as three,
    ):
        await published(one)
        shared = await dead(one, two)
        results = await asyncio.gather(
            *(at.part.takeover.take_over(shared) for at in (two, three)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Session"]


async def test_an_ended_session_of_a_node_that_is_gone_is_asked_at_another(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with pair(redis_server, tmp_path) as (one, two):
        session = await published(one)
        session.dispatch(cue("the kettle boils", 0.0))
        session.end("deleted")
        await session.over.wait()
        seq = session.log.seq
        one.cut_off()
        await until(lambda: "one" not in two.part.node.nodes)
        asked = await two.client.post("/v1/sessions/talk/questions", json={"text": "Anything?"})
        assert asked.status_code == 202, asked.text
        adopted = two.service.sessions.by_id[session.id]
        await until(lambda: adopted.questions.idle)
        await adopted.log.flush()
        rows = await two.part.node.log.read(session.id, seq, 10)
        assert [kind for _, kind, _, _ in rows] == ["answer.done"]
        answer = await two.client.get(asked.headers["location"])
        assert answer.json()["question_id"] == asked.json()["question_id"]


async def test_a_session_that_nobody_takes_over_is_closed_once(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    ingest = {"resume_seconds": 0.2}
    async with pair(redis_server, tmp_path, ingest=ingest) as (one, two):
        session = await published(one)
        seq = session.log.seq
        shared = await dead(one, two)
        refused = await two.client.patch("/v1/sessions/talk", json={"language": "en"})
        assert error_of(refused) == (503, "session_stalled")
        async with asyncio.timeout(10):
            while not (await eventually(two, session.id)).ended:
                await two.part.upkeep.close_lost()
                await asyncio.sleep(0.05)
        await two.part.upkeep.close_lost()
        rows = await two.part.node.log.read(session.id, seq, 10)
        assert [(number, kind) for number, kind, _, _ in rows] == [(seq + 1, "session.closed")]
        told = json.loads(rows[0][3] + "}")
        assert (told["reason"], told["epoch"]) == ("interrupted", session.log.epoch)
        ended = await eventually(two, session.id)
        assert float(ended.meta["seconds"]) == pytest.approx(lost_at(shared), abs=0.01)
        assert (await two.session("talk")).state is State.ENDED


async def test_a_port_where_nothing_listens_is_a_dead_node_and_silence_is_none() -> None:
    address = f"http://127.0.0.1:{free_tcp_port()}"
    assert await probe(address, "one") is Life.DEAD
    assert await probe("", "one") is Life.UNKNOWN

    async def another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"node": "two"}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(another, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await probe(address, "one") is Life.UNKNOWN, "another node answers there"
        assert await probe(address, "two") is Life.ALIVE


async def test_a_node_that_takes_a_connection_and_says_nothing_may_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takeover, "_PROBE_SECONDS", 0.2)
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            assert await asyncio.wait_for(probe(address, "one"), 20) is Life.UNKNOWN
        finally:
            left.set()
