"""Pushes against local servers that hold to the documents strictly, on a virtual clock, and through the door of a real service."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import logging
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from streamsvc.core import clock, host_policy
from streamsvc.core.errors import Forbidden, InvalidRequest, Unprocessable
from streamsvc.events import caption_push
from streamsvc.events.caption_posts import Answer, Pace
from streamsvc.events.caption_push import Poster, Push, PushError, target
from tests.builders.service import serving, socket_of, until

SECRET = "nYtXJqRKCW"
SIGNED = f"id=200610693&ns=GZHkEA==&expire=86400&sparams=id%2Cns%2Cexpire&signature={SECRET}"
QUICK = Pace(first=0.01, most=0.02, slow=0.01, refusals=3, not_yet=3, timeout=2.0, grace=0.3, lines=4)
YOUTUBE_BODY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\n[^\n]+\n)+")
REASONS = {200: "OK", 302: "Found"}


class Taker:
    """A local target. `says` is used up first: a status, "lost" (taken, but not answered) or "hang"; then the rules hold.

    Zoom: the number after the last one, else 403. YouTube: likewise, else 400, and times within 60 s of its clock.
    """

    def __init__(self, to: str, *, last: int = 0, ahead: float = 0.0) -> None:
        self.to, self.last, self.ahead = to, last, ahead
        self.says: deque[int | str] = deque()
        self.taken: list[str] = []  # bodies
        self.seqs: list[int] = []  # of every POST
        self.heads: list[str] = []  # of every request
        self.gate = asyncio.Event()  # nothing is answered while it is not set
        self.gate.set()
        self.url = ""
        self.connections = set[asyncio.Task[Any]]()
        self._changed = asyncio.Event()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                self._changed.set()
        self._changed.set()
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = re.search(r"(?i)content-length: (\d+)", head)
        body = (await reader.readexactly(int(size[1]) if size else 0)).decode()
        self.heads.append(head)
        method, path, _ = head.split("\r\n")[0].split(" ")
        if method == "POST":
            self.seqs.append(int(re.search(r"[?&]seq=(\d+)(&|$)", path)[1]))  # type: ignore[index]
        self._changed.set()
        await self.gate.wait()
        said = self.says.popleft() if self.says and method == "POST" else 200
        if said == "hang":
            await asyncio.Event().wait()
        status, text = self._judge(method, path, head, body) if said in (200, "lost") else (int(said), "")
        if said == "lost":
            return False
        more = "Location: /elsewhere\r\n" if status == 302 else ""
        writer.write(
            f"HTTP/1.1 {status} {REASONS.get(status, 'No')}\r\n{more}Content-Length: {len(text)}\r\n\r\n{text}".encode()
        )
        await writer.drain()
        return True

    def _judge(self, method: str, path: str, head: str, body: str) -> tuple[int, str]:
        if method == "GET":
            assert path == f"/closedcaption/seq?{SIGNED}&"
            return 200, f"{self.last}\n"
        assert method == "POST", head
        seq = self.seqs[-1]
        kind = re.search(r"(?i)content-type: (.*)\r", head)
        if self.to == "zoom":
            assert path == f"/closedcaption?{SIGNED}&seq={seq}&lang=en-US"
            assert kind and kind[1] == "text/plain; charset=utf-8"
            if seq != self.last + 1:
                return 403, ""
        else:
            assert path == f"/closedcaption?cid={SECRET}&seq={seq}"
            assert kind and kind[1] == "text/plain"
            assert YOUTUBE_BODY.fullmatch(body)
            now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.ahead)
            stamps = [datetime.datetime.fromisoformat(f"{line}+00:00") for line in body.split("\n")[0:-1:2]]
            own = now.isoformat(timespec="milliseconds").removesuffix("+00:00")
            if seq != self.last + 1 or any(abs((stamp - now).total_seconds()) > 60 for stamp in stamps):
                return 400, f"{own}\nTimestamp skew larger than 60 sec in {path}"
            self.last = seq
            self.taken.append(body)
            return 200, f"{own}\n"
        self.last = seq
        self.taken.append(body)
        return 200, ""


@contextlib.asynccontextmanager
async def taking(to: str, tls: ssl.SSLContext | None = None, **rules: Any) -> AsyncIterator[Taker]:
    taker = Taker(to, **rules)
    server = await asyncio.start_server(taker.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    taker.url = f"http://127.0.0.1:{port}/closedcaption?{SIGNED if to == 'zoom' else f'cid={SECRET}'}"
    try:
        yield taker
    finally:
        server.close()
        for task in taker.connections:
            task.cancel()
        await asyncio.gather(*taker.connections, return_exceptions=True)


class Talk:
    """A session's closed captions, said by the test."""

    def __init__(self) -> None:
        self.began = datetime.datetime.now(datetime.UTC)
        self.zero = clock.now()
        self.heard = asyncio.Event()  # all that was said so far
        self.running: asyncio.Task[None] | None = None
        self._said: asyncio.Queue[list[tuple[int | None, str]] | None] = asyncio.Queue()

    def say(self, *texts: str, ago: float = 1.0) -> None:
        self.heard.clear()
        start = self.position() - ago
        self._said.put_nowait(
            [(1, json.dumps({"type": "caption.final", "text": text, "start": start})) for text in texts]
        )

    def end(self) -> None:
        self._said.put_nowait(None)

    def position(self) -> float:
        return clock.now() - self.zero

    async def next(self) -> list[tuple[int | None, str]] | None:
        if self._said.empty():
            self.heard.set()
        return await self._said.get()

    async def over(self) -> None:
        assert self.running is not None
        await asyncio.wait_for(asyncio.shield(self.running), 5)


