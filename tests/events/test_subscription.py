"""A slow subscriber loses ephemeral events first, then its subscription; nothing is lost silently."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core import clock, metrics
from streamsvc.core.config import Limits
from streamsvc.core.session_clock import SessionClock
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store
from streamsvc.events.subscription import Entry, SharedTexts, SlowSubscriber, Subscription

CAPTION = {"text": "hallo", "words": [], "start": 0.0, "end": 1.0, "language": "en"}


def a_log(limits: Limits | None = None, **kept: int) -> EventLog:
    store = Store(None, events=kept.get("events", 1000), frames=10)
    return EventLog("0.s", SessionClock(), limits or Limits(), store)


async def received(subscription: Subscription) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text in await subscription.next() or []]


async def test_prev_tells_a_filter_from_a_loss() -> None:
    log = a_log()
    subscription = log.subscribe(["caption.*"])
    log.emit("speech.started", {})
    log.emit("caption.final", CAPTION)
    log.emit("speech.stopped", {})
    log.emit("caption.final", CAPTION)
    assert [(event["seq"], event["prev"]) for event in await received(subscription)] == [(2, 0), (4, 2)]


async def test_subscribers_with_the_same_filter_are_sent_one_and_the_same_text() -> None:
    log = a_log()
    first, second = log.subscribe(), log.subscribe()
    other = log.subscribe(["caption.final"])
    log.emit("speech.started", {})
    log.emit("caption.final", CAPTION)
    log.emit("caption.partial", CAPTION | {"stable": 0})
    same = [[text for _, text in await one.next() or []] for one in (first, second)]
    assert len(same[0]) == 3 and all(one is two for one, two in zip(*same, strict=True))
    filtered = await received(other)
    assert [event["prev"] for event in filtered] == [0], "another filter, another event before"
    assert json.loads(same[0][1])["prev"] == 1


async def test_few_texts_are_kept_for_others() -> None:
    texts = SharedTexts()
    entries = [Entry(seq, "caption.final", None, f'{{"seq":{seq}') for seq in range(1, 200)]
    made = [texts.of(entry, 0) for entry in entries]
    assert len(texts._made) <= 64
    assert texts.of(entries[-1], 0) is made[-1]
    again = texts.of(entries[0], 0)
    assert again == made[0] and again is not made[0]


async def test_a_slow_subscriber_loses_ephemeral_events_first() -> None:
    log = a_log(Limits(subscriber_events=10))
    subscription = log.subscribe()
    for _ in range(6):
        log.emit("caption.final", CAPTION)
        log.emit("caption.partial", {**CAPTION, "stable": 0})
    events = await received(subscription)
    assert [event["seq"] for event in events if "seq" in event] == [1, 2, 3, 4, 5, 6]
    assert subscription.dropped > 0


async def test_increments_of_a_scene_caption_go_first_and_are_counted_and_the_caption_stays() -> None:
    counted = metrics.events_dropped.labels("scene.delta")
    before = counted._value.get()
    log = a_log(Limits(subscriber_events=4))
    slow, ready = log.subscribe(), log.subscribe()
    read = []
    for index in range(9):
        log.emit("scene.delta", {"scene_id": "scene_1", "index": index, "text": "a ", "start": 0.0})
        read += await received(ready)
    body = {"text": "a a.", "start": 0.0, "end": 0.0, "evidence": [], "by": "model", "scene_id": "scene_1"}
    log.emit("scene.caption", body)
    read += await received(ready)
    assert [event.get("index") for event in read] == [*range(9), None]
    events = await received(slow)
    assert [event["type"] for event in events] == ["scene.caption"]
    assert counted._value.get() - before == slow.dropped == 9


async def test_a_subscriber_that_falls_further_behind_is_cut_off_and_counted() -> None:
    log = a_log(Limits(subscriber_events=10))
    subscription = log.subscribe()
    for _ in range(11):
        log.emit("caption.final", CAPTION)
    with pytest.raises(SlowSubscriber) as caught:
        await subscription.next()
    assert caught.value.close_code == 4008
    assert subscription.dropped == 11


async def test_a_subscriber_with_few_events_of_many_bytes_is_cut_off() -> None:
    log = a_log(Limits(subscriber_bytes=5000))
    subscription, ready = log.subscribe(), log.subscribe()
    for _ in range(5):  # 1,000 bytes and the rest of an event
        log.emit("caption.final", {**CAPTION, "text": "x" * 1000})
        await received(ready)
    with pytest.raises(SlowSubscriber):
        await subscription.next()
    assert subscription.dropped > 1


def test_a_subscriber_that_reads_nothing_for_ten_seconds_is_cut_off(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        log = a_log()
        subscription = log.subscribe()
        log.emit("caption.final", CAPTION)
        await clock.sleep(10.5)
        log.emit("caption.final", CAPTION)
        with pytest.raises(SlowSubscriber):
            await subscription.next()

    virtual.run(main())


@given(st.lists(st.sampled_from(["caption.final", "caption.partial", "speech.started", "take"]), max_size=80))
def test_whoever_keeps_up_gets_every_durable_event_in_order(steps: list[str]) -> None:
    async def main() -> None:
        log = a_log(Limits(subscriber_events=200))
        subscription = log.subscribe()
        got: list[int] = []
        for step in steps:
            if step == "take":
                if log.seq > len(got):
                    got += [event["seq"] for event in await received(subscription) if "seq" in event]
            else:
                log.emit(step, CAPTION)
        await log.end()
        while batch := await subscription.next():
            got += [seq for seq, _ in batch if seq is not None]
        assert got == list(range(1, log.seq + 1))

    asyncio.run(main())
