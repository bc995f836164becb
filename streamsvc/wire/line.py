"""Raw audio from a socket into sessions of the service, and their events back, on the time line of the samples.

A `Feed` publishes PCM into one session. A `Line` is what a foreign protocol's connection holds: one session after another,
for an utterance is flushed by ending its session (all of it is understood, at once and exactly) and going on in a new one.
Nothing is dropped here: who pushes waits until there is room, and so the socket is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av

from streamsvc import clock
from streamsvc.errors import InvalidRequest, NotFound, StreamsvcError, TooLarge
from streamsvc.publish import Subscription
from streamsvc.service import Service
from streamsvc.session import Session
from streamsvc.types import EncodedFrame, MediaTrack

Event = Mapping[str, Any]

FRAME = 0.04  # seconds of audio in one frame at most
BURST, BREATH = 0.25, 0.002  # seconds of audio pushed without a pause, and seconds of that pause: keeps chunks small, 125 times real time
TYPES = ("speech.*", "caption.partial", "caption.final", "caption.gap", "session.closed")
FLUSHED = "flushed"  # the reason with which a line ends its own sessions
_SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_mulaw": 1, "pcm_alaw": 1}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Security limits of one connection."""

    message_bytes: int = 2 * 1024 * 1024
    audio_seconds: float = 4 * 3600.0
    idle_seconds: float = 600.0  # without any message; a quiet connection holds a session that others wait for
    file_bytes: int = 64 * 1024 * 1024  # of a POST
    file_seconds: float = 600.0  # wall-clock time for the answer to a POST


@dataclass(frozen=True, slots=True)
class Format:
    """Mono audio without a container. `codec`: libav's name, pcm_s16le, pcm_mulaw or pcm_alaw. `rate`: Hz."""

    codec: str
    rate: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return _SAMPLE_BYTES[self.codec]

    def track(self) -> MediaTrack:
        """A track of this format, with a decoder of its own."""
        context: Any = av.CodecContext.create(self.codec, "r")
        context.sample_rate = self.rate
        context.layout = "mono"
        return MediaTrack("audio", self.codec, context)


class SessionOver(StreamsvcError):
    """The service ended the session under the client: it goes away, or the session failed."""

    code, status, close_code, retryable = "session_over", 503, 1001, True


class Expired(StreamsvcError):
    """More audio than one connection may send."""

    type, code, status, close_code = "invalid_request_error", "session_expired", 413, 1001