@contextlib.asynccontextmanager
async def pushing(to: str, url: str, pace: Pace = QUICK) -> AsyncIterator[tuple[Talk, Push, list[PushError]]]:
    """A running push; at the end it must be over by itself or by its captions' end."""
    talk, failures = Talk(), list[PushError]()
    made = Push(target(to, url, "en-US"), True, talk.began, talk.zero, talk.position, failures.append, pace)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        talk.running = group.create_task(made.run(talk.next))
        yield talk, made, failures
        talk.end()
    assert made.over
    assert SECRET not in json.dumps(made.describe()) + repr(made.where) + "".join(map(str, failures))


def counts(made: Push) -> tuple[int, int, int]:
    told = made.describe()
    return told["sent"], told["retried"], told["dropped"]


# --- Zoom ---


async def test_zoom_gets_every_closed_caption_in_order_as_plain_text_with_the_signed_query_unchanged() -> (
    None
):
    async with taking("zoom") as zoom:
        async with pushing("zoom", zoom.url) as (talk, made, failures):
            talk.say("The best of times.", "Grüße an <alle>, und noch ein paar Worte mehr.")
            await zoom.until(lambda: len(zoom.taken) == 2)
            talk.say("The end.")
        assert zoom.taken == [
            "The best of times.\n",
            "Grüße an ‹alle›, und noch\nein paar Worte mehr.\n",
            "The end.\n",
        ]
        assert zoom.seqs == [1, 2, 3]
        assert (counts(made), made.describe()["state"], failures) == ((3, 0, 0), "ended", [])
        assert len({head.split("Host: ")[1].split("\r")[0] for head in zoom.heads}) == 1


async def test_a_meeting_that_has_captions_already_is_continued_with_the_next_number() -> None:
    async with taking("zoom", last=41) as zoom, pushing("zoom", zoom.url + "&seq=7&lang=de-DE") as (talk, *_):
        talk.say("Hello.")
        await zoom.until(lambda: zoom.taken == ["Hello.\n"])
        assert zoom.seqs == [42]


async def test_a_retry_has_the_same_number_whatever_went_wrong() -> None:
    async with taking("zoom") as zoom:
        zoom.says.extend([503, 500, 408, 429, 403, 400, 405])
        async with pushing("zoom", zoom.url) as (talk, made, _):
            talk.say("Hello.")
            await zoom.until(lambda: len(zoom.taken) == 1)
            talk.say("Again.")
        assert zoom.seqs == [1] * 8 + [2]
        assert counts(made) == (2, 7, 0)


