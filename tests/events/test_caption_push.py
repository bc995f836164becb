"""Pushes against local targets that follow the documents strictly, and on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamsvc.core import clock, host_policy
from streamsvc.core.errors import Forbidden, InvalidRequest, Unprocessable
from streamsvc.core.session_clock import SessionClock
from streamsvc.events import caption_push
from streamsvc.events.caption_posts import PostResult, RetryPolicy
from streamsvc.events.caption_push import Poster, Push, PushError, parse_target
from tests.builders.certificate import certificate
from tests.builders.internet import INSIDE, PUBLIC, internet, two_sites
from tests.fakes.caption_target import QUICK, SECRET, SIGNED, STREAM, caption_target
from tests.fakes.http_receiver import listening


class Captions:
    """Closed captions of a session, added by the test."""

    def __init__(self) -> None:
        self.clock = SessionClock()
        self.all_read = asyncio.Event()
        self.running: asyncio.Task[None] | None = None
        self._batches: asyncio.Queue[list[tuple[int | None, str]] | None] = asyncio.Queue()

    def add(self, *texts: str, ago: float = 1.0) -> None:
        self.all_read.clear()
        start = self.clock.position() - ago
        self._batches.put_nowait(
            [(1, json.dumps({"type": "caption.final", "text": text, "start": start})) for text in texts]
        )

    def end(self) -> None:
        self._batches.put_nowait(None)

    async def next(self) -> list[tuple[int | None, str]] | None:
        if self._batches.empty():
            self.all_read.set()
        return await self._batches.get()

    async def over(self) -> None:
        assert self.running is not None
        await asyncio.wait_for(asyncio.shield(self.running), 5)


@contextlib.asynccontextmanager
async def pushing(
    to: str, url: str, policy: RetryPolicy = QUICK, *, token: str = "", label: str = ""
) -> AsyncIterator[tuple[Captions, Push, list[PushError]]]:
    """A running push; at the end it must be over by itself or by its captions' end."""
    captions, failures = Captions(), list[PushError]()
    target = parse_target(to, url, "en-US", token, label)
    made = Push(target, True, captions.clock, failures.append, policy)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        captions.running = group.create_task(made.run(captions.next))
        yield captions, made, failures
        captions.end()
    assert made.over
    assert SECRET not in json.dumps(made.describe()) + repr(made.target) + "".join(map(str, failures))


def counts(made: Push) -> tuple[int, int, int]:
    shown = made.describe()
    return shown["sent"], shown["retried"], shown["dropped"]


# --- Zoom ---


async def test_zoom_gets_every_closed_caption_in_order_as_plain_text_with_the_signed_query_unchanged() -> (
    None
):
    async with caption_target("zoom") as zoom:
        async with pushing("zoom", zoom.url) as (captions, made, failures):
            captions.add("The best of times.", "Grüße an <alle>, und noch ein paar Worte mehr.")
            await zoom.until(lambda: len(zoom.bodies) == 2)
            captions.add("The end.")
        assert zoom.bodies == [
            "The best of times.\n",
            "Grüße an ‹alle›, und noch\nein paar Worte mehr.\n",
            "The end.\n",
        ]
        assert zoom.seqs == [1, 2, 3]
        assert (counts(made), made.describe()["state"], failures) == ((3, 0, 0), "ended", [])
        assert len({head.split("Host: ")[1].split("\r")[0] for head in zoom.heads}) == 1


async def test_a_meeting_that_has_captions_already_is_continued_with_the_next_number() -> None:
    async with (
        caption_target("zoom", last=41) as zoom,
        pushing("zoom", zoom.url + "&seq=7&lang=de-DE") as (captions, *_),
    ):
        captions.add("Hello.")
        await zoom.until(lambda: zoom.bodies == ["Hello.\n"])
        assert zoom.seqs == [42]


