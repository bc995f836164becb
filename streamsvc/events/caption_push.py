"""Push of closed captions to YouTube's live caption ingest, Zoom's closed captioning and OvenMediaEngine.

    caption.final events -> queue (drops the oldest) -> PostSequencer (number, retries) -> Poster -> target

The target's URL is a secret: only its host appears in responses, events and logs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from streamsvc.core import clock, http_client, metrics
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.core.http_client import HostClient
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.session_clock import SessionClock
from streamsvc.events.caption_posts import (
    PROVIDERS,
    CaptionText,
    PostResult,
    PostSequencer,
    Provider,
    PushState,
    RetryPolicy,
    plain_text,
)

log = structlog.get_logger()

# The next caption.final events (seq, JSON text); None: the captions have ended.
NextCaptions = Callable[[], Awaitable[list[tuple[int | None, str]] | None]]


OME_ACTIONS = (":sendEvent", ":sendSubtitles")


class PushError(StreamsvcError):
    """A push has failed for good."""

    type = "push_error"
    code = "push_stopped"
    status = 502


@dataclass(frozen=True, slots=True)
class Target:
    """Destination of a push. `path`, `query` and `token` are secret."""

    provider: str  # "youtube", "zoom" or "ome"
    host: str
    lang: str
    scheme: str
    port: int | None
    path: str
    query: str
    token: str = ""  # of OvenMediaEngine's API
    label: str = ""  # of its subtitle track

    def requirements(self) -> Provider:
        """What its posts are like; OvenMediaEngine's by what of its API was named."""
        provider = replace(PROVIDERS[self.provider], label=self.label)
        is_event = self.provider == "ome" and self.path.endswith(OME_ACTIONS[0])
        return replace(provider, protocol="ome-event") if is_event else provider

    def __repr__(self) -> str:
        return f"Target({self.provider}, {self.host})"


def parse_target(provider: str, url: str, lang: str, token: str = "", label: str = "") -> Target:
    """Parse the URL of a target.

    Args:
        provider: "youtube", "zoom" or "ome" (OvenMediaEngine).
        url: as the provider shows it; OvenMediaEngine: of a stream of its API, with `:sendSubtitles` or
            `:sendEvent`.
        lang: language and country, such as "en-US"; sent to Zoom.
        token: the access token of OvenMediaEngine's API.
        label: of OvenMediaEngine's subtitle track; "": the language.

    Raises:
        InvalidRequest: "bad_url". The message does not quote the URL.
    """
    parsed = http_client.parse_url(url)
    if parsed is None:
        raise InvalidRequest("a target is an https URL, as the provider shows it", code="bad_url")
    path, _, query = parsed.raw_path.decode().partition("?")
    if provider == "ome" and not path.endswith(OME_ACTIONS):
        raise InvalidRequest(
            "OvenMediaEngine's URL is .../v1/vhosts/VHOST/apps/APP/streams/STREAM:sendSubtitles, "
            "or :sendEvent",
            code="bad_url",
        )
    # The query is signed: the other parameters stay as they are, byte for byte.
    query = "".join(
        f"{part}&" for part in query.split("&") if part and part.partition("=")[0] not in ("seq", "lang")
    )
    host = parsed.raw_host.decode()
    return Target(provider, host, lang, parsed.scheme, parsed.port, path, query, token, label or lang)