async def test_a_caption_whose_answer_was_lost_is_shown_once_only() -> None:
    async with taking("zoom") as zoom:
        zoom.says.append("lost")
        async with pushing("zoom", zoom.url) as (talk, made, _):
            talk.say("Hello.")
            await zoom.until(lambda: zoom.seqs == [1, 1])
            talk.say("Again.")
        assert zoom.taken == ["Hello.\n", "Again.\n"]
        assert counts(made) == (2, 1, 0)


async def test_a_number_that_zoom_does_not_expect_is_set_right() -> None:
    async with taking("zoom") as zoom, pushing("zoom", zoom.url) as (talk, *_):
        talk.say("Hello.")
        await zoom.until(lambda: len(zoom.taken) == 1)
        zoom.last = 10  # somebody else typed captions too
        talk.say("Again.")
        await zoom.until(lambda: len(zoom.taken) == 2)
        assert zoom.seqs == [1, 2, 11]


async def test_a_meeting_that_has_not_started_is_waited_for() -> None:
    async with taking("zoom") as zoom:
        zoom.says.extend([400] * 7)
        async with pushing("zoom", zoom.url) as (talk, made, failures):
            talk.say("One.", "Two.", "Three.")
            await zoom.until(lambda: len(zoom.seqs) > 1)
            assert made.describe()["state"] == "waiting"
            await zoom.until(lambda: len(zoom.taken) == 1)
        assert zoom.taken == ["Three.\n"]
        assert set(zoom.seqs) == {1}
        assert (counts(made), failures) == ((1, 5, 2), [])


@pytest.mark.parametrize("status", [403, 405])
@pytest.mark.parametrize("to", ["zoom", "youtube"])
async def test_a_target_that_goes_on_refusing_stops_the_push_and_says_so_once(to: str, status: int) -> None:
    async with taking(to) as taker:
        taker.says.extend([status] * 100)
        async with pushing(to, taker.url) as (talk, made, failures):
            talk.say("Hello.", "Again.")
            await taker.until(lambda: len(taker.seqs) == QUICK.refusals)
            await talk.over()
        assert taker.seqs == [1] * QUICK.refusals
        assert taker.taken == []
        told = made.describe()
        assert (told["state"], told["last_error"]["code"], told["dropped"]) == (
            "failed",
            f"status_{status}",
            2,
        )
        assert [(error.code, error.retryable) for error in failures] == [("push_stopped", False)]
        assert "127.0.0.1" in failures[0].message


async def test_redirects_are_not_followed() -> None:
    async with taking("zoom") as zoom:
        zoom.says.extend([302] * 100)
        async with pushing("zoom", zoom.url) as (talk, *_):
            talk.say("Hello.")
            await talk.over()
        assert not any("elsewhere" in head.split("\r\n")[0] for head in zoom.heads)


# --- YouTube ---


async def test_youtube_gets_times_and_text_and_what_has_gathered_goes_in_one_post() -> None:
    async with taking("youtube") as youtube:
        youtube.gate.clear()
        async with pushing("youtube", youtube.url) as (talk, made, _):
            talk.say("That were the best of times, that were the worst of times.", ago=2.0)
            await youtube.until(lambda: len(youtube.seqs) == 1)
            talk.say("Two.", "Three.")
            await talk.heard.wait()
            youtube.gate.set()
            await youtube.until(lambda: len(youtube.taken) == 2)
        first, second = (body.split("\n") for body in youtube.taken)
        assert first[1:] == ["That were the best of times,<br>that were the worst of times.", ""]
        assert second[1::2] == ["Two.", "Three."]
        assert counts(made) == (3, 0, 0)
        spoken = datetime.datetime.fromisoformat(f"{first[0]}+00:00")
        assert abs((spoken - talk.began).total_seconds() + 2.0) < 1.0