async def test_a_retry_has_the_same_number_whatever_went_wrong() -> None:
    async with caption_target("zoom") as zoom:
        zoom.responses.extend([503, 500, 408, 429, 403, 400, 405])
        async with pushing("zoom", zoom.url) as (captions, made, _):
            captions.add("Hello.")
            await zoom.until(lambda: len(zoom.bodies) == 1)
            captions.add("Again.")
        assert zoom.seqs == [1] * 8 + [2]
        assert counts(made) == (2, 7, 0)


async def test_a_caption_whose_answer_was_lost_is_shown_once_only() -> None:
    async with caption_target("zoom") as zoom:
        zoom.responses.append("lost")
        async with pushing("zoom", zoom.url) as (captions, made, _):
            captions.add("Hello.")
            await zoom.until(lambda: zoom.seqs == [1, 1])
            captions.add("Again.")
        assert zoom.bodies == ["Hello.\n", "Again.\n"]
        assert counts(made) == (2, 1, 0)


async def test_a_number_that_zoom_does_not_expect_is_corrected() -> None:
    async with caption_target("zoom") as zoom, pushing("zoom", zoom.url) as (captions, *_):
        captions.add("Hello.")
        await zoom.until(lambda: len(zoom.bodies) == 1)
        zoom.last = 10  # another captioner has posted too
        captions.add("Again.")
        await zoom.until(lambda: len(zoom.bodies) == 2)
        assert zoom.seqs == [1, 2, 11]


async def test_a_meeting_that_has_not_started_is_waited_for() -> None:
    async with caption_target("zoom") as zoom:
        zoom.responses.extend([400] * 7)
        async with pushing("zoom", zoom.url) as (captions, made, failures):
            captions.add("One.", "Two.", "Three.")
            await zoom.until(lambda: len(zoom.seqs) > 1)
            assert made.describe()["state"] == "waiting"
            await zoom.until(lambda: len(zoom.bodies) == 1)
        assert zoom.bodies == ["Three.\n"]
        assert set(zoom.seqs) == {1}
        assert (counts(made), failures) == ((1, 5, 2), [])


@pytest.mark.parametrize("status", [403, 405])
@pytest.mark.parametrize("to", ["zoom", "youtube"])
async def test_a_target_that_keeps_refusing_fails_the_push_with_one_error(to: str, status: int) -> None:
    async with caption_target(to) as receiver:
        receiver.responses.extend([status] * 100)
        async with pushing(to, receiver.url) as (captions, made, failures):
            captions.add("Hello.", "Again.")
            await receiver.until(lambda: len(receiver.seqs) == QUICK.max_refusals)
            await captions.over()
        assert receiver.seqs == [1] * QUICK.max_refusals
        assert receiver.bodies == []
        shown = made.describe()
        assert (shown["state"], shown["last_error"]["code"], shown["dropped"]) == (
            "failed",
            f"status_{status}",
            2,
        )
        assert [(error.code, error.retryable) for error in failures] == [("push_stopped", False)]
        assert "127.0.0.1" in failures[0].message


async def test_redirects_are_not_followed() -> None:
    async with caption_target("zoom") as zoom:
        zoom.responses.extend([302] * 100)
        async with pushing("zoom", zoom.url) as (captions, *_):
            captions.add("Hello.")
            await captions.over()
        assert not any("elsewhere" in head.split("\r\n")[0] for head in zoom.heads)


# --- YouTube ---


async def test_youtube_gets_times_and_text_and_waiting_cues_in_one_post() -> None:
    async with caption_target("youtube") as youtube:
        youtube.gate.clear()
        async with pushing("youtube", youtube.url) as (captions, made, _):
            captions.add("That were the best of times, that were the worst of times.", ago=2.0)
            await youtube.until(lambda: len(youtube.seqs) == 1)
            captions.add("Two.", "Three.")
            await captions.all_read.wait()
            youtube.gate.set()
            await youtube.until(lambda: len(youtube.bodies) == 2)
        first, second = (body.split("\n") for body in youtube.bodies)
        assert first[1:] == ["That were the best of times,<br>that were the worst of times.", ""]
        assert second[1::2] == ["Two.", "Three."]
        assert counts(made) == (3, 0, 0)
        spoken = datetime.datetime.fromisoformat(f"{first[0]}+00:00")
        assert abs((spoken - captions.clock.started_utc).total_seconds() + 2.0) < 1.0