class Poster:
    """HTTP client of one target, with one persistent connection.

    Args:
        target: the target.
        private_urls: security limit: whether hosts of private networks are allowed, and plain http with them.
        zero: monotonic seconds when the session began.
        timeout: seconds for one request.
        verify: trusted certificates; True: the system's.
    """

    def __init__(
        self,
        target: Target,
        private_urls: bool,
        zero: float,
        timeout: float,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._target = target
        self._zero = zero
        self._client = HostClient(target.scheme, target.host, target.port, private_urls, timeout, verify)

    async def resolve(self) -> None:
        """Resolve and check the target's host. Raises as `HostClient.resolve`."""
        await self._client.resolve()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def post(self, seq: int, content_type: str, body: str) -> PostResult:
        """Try once. Never raises for errors of the target or the network."""
        target = self._target
        lang = f"&lang={target.lang}" if target.provider == "zoom" else ""
        path = f"{target.path}?{target.query}seq={seq}{lang}"
        headers = {"Content-Type": content_type}
        if target.provider == "ome":
            path = f"{target.path}?{target.query}".rstrip("?&")
            if target.token:
                headers["Authorization"] = f"Basic {base64.b64encode(target.token.encode()).decode()}"
        return await self._request("POST", path, headers, body.encode())

    async def last_seq(self) -> int | None:
        """The number of the last post that Zoom took; None: not known."""
        path = f"{self._target.path.rstrip('/')}/seq?{self._target.query}"
        result = await self._request("GET", path, {}, b"")
        text = result.body.strip()
        is_number = result.status == 200 and text.isascii() and text.isdigit() and len(text) < 10
        return int(text) if is_number else None

    async def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> PostResult:
        sent = clock.now() - self._zero
        status, text = await self._client.request(method, path, headers, body)
        return PostResult(status, text, sent, clock.now() - self._zero)


class Push:
    """Push of one session's closed captions to one target.

    Args:
        target: the target.
        private_urls: security limit, as in `Poster`.
        session_clock: of the session.
        on_failed: called once if the push fails for good.
        policy: delays and limits.
    """

    def __init__(
        self,
        target: Target,
        private_urls: bool,
        session_clock: SessionClock,
        on_failed: Callable[[PushError], object],
        policy: RetryPolicy | None = None,
    ) -> None:
        self.id = f"p_{secrets.token_hex(6)}"
        self.target = target
        self.dropped = 0  # cues
        self._policy = policy or RetryPolicy()
        self._provider = target.requirements()
        self._clock = session_clock
        self._zero = session_clock.zero  # stays the same if the session restarts its clock
        self._on_failed = on_failed
        self._poster = Poster(target, private_urls, self._zero, self._policy.timeout)
        self._sequencer = PostSequencer(self._provider, self._policy, session_clock.started_utc, self._drop)
        self._queue: Ring[CaptionText] = Ring(self._policy.queue_size, lambda caption: self._drop(1))
        self._stopping = asyncio.Event()
        self._failure: StreamsvcError | None = None  # why it was stopped, where that is to be told

    @property
    def over(self) -> bool:
        """Whether the push has failed or ended."""
        return self._sequencer.state in (PushState.FAILED, PushState.ENDED)

    async def check(self) -> None:
        """Check that the target's host may be reached. Raises as `Poster.resolve`."""
        await self._poster.resolve()

    def describe(self) -> dict[str, Any]:
        """The push as JSON, without its URL."""
        sequencer = self._sequencer
        error = None
        if sequencer.error is not None:
            code, message = sequencer.error
            error = {"code": code, "message": f"{self.target.host}: {message}"}
        return {
            "id": self.id,
            "to": self.target.provider,
            "host": self.target.host,
            "lang": self.target.lang,
            "state": sequencer.state.value,
            "sent": sequencer.sent,
            "retried": sequencer.retried,
            "dropped": self.dropped,
            "waiting": len(self._queue),
            "last_error": error,
        }

    def stop(self, why: StreamsvcError | None = None) -> None:
        """Stop posting; with a reason the push has failed by it, and tells so. Idempotent."""
        self._failure = self._failure or why
        self._stopping.set()

    async def run(self, captions: NextCaptions) -> None:
        """Post until the captions have ended and are posted, the target refuses for good, or `stop`."""
        reading = asyncio.create_task(self._read(captions))
        posting = asyncio.create_task(self._post())
        stopping = asyncio.create_task(self._stopping.wait())
        tasks: list[asyncio.Task[Any]] = [reading, posting, stopping]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._queue.close()
            if reading.done() and not self._stopping.is_set():
                await asyncio.wait([posting], timeout=self._policy.grace)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._poster.close()
            self._end([result for result in results if isinstance(result, Exception)])

    async def _read(self, captions: NextCaptions) -> None:
        """Queue every closed cue without waiting for the target: a slow subscriber would lose events."""
        while (batch := await captions()) is not None:
            for _, text in batch:
                event = json.loads(text)
                age = self._clock.position() - event["start"]
                if caption := plain_text(event["text"]):
                    self._queue.put(CaptionText(self._now() - age, caption))

    async def _post(self) -> None:
        sequencer = self._sequencer
        with suppress(Closed):
            while not self.over:
                sequencer.begin(await self._queue.take(self._provider.batch))
                while True:
                    if sequencer.needs_last_seq:
                        sequencer.set_last_seq(await self._poster.last_seq())
                    if not sequencer.due(self._now()):
                        break
                    delay = sequencer.handle(
                        await self._poster.post(sequencer.seq, self._provider.content_type, sequencer.body())
                    )
                    if delay:
                        await clock.sleep(delay)

    def _now(self) -> float:
        return clock.now() - self._zero

    def _drop(self, cues: int) -> None:
        self.dropped += cues
        metrics.events_dropped.labels("caption.final").inc(cues)

    def _end(self, errors: Sequence[Exception]) -> None:
        provider = self.target.provider
        for error in errors:
            log.error("push failed", push=self.id, to=provider, error=type(error).__name__)
            self._sequencer.fail("internal", "internal error; the server log records the exception class")
        if self._failure is not None:
            self._sequencer.fail(self._failure.code, self._failure.message)
        self._drop(len(self._queue))
        self._sequencer.close()
        if self._sequencer.state is PushState.FAILED and self._sequencer.error is not None:
            code, message = self._sequencer.error
            log.warning("push stopped", push=self.id, to=provider, host=self.target.host, reason=code)
            self._on_failed(
                PushError(f"captions no longer go to {provider} ({self.target.host}): {message} ({code})")
            )
