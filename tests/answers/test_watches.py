"""Watches of a live session: alerts as events, and signed webhooks that are retried."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamsvc.answers import watches
from streamsvc.answers.watches import Watches
from streamsvc.core import clock, config
from streamsvc.core.errors import CapacityError, Conflict, Forbidden, NotFound
from streamsvc.core.types import Box, Evidence, Sight, Speech, Word, Words
from streamsvc.core.units import AlertFired
from streamsvc.events import webhook
from streamsvc.events.webhook import signature
from tests.builders.session import VP8, Models, Playing, Sender, kinds, make, packets, send
from tests.fakes.embed_role import watching_role
from tests.fakes.host import RecordingHost, context
from tests.fakes.http_receiver import listening
from tests.fakes.role import FakeRole


def embed_role() -> FakeRole:
    return watching_role(says="said", nobody="silence", starts="speech", talk="topic", gone="gone")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(watches, "GRACE", 0.3)


async def running(
    host: RecordingHost, most: int = 4, private: bool = True
) -> tuple[Watches, asyncio.Task[None]]:
    settings = config.load(None, limits={"watches": most}, server={"private_urls": private})
    made = Watches(context(host, settings=settings, roles=replace(Models().roles(), embed=embed_role())))
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    return made, task


def speech(at: float, *, active: bool) -> Speech:
    return Speech("s", "main", at, at, active)


# --- in a session -------------------------------------------------------------------------------------------


def test_what_is_watched_for_is_told_once_with_its_evidence(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(make(Models(embed=embed_role()))) as played:
            live = played.session
            cat = await live.watches.add("when a cat appears")
            said = await live.watches.add("somebody says la", 100.0)
            await live.watches.add("when a dog appears")
            await live.watches.add("when nobody speaks for 2 seconds")
            live.media.attach(Sender())
            await send(live, packets(tmp_path, 4.0))
            await clock.sleep(4.0)
            live.end("ended")
            events = await played.ended()
        told = {event["watch_id"]: event for event in events if event["type"] == "alert.fired"}
        assert len(told) == 3
        assert kinds(events).count("alert.fired") == 3
        assert told[cat["id"]]["text"] == "A cat is shown."
        assert told[cat["id"]]["evidence"][0]["url"]
        assert told[cat["id"]]["age_ms"] < 2000
        assert told[said["id"]]["evidence"][0]["kind"] == "speech"
        assert [kept["fired"] for kept in live.watches.all()] == [1, 1, 0, 1]

    stage.run(main())


def test_a_session_that_has_ended_takes_no_watch(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            played.session.media.attach(Sender(VP8))
            played.session.end("ended")
            await played.ended()
            with pytest.raises(Conflict):
                await played.session.watches.add("when a cat appears")

    stage.run(main())


async def test_a_topic_is_found_by_its_meaning_and_what_waits_at_the_end_is_still_told() -> None:
    host = RecordingHost()
    made = Watches(context(host, roles=replace(Models().roles(), embed=embed_role())))
    task = asyncio.create_task(made.run())
    watch = await made.add("when they talk about a bad bed")
    texts = ["I", "deb", "dab.", "We", "ate."]
    words = tuple(Word(word, n, n + 0.5, 0.9) for n, word in enumerate(texts))
    made.take(Words("s", "main", 0.0, 7.0, words, len(words), final=False))
    made.close()
    await task
    (fired,) = host.of(AlertFired)
    assert fired.watch_id == watch["id"]
    assert fired.text == 'About bad bed: "I deb dab."'
    assert fired.arrived == 7.0


async def test_there_are_no_more_watches_than_may_be_and_one_that_is_removed_fires_no_more() -> None:
    host = RecordingHost()
    made, task = await running(host, most=2)
    one = await made.add("when somebody starts talking", 0.0)
    await made.add("when a cat appears")
    with pytest.raises(CapacityError) as caught:
        await made.add("when a dog appears")
    assert caught.value.code == "too_many_watches"
    made.take(speech(1.0, active=True))
    made.remove(one["id"])
    made.take(speech(2.0, active=True))
    assert [fired.watch_id for fired in host.of(AlertFired)] == [one["id"]]
    with pytest.raises(NotFound):
        made.remove(one["id"])
    made.close()
    await task


async def test_time_tells_that_a_still_picture_lacks_what_was_shown() -> None:
    host = RecordingHost()
    made, task = await running(host)
    await made.add("when the cat is gone", 0.0)
    for at, boxes in ((1.0, (Box("cat", 0.9, 0, 0, 1, 1),)), (10.0, ())):
        made.take(Sight("s", "main", at, at, np.zeros(2, np.float32), (), boxes))
    made.tick(11.0)
    assert host.units == []
    made.tick(13.0)
    (fired,) = host.of(AlertFired)
    assert fired.text == "No cat is shown any more."
    made.close()
    await task


async def test_silence_is_counted_from_the_last_word_and_not_while_somebody_speaks() -> None:
    host = RecordingHost()
    made, task = await running(host)
    await made.add("when nobody speaks for 5 seconds", 0.0)
    made.take(speech(1.0, active=True))
    made.tick(20.0)
    made.take(speech(21.0, active=False))
    made.tick(25.0)
    assert host.units == []
    made.tick(26.0)
    assert host.of(AlertFired)[0].evidence == (Evidence(21.0, 26.0, "timeline", "no speech"),)
    made.close()
    await task


# --- webhooks -----------------------------------------------------------------------------------------------


async def test_an_alert_goes_to_the_webhook_of_its_watch_signed_with_its_secret(quick: None) -> None:
    async with listening(503) as listener:
        made, task = await running(RecordingHost())
        watch = await made.add_with_webhook("when somebody starts talking", 0.0, f"{listener.url}/hook?key=k")
        made.take(speech(1.0, active=True))
        await listener.until(2)
        made.take(speech(9.0, active=True))
        await listener.until(3)
        made.close()
        await task
        assert made.all()[0]["webhook"] == {"sent": 2, "failed": 0, "waiting": 0}
        assert [json.loads(body)["id"] for _, _, body in listener.got] == ["e.1", "e.1", "e.2"]
        for _, headers, body in listener.got:
            stamp = headers["Streamsvc-Signature"].removeprefix("t=").partition(",")[0]
            assert headers["Streamsvc-Signature"] == signature(watch["secret"], body, float(stamp))


async def test_the_webhooks_of_removed_watches_count_and_are_not_waited_for_for_long(quick: None) -> None:
    async with listening(*[None] * 100) as listener:
        made, task = await running(RecordingHost(), most=2)
        for _ in range(2):
            watch = await made.add_with_webhook("when somebody starts talking", 0.0, listener.url)
            made.take(speech(1.0, active=True))
            made.remove(watch["id"])
        with pytest.raises(CapacityError):
            await made.add("when a cat appears")
        began = clock.now()
        made.close()
        await task
        assert clock.now() - began < 3.0
        assert made._sending == set()


async def test_a_webhook_into_a_private_network_is_refused_unless_it_is_allowed() -> None:
    made, task = await running(RecordingHost(), private=False)
    with pytest.raises(Forbidden):
        await made.add_with_webhook("when a cat appears", 0.0, "http://127.0.0.1:9/hook")
    assert made.all() == []
    made.close()
    await task