async def test_a_server_whose_clock_is_off_by_an_hour_gets_its_own_times_under_the_same_number() -> None:
    async with caption_target("youtube", ahead=3600.0) as youtube:
        async with pushing("youtube", youtube.url) as (captions, made, _):
            captions.add("Hello.")
            await youtube.until(lambda: len(youtube.bodies) == 1)
            captions.add("Again.")
        assert youtube.seqs == [1, 1, 2]
        assert counts(made) == (2, 1, 0)


# --- slow, dead and private targets ---


async def test_a_slow_target_loses_the_oldest_captions_which_are_counted() -> None:
    async with caption_target("zoom") as zoom:
        zoom.gate.clear()
        async with pushing("zoom", zoom.url) as (captions, made, _):
            captions.add("0")
            await zoom.until(lambda: len(zoom.heads) == 1)
            for number in range(1, 10):
                captions.add(str(number))
            await captions.all_read.wait()
            assert (made.describe()["waiting"], counts(made)) == (QUICK.queue_size, (0, 0, 5))
            zoom.gate.set()
            await zoom.until(lambda: len(zoom.bodies) == 5)
        assert zoom.bodies == ["0\n", "6\n", "7\n", "8\n", "9\n"]
        assert counts(made) == (5, 0, 5)


async def test_a_try_without_a_response_ends_at_the_timeout_and_is_repeated() -> None:
    async with caption_target("youtube") as youtube:
        youtube.responses.extend(["hang", "hang"])
        policy = RetryPolicy(first_delay=0.01, max_delay=0.02, timeout=0.1)
        async with pushing("youtube", youtube.url, policy) as (captions, made, _):
            captions.add("Hello.")
            await youtube.until(lambda: len(youtube.bodies) == 1)
        assert youtube.seqs == [1, 1, 1]
        assert counts(made) == (1, 2, 0)


async def test_the_end_of_a_session_waits_for_a_dead_target_for_the_grace_only() -> None:
    async with caption_target("youtube") as youtube:
        youtube.responses.extend(["hang"] * 9)
        async with pushing("youtube", youtube.url) as (captions, made, _):
            captions.add("Hello.")
            await youtube.until(lambda: youtube.seqs == [1])
            captions.add("Lost.")
            captions.end()
            start = clock.now()
            await captions.over()
            assert clock.now() - start < QUICK.timeout
        assert counts(made) == (0, 0, 2)


async def test_a_push_that_is_stopped_posts_nothing_more() -> None:
    async with caption_target("youtube") as youtube:
        youtube.gate.clear()
        async with pushing("youtube", youtube.url) as (captions, made, failures):
            captions.add("One.")
            await youtube.until(lambda: youtube.seqs == [1])
            captions.add("Two.")
            made.stop()
            await captions.over()
            youtube.gate.set()
        assert youtube.seqs == [1]
        assert (made.describe()["state"], failures) == ("ended", [])


async def test_captions_that_raise_end_the_push_and_nothing_else() -> None:
    async def broken() -> None:
        raise ValueError("words that were said")

    async with caption_target("youtube") as youtube:
        failures = list[PushError]()
        made = Push(
            parse_target("youtube", youtube.url, "en"), True, Captions().clock, failures.append, QUICK
        )
        with capture_logs() as logs:
            await made.run(broken)
        assert made.describe()["last_error"]["code"] == "internal"
        assert len(failures) == 1
        assert "words" not in json.dumps(logs)


async def test_neither_the_secret_nor_the_words_reach_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with caption_target("zoom") as zoom:
        zoom.responses.extend([200, 503, "lost", *[403] * 9])
        with capture_logs() as logs:
            async with pushing("zoom", zoom.url) as (captions, *_):
                captions.add("Confidential one.", "Confidential two.", "Confidential three.")
                await captions.over()
    written = json.dumps(logs) + caplog.text
    assert "push stopped" in written
    assert SECRET not in written
    assert "onfidential" not in written


