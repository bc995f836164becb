"""A session with real pipelines and decoders, fake models, and a virtual clock without threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import jsonschema
import numpy as np

from engines import Engine, Op, Payload, StreamOp
from streamsvc.core import clock, config
from streamsvc.core import tape as tapes
from streamsvc.core.clock import Threadless as Threadless  # tests take it from here
from streamsvc.core.context import Roles
from streamsvc.core.options import SessionOptions
from streamsvc.core.roles import Role
from streamsvc.core.spans import SpanSink
from streamsvc.core.types import EncodedFrame, Kind, MediaTrack
from streamsvc.events import schema
from streamsvc.events.store import Store
from streamsvc.events.subscription import Subscription
from streamsvc.ingest.source import SourceSink
from streamsvc.service.session import Session, SharedResources
from tests.builders.clips import clip
from tests.fakes.local_role import LocalRole

VALIDATOR = jsonschema.Draft202012Validator(schema.document())
OPUS, VP8 = MediaTrack("audio", "opus"), MediaTrack("video", "vp8")


@dataclass
class Models:
    """Fake engines: a tone is speech of one word each 0.4 s, and every picture shows a cat.

    `broken`: op -> the exception it raises. `asked`: the ops that were called.
    `embed`: another role, that embeds texts.
    """

    broken: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    embed: Role | None = None

    def roles(self) -> Roles:
        hear = {"vad": self._op("vad", self._vad), "transcribe": self._op("transcribe", self._transcribe)}
        hear |= {
            "detect_language": self._op(
                "detect_language", lambda payload: {"language": "it", "probability": 1.0}
            ),
            "translate": self._op(
                "translate", lambda payload: {"text": "The the.", "no_speech": 0.0, "log_probability": -0.1}
            ),
        }
        see = {"look": self._op("look", self._look), "read": self._op("read", self._read)}
        think = {"generate": StreamOp(self._generate)}
        return Roles(LocalRole(Engine(hear)), LocalRole(Engine(see)), LocalRole(Engine(think)), self.embed)

    def _op(self, name: str, one: Callable[[Payload], Payload]) -> Op:
        def run(batch: list[Payload]) -> list[Payload | Exception]:
            self.asked.append(name)
            return [self.broken[name] if name in self.broken else one(payload) for payload in batch]

        return Op(run)

    @staticmethod
    def _vad(payload: Payload) -> Payload:
        loud = np.abs(payload["samples"].reshape(-1, 512)).mean(axis=1) > 0.05
        return {"probability": loud.astype(np.float32), "state": np.zeros(1, np.float32)}

    @staticmethod
    def _transcribe(payload: Payload) -> Payload:
        ends = np.arange(0.4, len(payload["samples"]) / 16_000, 0.4)
        words = [["la", float(end) - 0.4, float(end), 0.9] for end in ends]
        return {"words": words, "no_speech": 0.0, "log_probability": -0.1, "seconds": 0.01}

    @staticmethod
    def _look(payload: Payload) -> Payload:
        box = np.array([[0.1, 0.2, 0.5, 0.5]], np.float32)
        seen = {"tags": ["cat"], "tag_scores": [0.9], "boxes": ["cat"], "box_scores": [0.9], "corners": box}
        return {**seen, "embedding": np.ones(4, np.float32) / 2, "blank": False}

    @staticmethod
    def _read(payload: Payload) -> Payload:
        return {"texts": [], "scores": [], "corners": np.zeros((0, 4), np.float32)}

    def _generate(self, payload: Payload) -> Iterator[Payload]:
        self.asked.append("generate")
        yield {"text": "la la"}


class Sender:
    """A publisher whose frames the test taps; `lost`: packets that its transport reports as lost."""

    def __init__(self, *tracks: MediaTrack) -> None:
        self.tracks = tracks or (OPUS, VP8)
        self.closed = 0
        self.lost = 0
        self.keyframe_requests = 0

    def stats(self) -> dict[str, float]:
        return {"audio_lost": self.lost}

    def request_keyframe(self) -> None:
        self.keyframe_requests += 1

    async def close(self) -> None:
        self.closed += 1


def sends(session: Session) -> None:
    """A frame of silence comes in: the session has had media."""
    at = max(0.0, session.clock.position())
    session.media.tap(EncodedFrame("s", "main", at, clock.now(), "audio", b"\xf8\xff\xfe", "opus", True))


class Tape(Sender):
    """A source that is read as fast as possible, then ends or fails."""

    def __init__(self, frames: list[EncodedFrame], failure: Exception | None = None) -> None:
        super().__init__()
        self.frames, self.failure = frames, failure
        self.duration: float | None = 1.0

    async def run(self, sink: SourceSink) -> None:
        for frame in self.frames:
            await sink.wait_for_space()
            sink.tap(frame)
        if self.failure is not None:
            raise self.failure


def packets(folder: Path, seconds: float, **options: Any) -> list[EncodedFrame]:
    """The encoded frames of a generated clip (Opus, VP8), by time."""
    found = []
    with av.open(
        str(
            clip(folder / "stage.webm", seconds=seconds, **{"video": "libvpx", "audio": "libopus", **options})
        )
    ) as container:
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                kind: Kind = "audio" if packet.stream.type == "audio" else "video"
                codec = "opus" if kind == "audio" else "vp8"
                at = max(0.0, float(packet.pts * packet.time_base))
                found.append(
                    EncodedFrame("s", "main", at, 0.0, kind, bytes(packet), codec, bool(packet.is_keyframe))
                )
    return sorted(found, key=lambda frame: frame.at)


async def send(session: Session, frames: list[EncodedFrame]) -> None:
    """Tap frames at their times, starting now."""
    start, zero = clock.now(), session.clock.zero
    for frame in frames:
        await clock.sleep(start + frame.at - clock.now())
        session.media.tap(replace(frame, at=start - zero + frame.at, arrived=clock.now()))


def make(
    models: Models | None = None,
    /,
    *,
    options: SessionOptions | None = None,
    tape: tapes.Tape = tapes.LIVE,
    spans: SpanSink | None = None,
    **groups: dict[str, Any],
) -> Session:
    """A session kept in memory, for a `Threadless` loop. `groups`: settings."""
    settings = config.load(None, **groups)
    store = Store(None, events=1000, frames=100)
    media = ThreadPoolExecutor(1)  # never used: it starts no thread before the first submit
    shared = SharedResources(settings, (models or Models()).roles(), media, spans=spans)
    return Session("s", shared, store, options, tape)


class Playing:
    """Run a session and record its events: `async with Playing(session) as played`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[dict[str, Any]] = []  # so far

    async def __aenter__(self) -> Playing:
        self._reading = asyncio.create_task(self._read(self.session.log.subscribe(client="me")))
        self.task = asyncio.create_task(self.session.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.session.end("test_over")
        await asyncio.gather(self.task, self._reading, return_exceptions=True)
        self.session.store.close(purge=True)

    async def _read(self, subscription: Subscription) -> None:
        while (batch := await subscription.next()) is not None:
            self.events += [json.loads(text) for _, text in batch]

    async def ended(self) -> list[dict[str, Any]]:
        """All events, once the session has ended; each is validated against the schema."""
        await asyncio.wait({self.task, self._reading})
        for event in self.events:
            VALIDATOR.validate(event)
        return self.events


async def captioned(session: Session) -> None:
    """Wait for a caption, of whatever comes in from now on."""
    captions = session.log.subscribe(["caption.*"])
    try:
        assert await captions.next(), "the session has ended"
    finally:
        session.log.unsubscribe(captions)


def kinds(events: list[dict[str, Any]], prefix: str = "") -> list[str]:
    """The types of events, in order."""
    return [event["type"] for event in events if event["type"].startswith(prefix)]
