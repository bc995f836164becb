"""Raw audio from a socket into a session, and the session's events back.

`PcmPublisher` publishes samples to a session. `AudioSession` is a session owned by one connection of a
foreign protocol; its times are seconds of the client's audio. No audio is dropped: `push` waits for room in
the session's queue, and the socket is not read meanwhile (backpressure).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

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
# Pacing keeps decoded chunks small; at most 125 times real time.
BURST = 0.25  # seconds of audio pushed without a pause
PAUSE = 0.002  # seconds between bursts
TYPES = ("speech.*", "caption.partial", "caption.final", "caption.gap", "session.flushed", "session.closed")
SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_mulaw": 1, "pcm_alaw": 1}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Security limits of one connection."""

    message_bytes: int = 2 * 1024 * 1024
    audio_seconds: float = 4 * 3600.0
    idle_seconds: float = 600.0  # without a message; an idle connection occupies a session
    file_bytes: int = 64 * 1024 * 1024  # of a POST
    file_seconds: float = 600.0  # wall-clock time for the answer to a POST


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Audio without a container. A sample is one of each channel, interleaved.

    codec: libav's name: pcm_s16le, pcm_mulaw or pcm_alaw. rate: Hz. channels: 1 or 2; mixed by the decoder.
    """

    codec: str
    rate: int
    channels: int = 1

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return SAMPLE_BYTES[self.codec] * self.channels

    def track(self) -> MediaTrack:
        """A new track of this format, with its own decoder."""
        context: Any = av.CodecContext.create(self.codec, "r")
        context.sample_rate = self.rate
        context.layout = "mono" if self.channels == 1 else "stereo"
        return MediaTrack("audio", self.codec, context)


def continues(partial: bytes, payload: bytes, audio_format: AudioFormat) -> bool:
    """Whether a payload begins with the rest of an incomplete sample, judged by its first second.

    Samples of sound are close to their neighbours; read from the wrong byte they are noise.

    Args:
        partial: the first bytes of the sample.
        payload: all that came after it.
        audio_format: of both.
    """
    if audio_format.codec != "pcm_s16le":
        return False  # a sample of one byte a channel: nothing to judge by
    return _roughness(partial + payload, audio_format) < _roughness(payload, audio_format)


def _roughness(payload: bytes, audio_format: AudioFormat) -> float:
    """Mean distance between neighbouring 16-bit samples of each channel; infinite for fewer than two."""
    size = audio_format.sample_bytes
    count = min(len(payload) // size, audio_format.rate)
    samples = np.frombuffer(payload[: count * size], "<i2").reshape(count, -1).astype(np.float32)
    return float(np.abs(np.diff(samples, axis=0)).mean()) if count > 1 else float("inf")


class SessionOver(StreamsvcError):
    """The service ended the session of a connection: shutdown, or the session failed."""

    code, status, close_code, retryable = "session_over", 503, 1001, True


class Expired(StreamsvcError):
    """The connection has sent the maximum amount of audio."""

    type, code, status, close_code = "invalid_request_error", "session_expired", 413, 1001


class PcmPublisher:
    """Publishes pushed samples as the audio of one session.

    Args:
        session: the caller attaches the publisher to it with `MediaInput.attach`.
        audio_format: of the samples.
        start: session seconds of the first sample.
    """

    def __init__(self, session: Session, audio_format: AudioFormat, start: float = 0.0) -> None:
        self.tracks: tuple[MediaTrack, ...] = (audio_format.track(),)
        self.samples = 0  # complete samples pushed
        self._session = session
        self._format = audio_format
        self._start = start
        self._partial = b""  # bytes of an incomplete sample
        self._ended = False  # the audio so far was ended; what follows may begin anew

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed."""
        return self.samples / self._format.rate

    async def push(self, payload: bytes) -> None:
        """Publish samples; waits until the session has room. The payload may end within a sample."""
        size = self._format.sample_bytes
        if self._ended and payload:
            self._ended = False
            if not continues(self._partial, payload, self._format):
                self._partial = b""
        payload = self._partial + payload
        complete = len(payload) - len(payload) % size
        self._partial = payload[complete:]
        frame_bytes = round(FRAME * self._format.rate) * size
        unpaused = 0.0  # seconds of audio since the last pause
        for first in range(0, complete, frame_bytes):
            frame = payload[first : min(first + frame_bytes, complete)]
            await self._session.media.wait_for_space()
            self._session.media.tap(
                EncodedFrame(
                    self._session.id,
                    "main",
                    self._start + self.seconds,
                    clock.now(),
                    "audio",
                    frame,
                    self._format.codec,
                    True,
                )
            )
            self.samples += len(frame) // size
            unpaused += len(frame) / size / self._format.rate
            if unpaused >= BURST:
                unpaused = 0.0
                await clock.sleep(PAUSE)

    def end_part(self) -> None:
        """End the audio so far: an incomplete sample at its end is no part of what follows.

        Clients commit or clear within a sample. Its first byte would turn all that follows into noise. Only
        audio that visibly goes on from it keeps it (`continues`).
        """
        self._ended = bool(self._partial)

    def stats(self) -> dict[str, float]:
        """No statistics: no packets can be lost."""
        return {}

    def request_keyframe(self) -> None:
        """Do nothing: there is no video."""

    async def close(self) -> None:
        """Do nothing: the owner of the publisher stops pushing."""


