"""The log counts, replays and filters.

A slow subscriber loses ephemeral events first, then its subscription.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError
from streamsvc.core.session_clock import SessionClock
from streamsvc.events import schema
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store
from streamsvc.events.subscription import Entry, Subscription
from tests.builders.cluster import FACTS, SESSION, node_of, until
from tests.builders.redis_server import RedisServer

CAPTION = {"text": "hallo", "words": [], "start": 0.0, "end": 1.0, "language": "en"}


def a_log(limits: Limits | None = None, **kept: int) -> EventLog:
    store = Store(None, events=kept.get("events", 1000), frames=10)
    return EventLog("0.s", SessionClock(), limits or Limits(), store)


async def received(subscription: Subscription) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text in await subscription.next() or []]


async def test_durable_events_count_by_one_and_ephemeral_ones_carry_the_last_seq() -> None:
    log = a_log()
    subscription = log.subscribe()
    log.emit("speech.started", {})
    log.emit("caption.partial", {**CAPTION, "stable": 0})
    log.emit("caption.final", CAPTION)
    first, partial, final = await received(subscription)
    assert (first["seq"], first["prev"]) == (1, 0)
    assert partial["after"] == 1
    assert "seq" not in partial
    assert (final["seq"], final["prev"]) == (2, 1)
    assert len({event["id"] for event in (first, partial, final)}) == 3
    for event in (first, partial, final):
        jsonschema.validate(event, schema.document())


def test_age_is_the_time_between_arrival_and_publication(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        log = a_log()
        subscription = log.subscribe()
        arrived = clock.now()
        await clock.sleep(0.75)
        log.emit(
            "caption.final",
            CAPTION,
            at=3.0,
            arrived=arrived,
            stages=(("wait", arrived + 0.5), ("asr", arrived + 0.7)),
        )
        (event,) = await received(subscription)
        assert event["age_ms"] == pytest.approx(750, abs=1)
        assert event["stages"] == {"wait": 500.0, "asr": 200.0, "publish": 50.0}
        assert event["at"] == 3.0

    virtual.run(main())


async def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="no event type"):
        a_log().emit("caption.maybe", {})


async def test_private_events_reach_their_client_alone() -> None:
    log = a_log()
    mine, other = log.subscribe(client="me"), log.subscribe(client="you")
    log.emit("answer.delta", {"question_id": "q", "text": "x"}, audience="me")
    log.emit("speech.started", {})
    assert [event["type"] for event in await received(mine)] == ["answer.delta", "speech.started"]
    assert [event["type"] for event in await received(other)] == ["speech.started"]


async def test_a_resume_brings_what_was_missed_and_nothing_twice() -> None:
    log = a_log()
    for _ in range(5):
        log.emit("caption.final", CAPTION)
    entries, gap = await log.since(2, log.epoch, log.seq)
    assert gap is None
    assert [entry.seq for entry in entries] == [3, 4, 5]


async def test_a_resume_reads_the_store_for_what_is_no_longer_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamsvc.events.log._TAIL", 4)
    log = a_log()
    for _ in range(20):
        log.emit("caption.final", CAPTION)
    await log.flush()
    entries, gap = await log.since(0, log.epoch, 18)
    assert gap is None
    assert [entry.seq for entry in entries] == list(range(1, 19))


async def test_a_resume_says_what_the_log_no_longer_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsvc.events.log._TAIL", 4)
    log = a_log(events=10)
    for _ in range(20):
        log.emit("caption.final", CAPTION)
    await log.flush()
    entries, gap = await log.since(2, log.epoch, log.seq)
    assert [entry.seq for entry in entries] == list(range(11, 21))
    assert gap is not None
    told = json.loads(gap.text + "}")
    assert (told["type"], told["first"], told["last"]) == ("log.gap", 3, 10)
    jsonschema.validate(told, schema.document())


async def test_a_resume_in_another_epoch_starts_over_and_says_so() -> None:
    log = a_log()
    log.emit("caption.final", CAPTION)
    entries, gap = await log.since(7, "an-old-epoch", log.seq)
    assert [entry.seq for entry in entries] == [1]
    assert gap is not None
    assert "new_epoch" in gap.text


async def test_an_event_between_subscribing_and_replaying_comes_once() -> None:
    log = a_log()
    log.emit("caption.final", CAPTION)
    subscription = log.subscribe()
    log.emit("caption.final", CAPTION)
    entries, _ = await log.since(0, log.epoch, log.seq)
    replayed = subscription.replay(entries)
    subscription.skip_to(log.seq)
    log.emit("caption.final", CAPTION)
    live = await subscription.next()
    assert live is not None
    assert [seq for seq, _ in replayed + live] == [1, 2, 3]


async def test_what_was_seen_at_another_node_does_not_come_again_but_a_new_epoch_does() -> None:
    log = a_log()
    first = log.epoch
    subscription = log.subscribe()
    subscription.skip_to(3)  # seen where the events were shown, before this node heard of them

    def told(seq: int, epoch: str) -> None:
        log.take(Entry(seq, "caption.final", None, f'{{"id":"{epoch}.{seq}"'), epoch)

    for seq in (2, 3, 4):
        told(seq, first)
    told(3, "new")
    assert [one["id"] for one in await received(subscription)] == [f"{first}.4", "new.3"]


async def test_subscribers_are_limited_and_a_place_is_free_again() -> None:
    log = a_log(Limits(subscribers=1))
    subscription = log.subscribe()
    with pytest.raises(CapacityError):
        log.subscribe()
    log.unsubscribe(subscription)
    log.subscribe()


async def test_the_end_of_the_log_lets_every_subscriber_run_dry() -> None:
    log = a_log()
    before = log.subscribe()
    log.emit("session.closed", {"reason": "source_ended"})
    await log.end()
    assert [event["type"] for event in await received(before)] == ["session.closed"]
    assert await before.next() is None
    assert await log.subscribe().next() is None


class FullDisk(Store):
    """A store whose writes fail while `full`, as those of SQLite on a full disk do."""

    full = True

    def append(self, events: Iterable[tuple[int, str, str | None, str]]) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().append(events)

    def put_frame(self, at: float, jpeg: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().put_frame(at, jpeg)


def on_a_full_disk(events: int = 1000) -> tuple[EventLog, FullDisk]:
    store = FullDisk(None, events=events, frames=10)
    return EventLog("0.s", SessionClock(), Limits(), store), store


async def test_what_cannot_be_written_is_told_once_and_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsvc.events.log._TAIL", 2)
    log, store = on_a_full_disk()
    subscription = log.subscribe(["error"])
    failures = metrics.store_failures._value.get()
    for _ in range(3):
        log.emit("caption.final", CAPTION)
        await log.flush()
    await log.put_frame(0.0, b"jpeg")
    (told,) = await received(subscription)
    assert (told["type"], told["error"]["code"]) == ("error", "store_failed")
    jsonschema.validate(told, schema.document())
    assert metrics.store_failures._value.get() - failures == 4
    log.emit("caption.final", CAPTION)
    entries, gap = await log.since(0, log.epoch, log.seq)
    assert ([entry.seq for entry in entries], gap) == ([1, 2, 3, 4], None)
    store.full = False
    await log.flush()
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2, 3, 4]
    store.full = True
    log.emit("caption.final", CAPTION)
    await log.flush()
    assert len(await received(subscription)) == 1, "a new failure is told again"


async def test_no_more_waits_for_the_disk_than_it_would_keep_and_the_rest_is_counted_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamsvc.events.log._TAIL", 2)
    log, store = on_a_full_disk(events=5)
    store.full = False
    log.emit("caption.final", CAPTION)
    await log.flush()
    store.full = True
    lost = metrics.events_unwritten._value.get()
    for _ in range(8):
        log.emit("caption.final", CAPTION)
        await log.flush()
    assert metrics.events_unwritten._value.get() - lost == 3
    entries, gap = await log.since(0, log.epoch, log.seq)
    assert [entry.seq for entry in entries] == [1, 5, 6, 7, 8, 9]
    assert gap is not None
    assert (json.loads(gap.text + "}")["first"], json.loads(gap.text + "}")["last"]) == (2, 4)


async def test_the_log_ends_for_its_subscribers_though_the_rest_cannot_be_written() -> None:
    log, _ = on_a_full_disk()
    subscription = log.subscribe(["session.closed"])
    lost = metrics.events_unwritten._value.get()
    log.emit("session.closed", {"reason": "source_ended"})
    await log.end()
    assert [event["type"] for event in await received(subscription)] == ["session.closed"]
    assert await subscription.next() is None
    assert metrics.events_unwritten._value.get() - lost == 1


async def test_a_write_that_is_cut_short_is_done_again_and_nothing_is_there_twice() -> None:
    log = a_log()
    log.emit("caption.final", CAPTION)
    cut = asyncio.create_task(log.flush())
    await asyncio.sleep(0)  # it has begun, on its thread
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    await log.flush()
    assert [row[0] for row in log._store.read(0, 99, 99)] == [1]


@pytest.mark.parametrize("sync", ["process", "power"])
def test_no_event_that_was_seen_is_lost_when_the_process_is_killed(tmp_path: Path, sync: str) -> None:
    writer = [sys.executable, "-m", "tests.fakes.event_writer", str(tmp_path), "20", "7", sync]
    told = subprocess.run(writer, capture_output=True, check=True, timeout=100).stdout
    seen = json.loads(told)
    assert len(seen) == 20
    assert min(seen) > 0
    for number, last in enumerate(seen):
        store = Store(tmp_path / str(number), events=100_000, frames=10)
        assert [row[0] for row in store.read(0, last + 1, 1 << 20)] == list(range(1, last + 1))
        store.close(purge=True)


async def test_an_event_is_on_disk_before_it_is_offered_and_waits_where_the_disk_refuses(
    tmp_path: Path,
) -> None:
    store = FullDisk(tmp_path / "s", events=1000, frames=10)
    store.full = False
    log = EventLog("0.s", SessionClock(), Limits(), store)
    subscription = log.subscribe()
    stored: list[int | None] = []
    offer = subscription.offer

    def offered(entry: Any, **how: Any) -> None:
        stored.append((store.newest() or (0, ""))[0])
        offer(entry, **how)

    subscription.offer = offered  # type: ignore[method-assign]
    for _ in range(3):
        log.emit("caption.final", CAPTION)
    assert stored == [1, 2, 3]
    store.full = True
    log.emit("caption.final", CAPTION)
    store.full = False
    log.emit("caption.final", CAPTION)
    assert stored[3:] == [3, 3], "nothing is written out of turn"
    await log.flush()
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2, 3, 4, 5]
    log.emit("caption.final", CAPTION)
    assert stored[5] == 6
    store.close(purge=True)


async def test_where_power_loss_is_to_be_survived_an_event_is_seen_once_the_disk_has_it(
    tmp_path: Path,
) -> None:
    store = FullDisk(tmp_path / "s", events=1000, frames=10, sync="power")
    store.full = False
    log = EventLog("0.s", SessionClock(), Limits(), store)
    subscription = log.subscribe()
    log.emit("caption.final", CAPTION)
    log.emit("caption.partial", {**CAPTION, "stable": 0})
    log.whisper(subscription, "pong", {})
    assert await log.since(0, log.epoch, log.seq) == ([], None), (
        "a resume sees it no earlier, and misses none"
    )
    assert [(event["type"], event.get("after")) for event in await received(subscription)] == [("pong", 0)]
    assert store.newest() is None
    await log.flush()
    shown = await received(subscription)
    assert [(event["type"], event.get("seq"), event.get("after")) for event in shown] == [
        ("caption.final", 1, None),
        ("caption.partial", None, 1),
    ]
    assert store.newest() is not None
    entries, gap = await log.since(0, log.epoch, log.seq)
    assert ([entry.seq for entry in entries], gap) == ([1], None)
    store.full = True
    log.emit("caption.final", CAPTION)
    await log.flush()
    told = await received(subscription)
    assert [event["type"] for event in told] == ["caption.final", "error"], "a full disk keeps nothing back"
    store.full = False
    log.emit("caption.final", CAPTION)
    await log.end()
    assert [row[0] for row in store.read(0, 99, 99)] == [1, 2, 3]
    assert [event["seq"] for event in await received(subscription)] == [3]
    assert await subscription.next() is None
    store.close(purge=True)


async def test_one_share_has_half_of_the_places_and_who_has_none_all() -> None:
    log = a_log(Limits(subscribers=5))
    first, _ = (log.subscribe(share="mallory") for _ in range(2))
    with pytest.raises(CapacityError) as refused:
        log.subscribe(share="mallory")
    assert refused.value.code == "too_many_of_token"
    log.subscribe(share="alice")
    log.unsubscribe(first)
    log.subscribe(share="mallory")
    for _ in range(2):
        log.subscribe()
    with pytest.raises(CapacityError) as refused:
        log.subscribe()
    assert refused.value.code == "too_many_subscribers"


async def test_nobody_sees_an_event_before_redis_has_it_and_an_outage_loses_none(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with node_of(redis_server) as node:
        store = Store(tmp_path / "s", events=1000, frames=10)
        log = EventLog(SESSION, SessionClock(), Limits(), store)
        log.share(node.copy_of(SESSION, FACTS))
        subscription = log.subscribe()
        seen: list[int] = []

        async def watch() -> None:
            while (batch := await subscription.next()) is not None:
                seqs = [seq for seq, _ in batch if seq is not None]
                if node.up and seqs:
                    there = await node.log.newest(SESSION)
                    early.extend(seq for seq in seqs if seq > there)
                seen.extend(seqs)

        early: list[int] = []
        watching = asyncio.create_task(watch())
        for number in range(20):
            log.emit("speech.started", {})
            log.emit("pong", {})
            if number % 3 == 0:
                await asyncio.sleep(0)
        await log.flush()
        await until(lambda: len(seen) == 20)
        assert early == []
        redis_server.kill()
        for _ in range(20):
            log.emit("speech.stopped", {})
        await log.flush()
        await until(lambda: len(seen) == 40)
        redis_server.start()
        log.emit("speech.started", {})
        await log.end()
        await log.put_end(ended_utc="2026-12-01T10:01:00.000Z")
        await watching
        log.unsubscribe(subscription)
        assert seen == list(range(1, 42))
        async with asyncio.timeout(10):
            while await node.log.newest(SESSION) < 41:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await node.log.read(SESSION, 0, 100) == store.read(0, 100, 100)
        entries, gap = await log.since(0, log.epoch, 41)
        assert [entry.seq for entry in entries] == seen
        assert gap is None
    store.close(purge=True)