@pytest.mark.parametrize(
    "url",
    [
        "",
        "captions",
        "ftp://x/y",
        "https://",
        "https:///x",
        f"https://user:{SECRET}@x/y",
        f"https://x/y#{SECRET}",
        "https://x:99999/",
    ],
)
def test_an_invalid_target_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_target("zoom", url, "en-US")
    assert caught.value.code == "bad_url"
    assert SECRET not in caught.value.message


async def test_private_hosts_and_unknown_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(url: str) -> str:
        poster = Poster(parse_target("zoom", url, "en-US"), False, 0.0, 1.0)
        with pytest.raises((Forbidden, Unprocessable)) as caught:
            await poster.resolve()
        assert SECRET not in caught.value.message
        return caught.value.code

    for host in ("127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254"):
        assert await refused(f"https://{host}/closedcaption?{SIGNED}") == "private_url"

    def nowhere(*_: Any) -> Any:
        raise OSError("unknown")

    monkeypatch.setattr(host_policy, "addresses", nowhere)
    assert await refused(f"https://nobody.invalid/closedcaption?{SIGNED}") == "unknown_host"


@pytest.mark.parametrize(("name", "status"), [("captions.example", 200), ("other.example", None)])
async def test_a_public_host_gets_https_at_the_address_that_was_checked_and_must_prove_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: int | None
) -> None:
    resolved: list[str] = []

    def once(host: str, port: int, private_urls: bool) -> tuple[str, ...]:
        resolved.append(host)
        return ("127.0.0.1",)

    monkeypatch.setattr(host_policy, "addresses", once)
    monkeypatch.setattr(host_policy, "is_public", lambda address: ipaddress.ip_address(address).is_loopback)
    served, trusting = certificate(tmp_path, name)
    async with caption_target("youtube", served) as youtube:
        url = youtube.url.replace("127.0.0.1", "captions.example")
        assert url.startswith("http:"), "as YouTube shows it"
        poster = Poster(parse_target("youtube", url, "en-US"), False, clock.now(), 5.0, trusting)
        await poster.resolve()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")[:23]
        for seq in (1, 2):
            answer = await poster.post(seq, "text/plain", f"{now}\nHello.\n")
            assert answer.status == status
        await poster.close()
        assert resolved == ["captions.example"] * (1 if status else 2)  # again only after the address failed
        assert all(
            f"Host: captions.example:{url.split(':')[2].split('/')[0]}" in head for head in youtube.heads
        )


