"""Raw audio from a socket into a session of the service, and its events back, on the time line of the samples.

A `Feed` publishes PCM into a session. A `Line` is what a foreign protocol's connection holds: a session of its own, which is
flushed where the protocol asks for it. Nothing is dropped here: who pushes waits until there is room, and so the socket is not read.
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

from streamsvc.core import clock
from streamsvc.core.config import LANGUAGES
from streamsvc.core.errors import Conflict, InvalidRequest, NotFound, StreamsvcError, TooLarge
from streamsvc.core.options import HANGOVER, SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.events.subscription import Subscription
from streamsvc.service.service import Service
from streamsvc.service.session import Session

Event = Mapping[str, Any]

FRAME = 0.04  # seconds of audio in one frame at most
BURST, BREATH = (
    0.25,
    0.002,
)  # seconds of audio pushed without a pause, and seconds of that pause: keeps chunks small, 125 times real time
TYPES = ("speech.*", "caption.partial", "caption.final", "caption.gap", "session.flushed", "session.closed")
_SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_mulaw": 1, "pcm_alaw": 1}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Security limits of one connection."""

    message_bytes: int = 2 * 1024 * 1024
    audio_seconds: float = 4 * 3600.0
    idle_seconds: float = (
        600.0  # without any message; a quiet connection holds a session that others wait for
    )
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
    """

    def __init__(self, session: Session, form: Format, start: float = 0.0) -> None:
        self.tracks: tuple[MediaTrack, ...] = (form.track(),)
        self.samples = 0  # whole samples pushed
        self._session, self._form, self._start = session, form, start
        self._rest = b""  # half a sample

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed."""
        return self.samples / self._form.rate

    async def push(self, payload: bytes) -> None:
        """Give samples to the session; waits until it has room for them. A sample may be cut in two anywhere."""
        payload = self._rest + payload
        size = self._form.sample_bytes
        whole = len(payload) - len(payload) % size
        self._rest = payload[whole:]
        step = round(FRAME * self._form.rate) * size
        unpaused = 0.0
        for first in range(0, whole, step):
            piece = payload[first : min(first + step, whole)]
            await self._session.media.wait_for_space()
            self._session.media.tap(
                EncodedFrame(
                    self._session.id,
                    "main",
                    self._start + self.seconds,
                    clock.now(),
                    "audio",
                    piece,
                    self._form.codec,
                    True,
                )
            )
            self.samples += len(piece) // size
            unpaused += len(piece) / size / self._form.rate
            if unpaused >= BURST:
                unpaused = 0.0
                await clock.sleep(BREATH)

    def stats(self) -> dict[str, float]:
        """Nothing: no packets are lost here."""
        return {}

    def request_keyframe(self) -> None:
        """Do nothing: there is no video."""

    async def close(self) -> None:
        """There is nothing to stop: the samples come from whoever pushes."""


