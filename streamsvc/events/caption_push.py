"""Closed captions pushed outward: to YouTube's live caption ingest and to Zoom's closed captioning.

    session's caption.final -> lines (Ring) -> Desk (outbox.py: which post, which number, when again) -> Poster -> the target

The target's URL holds a secret: only its host is ever told (outgoing.py).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import structlog
from fastapi import APIRouter, params
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from streamsvc.core import clock, http_client, metrics
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.core.http_client import HostClient
from streamsvc.core.queues import Closed, Ring
from streamsvc.events.caption_posts import PROVIDERS, Answer, Desk, Line, Pace, State, plain

log = structlog.get_logger()


class PushError(StreamsvcError):
    """A push has stopped for good."""

    type, code, status = "push_error", "push_stopped", 502


# --- the edge -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where captions go. `path` and `query` are its secret."""

    to: str
    host: str
    lang: str
    scheme: str
    port: int | None
    path: str
    query: str

    def __repr__(self) -> str:
        return f"Target({self.to}, {self.host})"


def target(to: str, url: str, lang: str) -> Target:
    """Read a target's URL.

    Args:
        to: "youtube" or "zoom".
        url: as the provider shows it.
        lang: language and country, such as "en-US"; told to Zoom.

    Raises:
        InvalidRequest: "bad_url". The message does not quote it.
    """
    found = http_client.parse_url(url)
    if found is None:
        raise InvalidRequest("a target is an https URL, as the provider shows it", code="bad_url")
    path, _, query = found.raw_path.decode().partition("?")
    # The query is signed: what is kept of it stays as it is, byte for byte.
    query = "".join(
        f"{part}&" for part in query.split("&") if part and part.partition("=")[0] not in ("seq", "lang")
    )
    return Target(to, found.raw_host.decode(), lang, found.scheme, found.port, path, query)