class Feed:
    """The publisher of one session: samples that are pushed become its audio.

    Args:
        session: to be attached to; `Session.attach(feed)` is the caller's.
        form: of the samples.
        start: session seconds of the first sample.
        rest: the beginning of the first sample, where it came earlier.
    """

    def __init__(self, session: Session, form: Format, start: float = 0.0, rest: bytes = b"") -> None:
        self.tracks: tuple[MediaTrack, ...] = (form.track(),)
        self.samples = 0  # whole samples pushed
        self._session, self._form, self._start = session, form, start
        self.rest = rest  # half a sample

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed."""
        return self.samples / self._form.rate

    async def push(self, payload: bytes) -> None:
        """Give samples to the session; waits until it has room for them. A sample may be cut in two anywhere."""
        payload = self.rest + payload
        size = self._form.sample_bytes
        whole = len(payload) - len(payload) % size
        self.rest = payload[whole:]
        step = round(FRAME * self._form.rate) * size
        unpaused = 0.0
        for first in range(0, whole, step):
            piece = payload[first : min(first + step, whole)]
            await self._session.room()
            self._session.tap(
                EncodedFrame(self._session.id, "main", self._start + self.seconds, clock.now(), "audio", piece, self._form.codec, True)
            )
            self.samples += len(piece) // size
            unpaused += len(piece) / size / self._form.rate
            if unpaused >= BURST:
                unpaused = 0.0
                await clock.sleep(BREATH)

    async def close(self) -> None:
        """There is nothing to stop: the samples come from whoever pushes."""


class Line:
    """One foreign connection's audio, and the events about it.

    Two tasks use it: one pushes and flushes, one takes events with `next`. Sessions are not stored, and erased at their end.

    Args:
        service: that makes the sessions.
        form: of the samples.
        language: of the speech; None: as the service's settings say.
        vocabulary: names and terms to expect.
        bounds: security limits.
    """

    def __init__(
        self, service: Service, form: Format, *, language: str | None = None, vocabulary: Sequence[str] = (), bounds: Bounds | None = None
    ) -> None:
        self.digest = hashlib.sha256()  # of all audio pushed
        self._service, self._bounds = service, bounds or Bounds()
        self._form, self._language, self._vocabulary = form, language, tuple(vocabulary)
        self._rest = b""  # half a sample that came before the present session
        self._offset = 0.0  # client seconds at which the present session began
        self._session: Session | None = None
        self._feed: Feed | None = None
        self._subscription: Subscription | None = None
        self._opened = asyncio.Event()  # there is a session whose events can be taken
        self._drained = asyncio.Event()  # all events of the present session have been taken
        self._failure: SessionOver | None = None

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed so far."""
        return self._offset + (self._feed.seconds if self._feed is not None else 0.0)

    async def open(self) -> None:
        """Take a session, and with it a place at the service.

        Raises:
            CapacityError: there is none.
        """
        session = await self._service.create(speed=None, language=self._language, vocabulary=self._vocabulary, no_store=True, sees=False)
        self._subscription = session.log.subscribe(TYPES)
        self._feed = Feed(session, self._form, rest=self._rest)
        session.attach(self._feed)
        session.zero = session.log.zero = clock.now()
        self._session = session
        self._drained.clear()
        self._opened.set()

    async def push(self, payload: bytes) -> None:
        """Give samples to the session; waits until it has room.

        Raises:
            Expired: that is more audio than one connection may send. SessionOver: the service has ended the session.
        """
        if self._failure is not None:
            raise self._failure
        if self.seconds > self._bounds.audio_seconds:
            raise Expired(f"one connection may send {self._bounds.audio_seconds:g} seconds of audio")
        assert self._feed is not None
        self.digest.update(payload)
        await self._feed.push(payload)

    async def flush(self, *, last: bool = False) -> None:
        """Have all audio so far understood, and wait until its events have been taken; then go on in a new session.

        Raises:
            CapacityError: somebody else has taken the place in between. SessionOver: the service has ended the session.
        """
        assert self._session is not None
        self._session.end(FLUSHED)
        await self._drained.wait()
        if self._failure is not None:
            raise self._failure
        if not last:
            await self.open()

    async def change(self, form: Format, language: str | None, vocabulary: Sequence[str]) -> None:
        """Go on with another format, language or vocabulary; what was sent before is flushed."""
        if (form, language, tuple(vocabulary)) != (self._form, self._language, self._vocabulary):
            self._language, self._vocabulary = language, tuple(vocabulary)
            if form != self._form:
                self._form = form
                if self._feed is not None:
                    self._feed.rest = b""
            await self.flush()

    async def next(self) -> list[Event]:
        """The events that wait, at least one, with times in seconds of the client's audio.

        Raises:
            SlowSubscriber: they were taken too slowly.
        """
        while True:
            await self._opened.wait()
            assert self._session is not None and self._subscription is not None
            if (batch := await self._subscription.next()) is not None:
                return [shifted(json.loads(text), self._offset) for _, text in batch]
            await self._forget()

    async def _forget(self) -> None:
        """The session has ended, and all of its events have been taken."""
        assert self._feed is not None
        await self._erase()
        self._opened.clear()
        self._offset += self._feed.seconds
        self._rest = self._feed.rest
        self._feed = None
        self._drained.set()

    async def _erase(self) -> None:
        """Erase the session, if there is one; may be done again where it was cancelled."""
        if (session := self._session) is None:
            return
        if self._subscription is not None:
            session.log.unsubscribe(self._subscription)
        with contextlib.suppress(NotFound):
            await self._service.delete(session.id, purge=True)
        self._session = None

    def over(self, event: Event) -> None:
        """Look at a session.closed that was taken.

        Raises:
            SessionOver: it was not this line that ended the session.
        """
        if event["reason"] != FLUSHED:
            self._failure = SessionOver(f"the session was ended: {event['reason']}", code=event["reason"])
            self._drained.set()
            raise self._failure

    async def close(self) -> None:
        """End the session, if there is one, and erase it. May be called at any time, and twice."""
        if self._session is not None:
            self._session.end("client_left")
        await self._erase()


def shifted(event: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The event with all its times later by `seconds`."""
    if seconds:
        for name in ("at", "start", "end"):
            if name in event:
                event[name] = round(event[name] + seconds, 3)
        for word in event.get("words", ()):
            word["start"], word["end"] = round(word["start"] + seconds, 3), round(word["end"] + seconds, 3)
    return event


def spoken(language: str | None, model: str) -> str | None:
    """The model's code for a BCP-47 tag such as "en-US"; None, "multi": to be detected.

    Raises:
        InvalidRequest: "unsupported_language": the model hears English alone.
    """
    code = None if language in (None, "", "multi") else str(language).replace("_", "-").split("-")[0].lower()
    if (model.endswith(".en") and code not in (None, "en")) or (code is None and language == "multi" and model.endswith(".en")):
        raise InvalidRequest(f"the model {model} hears English alone, not {str(language)[:35]!r}", code="unsupported_language")
    if code is not None and not (code.isascii() and code.isalpha() and 2 <= len(code) <= 3):
        raise InvalidRequest(f"{str(language)[:35]!r} is no language tag", code="unsupported_language")
    return code


def fits(message: str | bytes, bounds: Bounds) -> None:
    """Raise TooLarge unless a message is within the bounds."""
    if len(message) > bounds.message_bytes:
        raise TooLarge(f"a message has at most {bounds.message_bytes} bytes", code="message_too_large")
