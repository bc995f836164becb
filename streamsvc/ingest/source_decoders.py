"""Decoders that run in the process of a source, with the interface of those of `decode`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.errors import SourceError
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, EncodedFrame, Kind, VideoFrame
from streamsvc.ingest.source_channel import Broken, Fields, error_of

T = TypeVar("T")
BEFORE = 1.0  # seconds before zero, by rounding or by what a codec puts in front
AHEAD = 60.0  # seconds by which what is decoded may lie behind the newest packet; more is a lie
SIDE = 16_384  # pixels (security limit)
BATCH = 256  # packets of one request
BATCH_BYTES = 16 << 20  # of one request; a packet may be longer
LOSSES = ("packet_loss", "missing", "overload")  # of frames: they become labels of metrics
PIECES = 4096  # chunks or pictures of one answer (security limit)


class Process(Protocol):
    """What decodes: `source_process.SourceProcess`."""

    @property
    def threads(self) -> Executor | None:
        """Threads for its calls alone; None: it has ended, so that no call waits."""
        ...

    def ask(
        self,
        kind: Kind,
        header: Mapping[str, Any],
        parts: Sequence[bytes],
        check: Callable[[Fields, memoryview], T],
    ) -> T:
        """Have something decoded, and return what `check` makes of the answer. Raises SourceError."""
        ...

    def hold(self) -> None:
        """Keep it running."""
        ...

    def release(self) -> None:
        """Let it end."""
        ...


class RemoteCodec:
    """What stands for a libav codec context that is in the process of a source.

    Attributes:
        extradata: its parameter sets, not looked into here.
        parameters: see `decoders.parameters`.
    """

    def __init__(
        self, process: Process, number: int, extradata: bytes, parameters: Mapping[str, Any]
    ) -> None:
        self.extradata = extradata
        self.parameters = dict(parameters)
        self._process = process
        self._number = number
        self._made = 0

    def audio_decoder(self, session: str, track_name: str = "main") -> RemoteAudioDecoder:
        """A decoder of its sound, as an AudioDecoder."""
        return RemoteAudioDecoder(self._caller("audio"), session, track_name)

    def video_decoder(self, session: str, track_name: str = "main") -> RemoteVideoDecoder:
        """A decoder of its pictures, as a VideoDecoder."""
        return RemoteVideoDecoder(self._caller("video"), session, track_name)

    def _caller(self, kind: Kind) -> _Caller:
        self._made += 1
        return _Caller(self._process, kind, {"codec": self._number, "decoder": self._made})


class _Caller:
    """Asks one decoder, and checks what it answers. `told`: which decoder."""

    def __init__(self, process: Process, kind: Kind, told: Mapping[str, int]) -> None:
        self._process = process
        self._kind = kind
        self._told = told
        self._newest = 0.0  # session seconds of the newest packet
        self._first = 0.0  # of the first one of this request
        self._arrived = 0.0  # when it came, monotonic seconds
        self._closed = False
        process.hold()

    @property
    def threads(self) -> Executor | None:
        """See Process."""
        return self._process.threads

    def each(
        self, op: str, frames: Sequence[EncodedFrame], check: Callable[[Fields, memoryview], list[T]]
    ) -> list[T]:
        """What `check` makes of the answers, for frames of any number. Raises as `call`.

        Requests after the first one say that they go on with it: its pictures are not looked at before.
        """
        found: list[T] = []
        first = size = 0
        for number, frame in enumerate(frames):
            size += len(frame.payload)
            if size > BATCH_BYTES or number - first >= BATCH:
                if number > first:
                    found += self.call(op, frames[first:number], check, {"continued": first > 0})
                first, size = number, len(frame.payload)
        return found + self.call(op, frames[first:], check, {"continued": first > 0})

    def call(
        self,
        op: str,
        frames: Sequence[EncodedFrame],
        check: Callable[[Fields, memoryview], T],
        more: Mapping[str, Any] | None = None,
    ) -> T:
        """What `check` makes of the answer. Raises SourceError: the process has failed, or tells an error."""

        def checked(answer: Fields, body: memoryview) -> T:
            if (error := error_of(answer)) is not None:
                raise error
            return check(answer, body)

        self._first = min((frame.at for frame in frames), default=self._newest)
        for frame in frames:
            self._newest = max(self._newest, frame.at)
            self._arrived = max(self._arrived, frame.arrived)
        header = {"op": op, **self._told, "frames": [_described(frame) for frame in frames], **(more or {})}
        return self._process.ask(self._kind, header, [frame.payload for frame in frames], checked)

    @property
    def seconds(self) -> float:
        """What this request may give at most."""
        return self._newest - self._first + AHEAD

    def time(self, fields: Fields) -> tuple[float, float]:
        """`at` and `arrived` of something decoded. Raises Broken: they cannot be."""
        at, arrived = fields.number("at"), fields.number("arrived")
        if not -BEFORE <= at <= self._newest + AHEAD or arrived > self._arrived:
            raise Broken("bad time")
        return at, arrived

    def close(self) -> None:
        """Let the process end. Idempotent."""
        if not self._closed:
            self._closed = True
            self._process.release()


class _RemoteDecoder(ABC, Generic[T]):
    """A decoder in the process of a source, whose answers are checked."""

    def __init__(self, caller: _Caller, session: str, track_name: str) -> None:
        self.errors = 0
        self._caller = caller
        self._session = session
        self._name = track_name

    @property
    def threads(self) -> Executor | None:
        """See Process."""
        return self._caller.threads

    def decode(self, frames: Sequence[EncodedFrame]) -> list[T]:
        """What is decoded. Nothing once the process has failed: the source tells that."""
        return self._ask("decode", frames)

    def flush(self) -> list[T]:
        """What the decoder holds back."""
        return self._ask("flush", ())

    def close(self) -> None:
        """Free it."""
        self._caller.close()

    def _ask(self, op: str, frames: Sequence[EncodedFrame]) -> list[T]:
        try:
            return self._caller.each(op, frames, self._checked)
        except SourceError:
            self.errors += len(frames)
            return []

    @abstractmethod
    def _checked(self, answer: Fields, body: memoryview) -> list[T]:
        """What an answer holds. Raises Broken: it cannot be."""


class RemoteAudioDecoder(_RemoteDecoder[AudioChunk]):
    """An AudioDecoder in the process of a source. Attributes as there."""

    def __init__(self, caller: _Caller, session: str, track_name: str) -> None:
        super().__init__(caller, session, track_name)
        self.repeated = 0

    def _checked(self, answer: Fields, body: memoryview) -> list[AudioChunk]:
        samples = np.frombuffer(body[: len(body) // 4 * 4], dtype=np.float32)
        if len(samples) > self._caller.seconds * SAMPLE_RATE:
            raise Broken("too much sound")
        chunks, first = [], 0
        for one in answer.objects("chunks", PIECES):
            at, arrived = self._caller.time(one)
            end = first + one.integer("samples", 1, len(samples) - first)
            piece = np.nan_to_num(samples[first:end], posinf=0.0, neginf=0.0)
            gap, loss = one.flag("gap"), one.text("loss", 20)
            if loss not in LOSSES:
                raise Broken("bad loss")
            chunks.append(AudioChunk(self._session, self._name, at, arrived, piece, gap, loss))
            first = end
        self.errors, self.repeated = answer.integer("errors"), answer.integer("repeated")
        return chunks


class RemoteVideoDecoder(_RemoteDecoder[VideoFrame]):
    """A VideoDecoder in the process of a source. Attributes as there."""

    def __init__(self, caller: _Caller, session: str, track_name: str) -> None:
        super().__init__(caller, session, track_name)
        self.skipped = 0
        self.waiting = True

    def _checked(self, answer: Fields, body: memoryview) -> list[VideoFrame]:
        pictures = []
        for one in answer.objects("pictures", PIECES):
            at, arrived = self._caller.time(one)
            handle = RemotePicture(self._caller, one.integer("picture"))
            width, height = one.integer("width", 1, SIDE), one.integer("height", 1, SIDE)
            pictures.append(VideoFrame(self._session, self._name, at, arrived, handle, width, height))
        self.errors, self.skipped = answer.integer("errors"), answer.integer("skipped")
        self.waiting = answer.flag("waiting")
        return pictures


class RemotePicture:
    """A picture in the process of a source: there until the next `decode`; the newest one, until another."""

    def __init__(self, caller: _Caller, number: int) -> None:
        self._caller = caller
        self._number = number

    @property
    def threads(self) -> Executor | None:
        """See Process."""
        return self._caller.threads

    def pixels(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Its pixels as shown, (h, w) in gray or (h, w, 3) in RGB. Raises SourceError: it is gone, too."""

        def check(_: Fields, body: memoryview) -> NDArray[np.uint8]:
            if len(body) != math.prod(shape):
                raise Broken("bad picture")
            return np.frombuffer(body, dtype=np.uint8).reshape(shape)

        told = {"picture": self._number, "shape": shape}
        return self._caller.call("pixels", (), check, told)


def _described(frame: EncodedFrame) -> dict[str, Any]:
    return {
        "at": frame.at,
        "arrived": frame.arrived,
        "size": len(frame.payload),
        "keyframe": frame.keyframe,
        "gap": frame.gap,
        "stamped": frame.stamped,
        "loss": frame.loss,
        "alone": frame.alone,
    }