class AudioSession:
    """A session owned by one connection: its audio goes in, its events come out.

    Two tasks use it: one pushes and flushes, the other takes events with `next`. The session is not stored,
    and is erased at the end.

    Args:
        service: creates the session.
        audio_format: of the samples.
        speech: options of speech recognition.
        limits: security limits of the connection.
        holder: of the token that it is made with.
    """

    def __init__(
        self,
        service: Service,
        audio_format: AudioFormat,
        speech: SpeechOptions | None = None,
        limits: ConnectionLimits | None = None,
        holder: str = "",
    ) -> None:
        self._holder = holder
        self.digest = hashlib.sha256()  # of all audio pushed
        self._service = service
        self._format = audio_format
        self._speech = speech or SpeechOptions()
        self._limits = limits or ConnectionLimits()
        self._before = 0.0  # client seconds at which the present format began
        self._opened: tuple[Session, PcmPublisher, Subscription] | None = None
        self._flush_returned = False  # the last batch of `next` contains session.flushed
        self._flushed = asyncio.Event()  # session.flushed, and all events before it, have been handled
        self._failure: SessionOver | None = None

    @property
    def _open(self) -> tuple[Session, PcmPublisher, Subscription]:
        assert self._opened is not None, "the audio session is not open"
        return self._opened

    @property
    def seconds(self) -> float:
        """Seconds of audio pushed so far."""
        return self._before + (self._opened[1].seconds if self._opened is not None else 0.0)

    async def open(self) -> None:
        """Create the session.

        Raises:
            CapacityError: the service is full.
        """
        options = SessionOptions(self._speech, VisionOptions(enabled=False), lossless=True, stored=False)
        sessions = self._service.sessions
        sessions.check(options)
        with sessions.place(holder=self._holder, kind="audio"):
            session = sessions.start(sessions.new_id(None), options, holder=self._holder)
            publisher = PcmPublisher(session, self._format)
            self._opened = session, publisher, session.log.subscribe(TYPES)
            session.media.attach(publisher)
        session.clock.restart()

    async def push(self, payload: bytes) -> None:
        """Publish samples; waits until the session has room.

        Raises:
            Expired: over the limit of audio seconds. SessionOver: the service has ended the session.
        """
        if self._failure is not None:
            raise self._failure
        if self.seconds > self._limits.audio_seconds:
            raise Expired(f"One connection may send at most {self._limits.audio_seconds:g} seconds of audio")
        self.digest.update(payload)
        await self._open[1].push(payload)

    async def flush(self) -> None:
        """Transcribe all audio so far; returns when the other task has handled the resulting events.

        Raises:
            SessionOver: the service has ended the session.
        """
        if self._failure is not None:
            raise self._failure
        session, publisher, subscription = self._open
        publisher.end_part()
        self._flushed.clear()
        with contextlib.suppress(
            Conflict
        ):  # the session has ended: `end` takes the reason from session.closed
            await session.speech.flush(subscription.client)
        await self._flushed.wait()
        if self._failure is not None:
            raise self._failure

    async def reconfigure(self, audio_format: AudioFormat, speech: SpeechOptions) -> None:
        """Change the format or the options of recognition. Audio sent before is flushed."""
        if (audio_format, speech) == (self._format, self._speech):
            return
        session, _, subscription = self._open
        session.speech.reconfigure(speech)
        await self.flush()
        if audio_format != self._format:
            session.media.detach("another format")
            self._before = self.seconds
            publisher = PcmPublisher(session, audio_format, start=self._before)
            self._opened = session, publisher, subscription
            session.media.attach(publisher)
        self._format = audio_format
        self._speech = speech

    async def next(self) -> list[Event]:
        """The pending events, at least one, with times in seconds of the client's audio.

        A call confirms that the events of the call before have been handled.

        Raises:
            SlowSubscriber: the events were taken too slowly. SessionOver: the session has ended.
        """
        if self._flush_returned:
            self._flush_returned = False
            self._flushed.set()
        batch = await self._open[2].next()
        if batch is None:
            raise self._failure or SessionOver("The session has ended")
        events: list[Event] = [json.loads(text) for _, text in batch]
        self._flush_returned = any(event["type"] == "session.flushed" for event in events)
        return events

    def end(self, closed: Event) -> None:
        """Handle a session.closed event: the service ended the session. Wakes a pending `flush`.

        Raises:
            SessionOver: always.
        """
        self._failure = SessionOver(
            f"The service ended the session: {closed['reason']}", code=closed["reason"]
        )
        self._flushed.set()
        raise self._failure

    async def close(self) -> None:
        """End the session, if open, and erase it. Idempotent, also after a cancelled call."""
        if self._opened is None:
            return
        session, _, subscription = self._opened
        session.end("client_left")
        session.log.unsubscribe(subscription)
        with contextlib.suppress(NotFound):
            await self._service.sessions.delete(session.id, purge=True)
        self._before = self.seconds
        self._opened = None


def language_code(language: str | None, model: str) -> str | None:
    """The model's code for a BCP-47 tag such as "en-US"; None or "multi": detect the language.

    Raises:
        InvalidRequest: "unsupported_language".
    """
    code = None if language in (None, "", "multi") else str(language).replace("_", "-").split("-")[0].lower()
    english_only = model.endswith(".en")
    if english_only and (code not in (None, "en") or language == "multi"):
        raise InvalidRequest(
            f"The model {model} supports English only, not {str(language)[:35]!r}",
            code="unsupported_language",
        )
    if code is not None and code not in LANGUAGES:
        raise InvalidRequest(
            f"The model {model} does not support the language {str(language)[:35]!r}",
            code="unsupported_language",
        )
    return code


def clamp_hangover(milliseconds: int | None) -> float | None:
    """A requested hangover in seconds, clamped to the service's range; None: not requested."""
    return None if milliseconds is None else min(max(milliseconds / 1000, HANGOVER[0]), HANGOVER[1])


def check_size(message: str | bytes, limits: ConnectionLimits) -> None:
    """Raise TooLarge if a message is over the limit."""
    if len(message) > limits.message_bytes:
        raise TooLarge(f"A message may have at most {limits.message_bytes} bytes", code="message_too_large")
