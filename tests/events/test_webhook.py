"""Webhooks are signed, retried with the same body, bounded, and never quote their URL."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.errors import Forbidden, InvalidRequest
from streamsvc.core.http_client import HostClient
from streamsvc.events import webhook
from streamsvc.events.webhook import Webhook, signature
from tests.builders.internet import INSIDE, PUBLIC, internet, two_sites
from tests.fakes.http_receiver import listening


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_DELAY", 0.01)


@contextlib.asynccontextmanager
async def sending(url: str) -> AsyncIterator[Webhook]:
    """A running webhook; at the end it is closed and has sent all."""
    hook = Webhook(url, private_urls=True)
    task = asyncio.create_task(hook.run())
    yield hook
    hook.close()
    await task


def counted(result: str) -> float:
    return float(metrics.webhooks.labels(result)._value.get())


async def test_a_webhook_is_signed_and_retried_with_the_same_body() -> None:
    async with listening(503, None, 429) as listener, sending(f"{listener.url}/hook?key=k") as hook:
        hook.put({"id": "1"})
        await listener.until(4)
        hook.put({"id": "2"})
        await listener.until(5)
        hook.close()
    assert hook.describe() == {"sent": 2, "failed": 0, "waiting": 0}
    assert [json.loads(body)["id"] for _, _, body in listener.got] == ["1", "1", "1", "1", "2"]
    for target, headers, body in listener.got:
        assert target == "/hook?key=k"
        assert headers["Content-Type"] == "application/json"
        stamp, _, proof = headers["Streamsvc-Signature"].removeprefix("t=").partition(",v1=")
        signed = f"{stamp}.".encode() + body
        assert proof == hmac.new(hook.secret.encode(), signed, hashlib.sha256).hexdigest()
        assert abs(int(stamp) - clock.utc().timestamp()) < 60


async def test_refused_alerts_are_not_retried_and_those_without_a_response_are_given_up() -> None:
    before = counted("refused"), counted("no_answer")
    async with listening(410, *[None] * webhook.MAX_TRIES) as listener, sending(listener.url) as hook:
        hook.put({"id": "1"})
        hook.put({"id": "2"})
        await listener.until(1 + webhook.MAX_TRIES)
    assert hook.describe() == {"sent": 0, "failed": 2, "waiting": 0}
    assert (counted("refused"), counted("no_answer")) == (before[0] + 1, before[1] + 1)


async def test_a_full_queue_drops_the_oldest_and_a_cancelled_one_counts_the_rest_as_failed() -> None:
    async with listening() as listener:
        hook = Webhook(listener.url, private_urls=True)
        for number in range(webhook.QUEUE_SIZE + 3):
            hook.put({"id": number})
        assert hook.failed == 3
        task = asyncio.create_task(hook.run())
        await listener.until(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert json.loads(listener.got[0][2]) == {"id": 3}
        assert hook.sent + hook.failed >= webhook.QUEUE_SIZE + 2  # one may have been in flight


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a/b", "https://", "https://me:secret@a.example/", "https://a.example/#part", "nonsense"],
)
async def test_an_invalid_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Webhook(url, private_urls=True)
    assert caught.value.code == "bad_webhook"
    assert "secret" not in caught.value.message


async def test_a_private_host_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(Forbidden):
        await Webhook("http://127.0.0.1:9/hook", private_urls=False).check()
    await Webhook("http://127.0.0.1:9/hook", private_urls=True).check()


async def test_a_name_that_turns_inward_is_never_connected_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is public, each later one is not."""
    net = internet(monkeypatch, turning_example=[PUBLIC, INSIDE])
    with two_sites() as (public, inside):
        hook = Webhook(f"https://turning.example:{public.port}/hook", private_urls=False)
        await hook.check()
        assert (net.resolved, net.connected) == (["turning.example"], [])
        hook.put({"id": "1"})
        hook.close()
        await hook.run()  # no TLS there: the first try fails, and each further one asks for the name again
    assert (hook.failed, inside.asked) == (1, [])
    assert len(net.resolved) > 1
    assert set(net.connected) == {PUBLIC}


async def test_a_redirect_of_a_webhook_is_not_followed() -> None:
    async with listening(302) as listener, sending(f"{listener.url}/hook") as hook:
        hook.put({"id": "1"})
        await listener.until(1)
    assert [target for target, _, _ in listener.got] == ["/hook"]
    assert hook.describe() == {"sent": 0, "failed": 1, "waiting": 0}


def test_the_signature_covers_time_and_body() -> None:
    one = signature("s", b"body", 1000.5)
    assert one.startswith("t=1000,v1=")
    others = {
        signature("s", b"bodz", 1000.5),
        signature("s", b"body", 1001.0),
        signature("t", b"body", 1000.5),
    }
    assert len({one} | others) == 4


def test_tries_are_ever_further_apart(virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    async def request(self: HostClient, *_: object) -> tuple[int, str]:
        times.append(clock.now())
        return 503, ""

    async def main() -> None:
        async with sending("http://127.0.0.1:9/") as hook:
            hook.put({"id": "1"})
        assert hook.describe()["failed"] == 1

    monkeypatch.setattr(webhook, "FIRST_DELAY", 1.0)
    monkeypatch.setattr(HostClient, "request", request)
    virtual.run(main())
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == webhook.MAX_TRIES - 1
    for number, wait in enumerate(waits):
        assert 0.7 * 2**number - 0.01 <= wait <= 2**number + 0.01