@pytest.mark.parametrize("provider", ["youtube", "zoom"])
async def test_a_name_that_turns_inward_is_never_connected_there(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """DNS rebinding: the first answer is public, each later one is not."""
    net = internet(monkeypatch, turning_example=[PUBLIC, INSIDE])
    with two_sites() as (public, inside):
        url = f"https://turning.example:{public.port}/closedcaption?{SIGNED}"
        poster = Poster(parse_target(provider, url, "en-US"), False, 0.0, 2.0)
        await poster.resolve()
        for seq in range(
            3
        ):  # no TLS there: the first try fails, and each further one asks for the name again
            assert (await poster.post(seq, "text/plain", "Hello.\n")).status is None
        assert await poster.last_seq() is None
        await poster.close()
    assert inside.asked == []
    assert len(net.resolved) > 1
    assert net.connected == [PUBLIC]


async def test_a_redirect_of_a_target_is_not_followed() -> None:
    async with listening(302) as listener:
        poster = Poster(parse_target("zoom", f"{listener.url}/closedcaption?a=b", "en-US"), True, 0.0, 2.0)
        assert (await poster.post(1, "text/plain", "Hello.\n")).status == 302
        await poster.close()
    assert len(listener.got) == 1


# --- the virtual clock ---


class FakePoster:
    """A poster with the given statuses as results; records the times of its tries."""

    statuses: deque[int | None]
    times: list[float]

    def __init__(self, *_: Any) -> None:
        self.zero = clock.now()

    async def post(self, seq: int, kind: str, body: str) -> PostResult:
        type(self).times.append(clock.now() - self.zero)
        return PostResult(type(self).statuses.popleft(), "", 0.0, 0.0)

    async def last_seq(self) -> int | None:
        return None

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("statuses", "times"),
    [
        (
            [None, 503, None, 502, 504, None, 200],
            [0, 0.5, 1.5, 3.5, 7.5, 15.5],
        ),  # then 23.5: too old for Zoom
        ([400, 400, 400], [0, 5, 10]),
        ([403, 405, 403, 405, 403], [0, 0.5, 1.5, 3.5, 7.5]),
        ([429, 200], [0, 5]),
    ],
)
def test_the_delays_between_tries_are_those_of_the_policy(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, statuses: list[int | None], times: list[float]
) -> None:
    FakePoster.statuses, FakePoster.times = deque(statuses), []
    monkeypatch.setattr(caption_push, "Poster", FakePoster)

    async def main() -> None:
        captions, failures = Captions(), list[PushError]()
        made = Push(
            parse_target("zoom", f"https://zoom.example/closedcaption?{SIGNED}", "en-US"),
            False,
            captions.clock,
            failures.append,
        )
        running = asyncio.create_task(made.run(captions.next))
        captions.add("Hello.", ago=0.0)
        await clock.sleep(60)
        assert FakePoster.times == pytest.approx(times)
        assert len(failures) == (403 in statuses)
        captions.end()
        await running

    virtual.run(main())


# --- OvenMediaEngine ---


async def test_ovenmediaengine_gets_each_cue_as_a_subtitle_that_lasts_its_reading_time() -> None:
    async with caption_target("ome") as ome:
        url = f"{ome.url}:sendSubtitles"
        async with pushing("ome", url, token=SECRET, label="English") as (captions, made, failures):
            captions.add("Hi.", "A caption of forty characters, no more..")
            await ome.until(lambda: len(ome.bodies) == 2)
        assert ome.bodies == ["English 1000: Hi.", "English 2000: A caption of forty characters, no more.."]
        assert (counts(made), made.describe()["state"], failures) == ((2, 0, 0), "ended", [])
        assert [head.split(" ")[1] for head in ome.heads] == [f"{STREAM}:sendSubtitles"] * 2


async def test_ovenmediaengine_gets_each_cue_as_an_event_where_that_was_named() -> None:
    async with caption_target("ome") as ome:
        async with pushing("ome", f"{ome.url}:sendEvent", token=SECRET) as (captions, *_):
            captions.add("Hello <all>.")
            await ome.until(lambda: len(ome.bodies) == 1)
        assert ome.bodies == ["Hello \u2039all\u203a."]


async def test_a_stream_that_is_not_there_yet_is_waited_for() -> None:
    async with caption_target("ome") as ome:
        ome.responses.extend([404, 404])
        async with pushing("ome", f"{ome.url}:sendEvent", token=SECRET) as (captions, made, failures):
            captions.add("Hello.")
            await ome.until(lambda: len(ome.bodies) == 1)
        assert (counts(made), failures) == ((1, 2, 0), [])


async def test_a_wrong_token_of_ovenmediaengine_ends_the_push() -> None:
    async with caption_target("ome") as ome:
        async with pushing("ome", f"{ome.url}:sendEvent", token="wrong") as (captions, made, failures):
            captions.add("Hello.")
            await captions.over()
        error = made.describe()["last_error"]
        assert error is not None and (error["code"], len(failures)) == ("status_401", 1)
        assert ome.bodies == []


def test_a_url_of_ovenmediaengine_names_what_of_its_api_is_used() -> None:
    with pytest.raises(InvalidRequest, match=":sendSubtitles"):
        parse_target("ome", "https://ome.example/v1/vhosts/default/apps/app/streams/talk", "en")
