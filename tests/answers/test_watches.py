"""Watches of a live session: alerts as events, signed webhooks that are tried again, and doors that tell no address."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from streamsvc.answers import watches
from streamsvc.answers.watch_evaluation import Alert
from streamsvc.answers.watches import Watches
from streamsvc.core import clock, metrics
from streamsvc.core.errors import CapacityError, Conflict, Forbidden, InvalidRequest, NotFound
from streamsvc.core.types import Evidence, Speech, Word
from streamsvc.events import webhook
from streamsvc.events.webhook import Webhook, signature
from tests.answers.test_topic_match import Letters
from tests.builders.service import serving, socket_of, until
from tests.builders.session import VP8, Playing, Sender, kinds, make, packets, send
from tests.fakes.http_receiver import listening


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST", 0.01)
    monkeypatch.setattr(watches, "GRACE", 0.3)


def counted(result: str) -> float:
    return float(metrics.webhooks.labels(result)._value.get())


class Told:
    """Takes the alerts."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Alert]] = []

    def __call__(self, watch: str, alert: Alert) -> dict[str, Any]:
        self.got.append((watch, alert))
        return {"id": str(len(self.got)), "watch_id": watch, "text": alert.text}


async def running(told: Told, most: int = 4, private: bool = True) -> tuple[Watches, asyncio.Task[None]]:
    made = Watches(most, private, told)
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    return made, task


def speech(at: float, *, active: bool) -> Speech:
    return Speech("s", "main", at, at, active)


# --- in a session ---------------------------------------------------------------------------------------------------