async def test_a_server_whose_clock_is_off_by_an_hour_gets_its_own_times_under_the_same_number() -> None:
    async with taking("youtube", ahead=3600.0) as youtube:
        async with pushing("youtube", youtube.url) as (talk, made, _):
            talk.say("Hello.")
            await youtube.until(lambda: len(youtube.taken) == 1)
            talk.say("Again.")
        assert youtube.seqs == [1, 1, 2]
        assert counts(made) == (2, 1, 0)


# --- slow, dead and private targets ---


async def test_a_slow_server_costs_the_oldest_captions_which_are_counted_and_gets_the_newest() -> None:
    async with taking("zoom") as zoom:
        zoom.gate.clear()
        async with pushing("zoom", zoom.url) as (talk, made, _):
            talk.say("0")
            await zoom.until(lambda: len(zoom.heads) == 1)
            for number in range(1, 10):
                talk.say(str(number))
            await talk.heard.wait()
            assert (made.describe()["waiting"], counts(made)) == (QUICK.lines, (0, 0, 5))
            zoom.gate.set()
            await zoom.until(lambda: len(zoom.taken) == 5)
        assert zoom.taken == ["0\n", "6\n", "7\n", "8\n", "9\n"]
        assert counts(made) == (5, 0, 5)


async def test_a_server_that_does_not_answer_is_given_up_after_the_timeout_and_tried_again() -> None:
    async with taking("youtube") as youtube:
        youtube.says.extend(["hang", "hang"])
        pace = Pace(first=0.01, most=0.02, timeout=0.1)
        async with pushing("youtube", youtube.url, pace) as (talk, made, _):
            talk.say("Hello.")
            await youtube.until(lambda: len(youtube.taken) == 1)
        assert youtube.seqs == [1, 1, 1]
        assert counts(made) == (1, 2, 0)


async def test_the_end_of_a_session_waits_for_a_dead_target_only_so_long() -> None:
    async with taking("youtube") as youtube:
        youtube.says.extend(["hang"] * 9)
        async with pushing("youtube", youtube.url) as (talk, made, _):
            talk.say("Hello.")
            await youtube.until(lambda: youtube.seqs == [1])
            talk.say("Lost.")
            talk.end()
            start = clock.now()
            await talk.over()
            assert clock.now() - start < QUICK.timeout
        assert counts(made) == (0, 0, 2)


async def test_a_push_that_is_stopped_posts_nothing_more() -> None:
    async with taking("youtube") as youtube:
        youtube.gate.clear()
        async with pushing("youtube", youtube.url) as (talk, made, failures):
            talk.say("One.")
            await youtube.until(lambda: youtube.seqs == [1])
            talk.say("Two.")
            made.stop()
            await talk.over()
            youtube.gate.set()
        assert youtube.seqs == [1]
        assert (made.describe()["state"], failures) == ("ended", [])


async def test_captions_that_break_off_end_the_push_without_ending_anything_else() -> None:
    async def broken() -> None:
        raise ValueError("words that were said")

    async with taking("youtube") as youtube:
        failures = list[PushError]()
        made = Push(
            target("youtube", youtube.url, "en"), True, Talk().began, 0.0, lambda: 0.0, failures.append, QUICK
        )
        with capture_logs() as logs:
            await made.run(broken)
        assert made.describe()["last_error"]["code"] == "internal"
        assert len(failures) == 1
        assert "words" not in json.dumps(logs)


async def test_neither_the_secret_nor_the_words_reach_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with taking("zoom") as zoom:
        zoom.says.extend([200, 503, "lost", *[403] * 9])
        with capture_logs() as logs:
            async with pushing("zoom", zoom.url) as (talk, *_):
                talk.say("Confidential one.", "Confidential two.", "Confidential three.")
                await talk.over()
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
def test_what_is_no_target_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        target("zoom", url, "en-US")
    assert caught.value.code == "bad_url"
    assert SECRET not in caught.value.message


async def test_private_hosts_and_unknown_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(url: str) -> str:
        poster = Poster(target("zoom", url, "en-US"), False, 0.0, 1.0)
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


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `name`, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain) + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