class Poster:
    """Posts to one target, over one connection that is kept.

    Args:
        where: the target.
        private_urls: security limit: whether hosts of private networks are allowed, and plain http with them.
        zero: clock.now() when the session began.
        timeout: seconds for one request.
        verify: certificates to trust; True: the usual ones.
    """

    def __init__(
        self,
        where: Target,
        private_urls: bool,
        zero: float,
        timeout: float,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._where, self._zero = where, zero
        self._out = HostClient(where.scheme, where.host, where.port, private_urls, timeout, verify)
        self.resolve, self.close = self._out.resolve, self._out.close

    async def post(self, seq: int, content_type: str, body: str) -> Answer:
        """One try; never raises for what the target or the way to it does."""
        lang = f"&lang={self._where.lang}" if PROVIDERS[self._where.to].meeting else ""
        return await self._ask(
            "POST", self._where.path, f"seq={seq}{lang}", {"Content-Type": content_type}, body.encode()
        )

    async def last(self) -> int | None:
        """The number of the last post that Zoom took; None: it does not say."""
        answer = await self._ask("GET", self._where.path.rstrip("/") + "/seq", "", {}, b"")
        text = answer.body.strip()
        return (
            int(text)
            if answer.status == 200 and text.isascii() and text.isdigit() and len(text) < 10
            else None
        )

    async def _ask(
        self, method: str, path: str, more: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        sent = clock.now() - self._zero
        status, text = await self._out.request(method, f"{path}?{self._where.query}{more}", headers, body)
        return Answer(status, text, sent, clock.now() - self._zero)


Captions = Callable[
    [], Awaitable[list[tuple[int | None, str]] | None]
]  # the next caption.final events as JSON; None: no more


class Push:
    """One push: everything between a session's captions and its target.

    Args:
        where: the target.
        private_urls: security limit, as `Poster` has it.
        started_utc: when the session began.
        zero: the same moment, by clock.now().
        position: seconds of the media's time that have come in; differs from the session's age for files that play faster.
        on_failed: called once, if the push stops for good.
        pace: waits and limits.
    """

    def __init__(
        self,
        where: Target,
        private_urls: bool,
        started_utc: datetime,
        zero: float,
        position: Callable[[], float],
        on_failed: Callable[[PushError], object],
        pace: Pace | None = None,
    ) -> None:
        self.id = f"p_{secrets.token_hex(6)}"
        self.where, self.dropped = where, 0  # cues
        self._pace, self._provider = pace or Pace(), PROVIDERS[where.to]
        self._zero, self._position, self._on_failed = zero, position, on_failed
        self._poster = Poster(where, private_urls, zero, self._pace.timeout)
        self._desk = Desk(self._provider, self._pace, started_utc, self._lose)
        self._lines: Ring[Line] = Ring(self._pace.lines, lambda line: self._lose(1))
        self._stopping = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing will be posted any more."""
        return self._desk.state in (State.FAILED, State.ENDED)

    async def check(self) -> None:
        """See that the target's host may be reached. Raises as `Poster.resolve`."""
        await self._poster.resolve()

    def describe(self) -> dict[str, Any]:
        """The push as the door shows it: never its URL."""
        desk = self._desk
        error = (
            {"code": desk.error[0], "message": f"{self.where.host}: {desk.error[1]}"} if desk.error else None
        )
        counts = {
            "sent": desk.sent,
            "retried": desk.retried,
            "dropped": self.dropped,
            "waiting": len(self._lines),
        }
        head = {
            "id": self.id,
            "to": self.where.to,
            "host": self.where.host,
            "lang": self.where.lang,
            "state": desk.state.value,
        }
        return {**head, **counts, "last_error": error}

    def stop(self) -> None:
        """Post nothing more; never fails, may be called twice."""
        self._stopping.set()

    async def run(self, captions: Captions) -> None:
        """Post until the captions end and are posted, the target refuses for good, or `stop` is called."""
        tasks = {name: asyncio.create_task(work) for name, work in self._work(captions).items()}
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            self._lines.close()
            if tasks["reading"].done() and not self._stopping.is_set():
                await asyncio.wait([tasks["posting"]], timeout=self._pace.grace)
        finally:
            for task in tasks.values():
                task.cancel()
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            await self._poster.close()
            self._end([result for result in results if isinstance(result, Exception)])

    def _work(self, captions: Captions) -> dict[str, Any]:
        return {"reading": self._read(captions), "posting": self._post(), "stopping": self._stopping.wait()}

    async def _read(self, captions: Captions) -> None:
        """Hand over every closed cue, and never wait for the target: who reads a log slowly loses it."""
        while (batch := await captions()) is not None:
            for _, text in batch:
                event = json.loads(text)
                now = clock.now() - self._zero
                if shown := plain(event["text"]):
                    self._lines.put(Line(now - (self._position() - event["start"]), shown))

    async def _post(self) -> None:
        desk = self._desk
        with suppress(Closed):
            while not self.over:
                desk.begin(await self._lines.take(self._provider.batch))
                while True:
                    if desk.asks:
                        desk.last_was(await self._poster.last())
                    if not desk.post(clock.now() - self._zero):
                        break
                    wait = desk.told(
                        await self._poster.post(desk.seq, self._provider.content_type, desk.body())
                    )
                    if wait:
                        await clock.sleep(wait)

    def _lose(self, cues: int) -> None:
        self.dropped += cues
        metrics.events_dropped.labels("caption.final").inc(cues)

    def _end(self, errors: Sequence[Exception]) -> None:
        for error in errors:
            log.error("push failed", push=self.id, to=self.where.to, error=type(error).__name__)
            self._desk.fail("internal", "something went wrong here; the log names it by class only")
        self._lose(len(self._lines))
        self._desk.close()
        if self._desk.state is State.FAILED and self._desk.error is not None:
            code, message = self._desk.error
            log.warning("push stopped", push=self.id, to=self.where.to, host=self.where.host, reason=code)
            self._on_failed(
                PushError(f"captions no longer go to {self.where.to} ({self.where.host}): {message} ({code})")
            )


# --- the door -------------------------------------------------------------------------------------------------------


class NewPush(BaseModel):
    """Body of POST /v1/sessions/{id}/pushes."""

    model_config = ConfigDict(extra="forbid")

    to: Literal["youtube", "zoom"]
    url: SecretStr = Field(
        max_length=4096, description="YouTube: the captions ingestion URL; Zoom: the caption API token, a URL"
    )
    lang: str = Field("en-US", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")


class Host(Protocol):
    """What the door needs of the service; all raise NotFound where there is no such session or push."""

    async def add(self, session: str, where: Target) -> Push:
        """Begin a push.

        Raises:
            Conflict: the session has ended, or pushes there already. CapacityError: it has as many as it may have.
            Forbidden, Unprocessable: the host may not be reached, or is not known.
        """

    def all(self, session: str) -> Sequence[Push]:
        """The pushes of a session, stopped ones too."""

    def remove(self, session: str, push: str) -> Push:
        """Stop a push and forget it."""


def router(host: Host, allowed: params.Depends) -> APIRouter:
    """The routes of the door; `allowed` checks the right to publish."""
    routes = APIRouter(prefix="/v1/sessions/{session_id}/pushes", tags=["pushes"], dependencies=[allowed])

    @routes.post("", status_code=201)
    async def add(session_id: str, body: NewPush) -> dict[str, Any]:
        """Push this session's closed captions to a target, from now on."""
        return (
            await host.add(session_id, target(body.to, body.url.get_secret_value(), body.lang))
        ).describe()

    @routes.get("")
    async def show(session_id: str) -> list[dict[str, Any]]:
        """The pushes of a session: state, counts and last error, never the URL."""
        return [push.describe() for push in host.all(session_id)]

    @routes.delete("/{push_id}")
    async def remove(session_id: str, push_id: str) -> dict[str, Any]:
        """Stop a push and forget it; what waits is not posted."""
        return host.remove(session_id, push_id).describe()

    return routes