def test_what_is_watched_for_is_told_once_with_its_evidence(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            cat = live.alerts.add("when a cat appears")
            said = live.alerts.add("somebody says la", 100.0)
            live.alerts.add("when a dog appears")
            live.alerts.add("when nobody speaks for 2 seconds")
            live.attach(Sender())
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
        assert [kept["fired"] for kept in live.alerts.all()] == [1, 1, 0, 1]

    stage.run(main())


def test_a_session_that_has_ended_takes_no_watch(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            played.session.attach(Sender(VP8))
            played.session.end("ended")
            await played.ended()
            with pytest.raises(Conflict):
                played.session.alerts.add("when a cat appears")

    stage.run(main())


async def test_a_topic_is_found_by_its_meaning_and_what_waits_at_the_end_is_still_told() -> None:
    told = Told()
    made = Watches(4, True, told, Letters())  # type: ignore[arg-type]
    task = asyncio.create_task(made.run())
    watch = made.add("when they talk about a bad bed")
    made.heard(
        tuple(Word(word, n, n + 0.5, 0.9) for n, word in enumerate(["I", "had", "a", "dab.", "We", "ate."])),
        7.0,
    )
    made.close()
    await task
    (found,) = told.got
    assert found[0] == watch["id"]
    assert found[1].text == 'About a bad bed: "I had a dab."'
    assert found[1].arrived == 7.0


async def test_there_are_no_more_watches_than_may_be_and_one_that_is_removed_fires_no_more() -> None:
    told = Told()
    made, task = await running(told, most=2)
    one = made.add("when somebody starts talking", 0.0)
    made.add("when a cat appears")
    with pytest.raises(CapacityError) as caught:
        made.add("when a dog appears")
    assert caught.value.code == "too_many_watches"
    made.spoke(speech(1.0, active=True))
    made.remove(one["id"])
    made.spoke(speech(2.0, active=True))
    assert [watch for watch, _ in told.got] == [one["id"]]
    with pytest.raises(NotFound):
        made.remove(one["id"])
    made.close()
    await task


async def test_silence_is_counted_from_the_last_word_and_not_while_somebody_speaks() -> None:
    told = Told()
    made, task = await running(told)
    made.add("when nobody speaks for 5 seconds", 0.0)
    made.spoke(speech(1.0, active=True))
    made.tick(20.0)
    made.spoke(speech(21.0, active=False))
    made.tick(25.0)
    assert told.got == []
    made.tick(26.0)
    assert told.got[0][1].evidence == (Evidence(21.0, 26.0, "timeline", "no speech"),)
    made.close()
    await task


# --- webhooks -------------------------------------------------------------------------------------------------------


async def test_a_webhook_is_signed_and_tried_again_with_the_same_id(quick: None) -> None:
    async with listening(503, None, 429) as listener:
        told = Told()
        made, task = await running(told)
        watch = await made.hooked("when somebody starts talking", 0.0, f"{listener.url}/hook?key=k")
        made.spoke(speech(1.0, active=True))
        await listener.until(4)
        made.spoke(speech(9.0, active=True))
        await listener.until(5)
        made.close()
        await task
        assert made.all()[0]["webhook"] == {"sent": 2, "failed": 0, "waiting": 0}
        assert [json.loads(body)["id"] for _, _, body in listener.got] == ["1", "1", "1", "1", "2"]
        for target, headers, body in listener.got:
            assert target == "/hook?key=k"
            stamp, _, proof = headers["Streamsvc-Signature"].removeprefix("t=").partition(",v1=")
            assert (
                proof
                == hmac.new(watch["secret"].encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
            )
            assert abs(int(stamp) - clock.utc().timestamp()) < 60


async def test_what_a_webhook_refuses_or_never_answers_is_given_up_and_counted(quick: None) -> None:
    before = counted("refused"), counted("no_answer")
    async with listening(410, *[None] * webhook.TRIES) as listener:
        made, task = await running(Told())
        await made.hooked("when somebody starts talking", 0.0, listener.url)
        made.spoke(speech(1.0, active=True))
        made.spoke(speech(2.0, active=True))
        await listener.until(1 + webhook.TRIES)
        made.close()
        await task
        assert made.all()[0]["webhook"] == {"sent": 0, "failed": 2, "waiting": 0}
        assert (counted("refused"), counted("no_answer")) == (before[0] + 1, before[1] + 1)


async def test_more_alerts_than_may_wait_drop_the_oldest_and_what_is_left_at_the_end_is_counted(
    quick: None,
) -> None:
    async with listening() as listener:
        hook = Webhook(listener.url, private_urls=True)
        for number in range(webhook.WAITING + 3):
            hook.put({"id": number})
        assert hook.failed == 3
        task = asyncio.create_task(hook.run())
        await listener.until(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert json.loads(listener.got[0][2]) == {"id": 3}
        assert hook.sent + hook.failed >= webhook.WAITING + 2  # one may have been on its way


async def test_the_webhooks_of_removed_watches_count_and_are_not_waited_for_for_long(quick: None) -> None:
    async with listening(*[None] * 100) as listener:
        made, task = await running(Told(), most=2)
        for _ in range(2):
            watch = await made.hooked("when somebody starts talking", 0.0, listener.url)
            made.spoke(speech(1.0, active=True))
            made.remove(watch["id"])
        with pytest.raises(CapacityError):
            made.add("when a cat appears")
        began = clock.now()
        made.close()
        await task
        assert clock.now() - began < 3.0
        assert made._sending == set()


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a/b", "https://", "https://me:secret@a.example/", "https://a.example/#part", "nonsense"],
)
async def test_what_is_no_url_of_a_webhook_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Webhook(url, private_urls=True)
    assert caught.value.code == "bad_webhook"
    assert "secret" not in caught.value.message


async def test_a_webhook_into_a_private_network_is_refused_unless_it_is_allowed() -> None:
    made, task = await running(Told(), private=False)
    with pytest.raises(Forbidden):
        await made.hooked("when a cat appears", 0.0, "http://127.0.0.1:9/hook")
    assert made.all() == []
    made.close()
    await task


def test_the_signature_covers_time_and_body() -> None:
    one = signature("s", b"body", 1000.5)
    assert one.startswith("t=1000,v1=")
    assert (
        len(
            {
                one,
                signature("s", b"bodz", 1000.5),
                signature("s", b"body", 1001.0),
                signature("t", b"body", 1000.5),
            }
        )
        == 4
    )


# --- doors ----------------------------------------------------------------------------------------------------------


async def test_watches_by_the_door_and_the_socket_tell_no_address(tmp_path: Path) -> None:
    async with (
        listening() as listener,
        serving(tmp_path, server={"private_urls": True}) as (_, place, client),
    ):
        session = (await client.post("/v1/sessions", json={"no_store": True})).json()["id"]
        path = f"/v1/sessions/{session}/watches"
        made = await client.post(
            path, json={"when": "when a cat appears", "cooldown_s": 3, "webhook": f"{listener.url}/hidden"}
        )
        assert made.status_code == 201
        assert made.json()["secret"].startswith("whsec_")
        shown = (await client.get(path)).json()
        assert [row["when"] for row in shown] == ["when a cat appears"]
        assert "hidden" not in str(shown)
        assert "secret" not in str(shown)
        refused = await client.post(path, json={"when": "when the dog barks"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "cannot_watch")
        assert (await client.delete(f"{path}/{made.json()['id']}")).status_code == 200
        assert (await client.delete(f"{path}/{made.json()['id']}")).status_code == 404
        assert (await client.get("/v1/sessions/0.none/watches")).status_code == 404
        async with socket_of(place, session) as events:
            await events.send(
                json.dumps({"type": "watch.add", "when": "when a cat appears", "cooldown_s": 5})
            )
            (added,) = (await until(events, "watch.added"))[-1:]
            await events.send(json.dumps({"type": "watch.add", "when": "when the dog barks"}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "cannot_watch"
            await events.send(json.dumps({"type": "watch.add"}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "bad_watch"
            await events.send(json.dumps({"type": "watch.remove", "watch_id": added["watch_id"]}))
            assert (await until(events, "watch.removed"))[-1]["when"] == "when a cat appears"
        assert (await client.get(path)).json() == []