@pytest.mark.parametrize(("name", "status"), [("captions.example", 200), ("other.example", None)])
async def test_a_public_host_gets_https_at_the_address_that_was_checked_and_must_prove_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: int | None
) -> None:
    asked: list[str] = []

    def once(host: str, port: int, private_urls: bool) -> tuple[str, ...]:
        asked.append(host)
        return ("127.0.0.1",)

    monkeypatch.setattr(host_policy, "addresses", once)
    monkeypatch.setattr(host_policy, "is_public", lambda address: ipaddress.ip_address(address).is_loopback)
    served, trusting = certificate(tmp_path, name)
    async with taking("youtube", served) as youtube:
        url = youtube.url.replace("127.0.0.1", "captions.example")
        assert url.startswith("http:"), "as YouTube shows it"
        poster = Poster(target("youtube", url, "en-US"), False, clock.now(), 5.0, trusting)
        await poster.resolve()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")[:23]
        for seq in (1, 2):
            answer = await poster.post(seq, "text/plain", f"{now}\nHello.\n")
            assert answer.status == status
        await poster.close()
        assert asked == ["captions.example"] * (
            1 if status else 2
        )  # asked again only where the address did not do
        assert all(
            f"Host: captions.example:{url.split(':')[2].split('/')[0]}" in head for head in youtube.heads
        )


# --- the virtual clock ---


class Refusing:
    """A poster whose target answers what it is told to; remembers when it was asked."""

    answers: deque[int | None]
    times: list[float]

    def __init__(self, *_: Any) -> None:
        self.zero = clock.now()

    async def post(self, seq: int, kind: str, body: str) -> Answer:
        type(self).times.append(clock.now() - self.zero)
        return Answer(type(self).answers.popleft(), "", 0.0, 0.0)

    async def last(self) -> int | None:
        return None

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "times"),
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
def test_the_waits_between_tries_are_those_of_the_pace(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, answers: list[int | None], times: list[float]
) -> None:
    Refusing.answers, Refusing.times = deque(answers), []
    monkeypatch.setattr(caption_push, "Poster", Refusing)

    async def main() -> None:
        talk, failures = Talk(), list[PushError]()
        made = Push(
            target("zoom", f"https://zoom.example/closedcaption?{SIGNED}", "en-US"),
            False,
            talk.began,
            talk.zero,
            talk.position,
            failures.append,
        )
        running = asyncio.create_task(made.run(talk.next))
        talk.say("Hello.", ago=0.0)
        await clock.sleep(60)
        assert Refusing.times == pytest.approx(times)
        assert len(failures) == (403 in answers)
        talk.end()
        await running

    virtual.run(main())


# --- through the door of the service ---


async def test_the_door_needs_the_right_to_publish_and_never_shows_the_url(tmp_path: Path) -> None:
    key = "a-key-of-enough-length"
    async with (
        taking("zoom") as zoom,
        serving(tmp_path, server={"api_key": key, "private_urls": True}, limits={"pushes": 2}) as (
            service,
            _,
            client,
        ),
    ):
        own = {"Authorization": f"Bearer {key}"}
        session = (await client.post("/v1/sessions", json={"no_store": True}, headers=own)).json()["id"]
        door = f"/v1/sessions/{session}/pushes"
        viewer = (await client.post("/v1/tokens", json={"session": session}, headers=own)).json()["token"]
        wanted = {"to": "zoom", "url": zoom.url}
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {viewer}"}, 403)):
            for answer in (
                await client.post(door, json=wanted, headers=headers),
                await client.get(door, headers=headers),
                await client.delete(f"{door}/p_1", headers=headers),
            ):
                assert answer.status_code == status
        made = await client.post(door, json=wanted, headers=own)
        assert made.status_code == 201
        assert made.json()["host"] == "127.0.0.1"
        service.sessions.by_id[session].log.emit(
            "caption.final", {"text": "Hello.", "words": [], "start": 0.0, "end": 1.0, "language": "en"}
        )
        await zoom.until(lambda: zoom.taken == ["Hello.\n"])
        refusals = {
            (409, "already_pushed"): wanted,
            (400, "bad_url"): {**wanted, "url": f"gopher://{SECRET}"},
            (400, "bad_request"): {**wanted, "to": "twitch"},
        }
        for (status, code), body in refusals.items():
            answer = await client.post(door, json=body, headers=own)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert SECRET not in answer.text
        assert (await client.post(door, json={**wanted, "to": "youtube"}, headers=own)).status_code == 201
        assert (await client.post(door, json={**wanted, "url": zoom.url + "2"}, headers=own)).json()["error"][
            "code"
        ] == "too_many_pushes"
        shown = await client.get(door, headers=own)
        assert [each["to"] for each in shown.json()] == ["zoom", "youtube"]
        stats = await client.get(f"/v1/sessions/{session}/stats", headers=own)
        assert SECRET not in shown.text + stats.text + made.text
        assert (await client.delete(f"{door}/{made.json()['id']}", headers=own)).status_code == 200
        assert (await client.delete(f"{door}/{made.json()['id']}", headers=own)).json()["error"][
            "code"
        ] == "no_push"
        assert (
            await client.delete(f"/v1/sessions/{session}", params={"purge": 1}, headers=own)
        ).status_code == 200
        assert (await client.get(door, headers=own)).json()["error"]["code"] == "no_session"
        assert not service.pushes.running