class Line:
    """What a foreign protocol's connection holds: one session, its audio, and the events about it.

    Two tasks use it: one pushes and flushes, one takes events with `next`. The session is not stored, and erased at its end.

    Args:
        service: that makes the session.
        form: of the samples.
        language: of the speech; None: as the service's settings say.
        vocabulary: names and terms to expect.
        hangover: seconds of silence that end an utterance; None: as the service's settings say.
        bounds: security limits.
    """

    def __init__(
        self,
        service: Service,
        form: Format,
        *,
        language: str | None = None,
        vocabulary: Sequence[str] = (),
        hangover: float | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.digest = hashlib.sha256()  # of all audio pushed
        self._service, self._form, self._bounds = service, form, bounds or Bounds()
        self._heard = (language, tuple(vocabulary), hangover)
        self._before = 0.0  # client seconds at which the present format began
        self._opened: tuple[Session, Feed, Subscription] | None = None
        self._behind = False  # among the events given last is one of a flush
        self._flushed = asyncio.Event()  # that one, and all before it, have been told
        self._failure: SessionOver | None = None

    @property
    def _open(self) -> tuple[Session, Feed, Subscription]:
        assert self._opened is not None, "the line is not open"
        return self._opened

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed so far."""
        return self._before + (self._opened[1].seconds if self._opened is not None else 0.0)

    async def open(self) -> None:
        """Take a session, and with it a place at the service.

        Raises:
            CapacityError: there is none.
        """
        language, vocabulary, hangover = self._heard
        session = await self._service.sessions.create(
            options=SessionOptions(
                SpeechOptions(language, tuple(vocabulary), hangover),
                VisionOptions(enabled=False),
                stored=False,
            ),
            speed=None,
        )
        self._opened = session, Feed(session, self._form), session.log.subscribe(TYPES)
        session.media.attach(self._opened[1])
        session.clock.restart()

    async def push(self, payload: bytes) -> None:
        """Give samples to the session; waits until it has room.

        Raises:
            Expired: that is more audio than one connection may send. SessionOver: the service has ended the session.
        """
        if self._failure is not None:
            raise self._failure
        if self.seconds > self._bounds.audio_seconds:
            raise Expired(f"one connection may send {self._bounds.audio_seconds:g} seconds of audio")
        self.digest.update(payload)
        await self._open[1].push(payload)

    async def flush(self) -> None:
        """Have all audio so far understood, and wait until the other task has told its events.

        Raises:
            SessionOver: the service has ended the session.
        """
        if self._failure is not None:
            raise self._failure
        session, _, subscription = self._open
        self._flushed.clear()
        with contextlib.suppress(Conflict):  # it has ended: its last event says why
            await session.speech.flush(subscription.client)
        await self._flushed.wait()
        if self._failure is not None:
            raise self._failure

    async def change(
        self, form: Format, language: str | None, vocabulary: Sequence[str], hangover: float | None
    ) -> None:
        """Go on with another format, language, vocabulary or hangover; what was sent before is flushed."""
        heard = (language, tuple(vocabulary), hangover)
        if (form, heard) == (self._form, self._heard):
            return
        session, _, subscription = self._open
        session.speech.reconfigure(SpeechOptions(language, tuple(vocabulary), hangover))
        await self.flush()
        if form != self._form:
            session.media.detach("another format")
            self._before = self.seconds
            self._opened = session, Feed(session, form, start=self._before), subscription
            session.media.attach(self._opened[1])
        self._form, self._heard = form, heard

    async def next(self) -> list[Event]:
        """The events that wait, at least one, with times in seconds of the client's audio. Those given before have been told.

        Raises:
            SlowSubscriber: they were taken too slowly. SessionOver: there are no more.
        """
        if self._behind:
            self._behind = False
            self._flushed.set()
        batch = await self._open[2].next()
        if batch is None:
            raise self._failure or SessionOver("the session was ended")
        events: list[Event] = [json.loads(text) for _, text in batch]
        self._behind = any(event["type"] == "session.flushed" for event in events)
        return events

    def over(self, event: Event) -> None:
        """Look at a session.closed that was taken: a line's session is ended by others alone, or after its last event was taken.

        Raises:
            SessionOver: always.
        """
        self._failure = SessionOver(f"the session was ended: {event['reason']}", code=event["reason"])
        self._flushed.set()
        raise self._failure

    async def close(self) -> None:
        """End the session, if there is one, and erase it. May be called at any time, and again where it was cancelled."""
        if self._opened is None:
            return
        session, _, subscription = self._opened
        session.end("client_left")
        session.log.unsubscribe(subscription)
        with contextlib.suppress(NotFound):
            await self._service.sessions.delete(session.id, purge=True)
        self._before, self._opened = self.seconds, None


def spoken(language: str | None, model: str) -> str | None:
    """The model's code for a BCP-47 tag such as "en-US"; None, "multi": to be detected.

    Raises:
        InvalidRequest: "unsupported_language": the model does not know it.
    """
    code = None if language in (None, "", "multi") else str(language).replace("_", "-").split("-")[0].lower()
    if (model.endswith(".en") and code not in (None, "en")) or (
        code is None and language == "multi" and model.endswith(".en")
    ):
        raise InvalidRequest(
            f"the model {model} hears English alone, not {str(language)[:35]!r}", code="unsupported_language"
        )
    if code is not None and code not in LANGUAGES:
        raise InvalidRequest(
            f"{str(language)[:35]!r} is no language that {model} knows", code="unsupported_language"
        )
    return code


def hangover(milliseconds: int | None) -> float | None:
    """What is asked for, in seconds, as near to it as the service can; None: it is not asked for."""
    return None if milliseconds is None else min(max(milliseconds / 1000, HANGOVER[0]), HANGOVER[1])


def fits(message: str | bytes, bounds: Bounds) -> None:
    """Raise TooLarge unless a message is within the bounds."""
    if len(message) > bounds.message_bytes:
        raise TooLarge(f"a message has at most {bounds.message_bytes} bytes", code="message_too_large")