async def test_private_targets_are_refused_at_the_door_by_default(tmp_path: Path) -> None:
    async with taking("zoom") as zoom, serving(tmp_path) as (_, _, client):
        session = (await client.post("/v1/sessions", json={"no_store": True})).json()["id"]
        answer = await client.post(f"/v1/sessions/{session}/pushes", json={"to": "zoom", "url": zoom.url})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "private_url")
        assert zoom.heads == []


async def test_a_push_that_stops_for_good_is_told_to_the_subscribers_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_push, "Pace", lambda: QUICK)
    async with (
        taking("zoom") as zoom,
        serving(tmp_path, server={"private_urls": True}) as (service, place, client),
    ):
        zoom.says.extend([403] * 9)
        session = (await client.post("/v1/sessions", json={"no_store": True})).json()["id"]
        assert (
            await client.post(f"/v1/sessions/{session}/pushes", json={"to": "zoom", "url": zoom.url})
        ).status_code == 201
        async with socket_of(place, session) as events:
            service.sessions.by_id[session].log.emit(
                "caption.final", {"text": "Hello.", "words": [], "start": 0.0, "end": 1.0, "language": "en"}
            )
            told = (await until(events, "error"))[-1]["error"]
        assert (told["type"], told["code"], told["retryable"]) == ("push_error", "push_stopped", False)
        assert SECRET not in json.dumps(told)


@pytest.mark.media
@pytest.mark.models
async def test_what_is_said_in_a_recording_arrives_at_zoom_and_at_youtube(
    media: Path, tmp_path: Path
) -> None:
    async with (
        taking("zoom") as zoom,
        taking("youtube") as youtube,
        serving(tmp_path, server={"sources": (media,), "private_urls": True}) as (service, place, client),
    ):
        await service.ready()
        session = (
            await client.post(
                "/v1/sessions", json={"source": f"file:{media}/speech/harvard.flac", "speed": 2}
            )
        ).json()["id"]
        door = f"/v1/sessions/{session}/pushes"
        for taker in (zoom, youtube):
            assert (await client.post(door, json={"to": taker.to, "url": taker.url})).status_code == 201
        async with socket_of(place, session) as events:
            finals = [
                event["text"]
                for event in await until(events, "session.closed")
                if event["type"] == "caption.final"
            ]
        for taker in (zoom, youtube):
            await taker.until(
                lambda taker=taker: sum(body.count("\n") for body in taker.taken) >= len(finals)
            )  # type: ignore[misc]
        assert " ".join(" ".join(zoom.taken).split()) == " ".join(finals)
        said = " ".join(
            line.replace("<br>", " ") for body in youtube.taken for line in body.split("\n")[1::2]
        )
        assert said == " ".join(finals)
        assert "cold dip restores health and zest" in said.lower()
        assert zoom.seqs == list(range(1, len(finals) + 1))
        assert [each["dropped"] for each in (await client.get(door)).json()] == [0, 0]
