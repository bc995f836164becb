"""EncodedFrame -> AudioChunk and VideoFrame, at the rate and size that the models want.

A bad payload never raises out of here: it is counted in `errors`, and decoding goes on with the next good one.
The decoders are plain objects for one thread at a time; `decode` blocks, so call it by `on_thread`.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from fractions import Fraction
from typing import Any, TypeVar, cast

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from streamsvc.core import metrics
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, EncodedFrame, MediaTrack, VideoFrame

T = TypeVar("T")

MICROSECONDS = Fraction(1, 1_000_000)  # time base of what goes into the decoders: `at` in microseconds
STEP = 0.06  # seconds: a larger step of `at` between audio frames is lost audio
KNOWN_STEP = 0.005  # seconds: ... where the transport already said that something is missing
BACK = 1.0  # seconds: audio that overlaps by more is a new time line, by less it is a repetition
SLEW = 0.05  # share of the clock difference taken over with each frame: follows drift, ignores jitter
LONGEST_FILL = 3600.0  # seconds of silence put in for one gap; beyond, the time steps
PATIENCE = 300  # inter frames waited through for a keyframe, before the decoder tries without one
REMEMBERED = 64  # pictures whose arrival is remembered while the decoder reorders
_SILENCE = np.zeros(SAMPLE_RATE, dtype=np.float32)  # one second, shared by all gaps
_SILENCE.setflags(write=False)


class AudioDecoder:
    """Any codec to mono float32 at 16 kHz. `errors`: payloads that could not be decoded.

    Lost audio becomes silence of its length in chunks marked `gap`; decoded audio is never joined across it.
    """

    def __init__(self, track: MediaTrack, session: str, track_name: str = "main") -> None:
        self.errors = 0
        self._session, self._name = session, track_name
        self._codec = _audio_context(track)
        self._resampler = _resampler(1)
        self._shape: tuple[Any, ...] | None = None  # rate, layout and format that the resampler was made for
        self._anchor: float | None = None  # session seconds of the first sample since the last break
        self._heard = 0.0  # seconds decoded since then
        self._given = 0  # samples given out since then
        self._arrived = 0.0
        self._lost = 0.0  # seconds that the transport knows to be missing before the next frame

    def decode(self, frames: Sequence[EncodedFrame]) -> list[AudioChunk]:
        """Decode frames that follow each other; contiguous samples come out as one chunk."""
        chunks: list[AudioChunk] = []
        fresh: list[NDArray[np.float32]] = []
        for frame in frames:
            self._lost = max(self._lost, frame.gap)
            try:
                decoded = self._codec.decode(_packet(frame)) if frame.payload else []
                for piece in decoded:
                    self._take(piece, frame, chunks, fresh)
            except (av.error.FFmpegError, ValueError):
                self.errors += 1
                continue
            if decoded:
                self._arrived = frame.arrived
        self._give(fresh, chunks)
        return chunks

    def flush(self) -> list[AudioChunk]:
        """What the decoder and the resampler still hold; the decoder can go on after it."""
        chunks: list[AudioChunk] = []
        fresh: list[NDArray[np.float32]] = []
        try:
            for piece in self._codec.decode(None):
                self._resample(piece, fresh)
            self._codec.flush_buffers()
        except (av.error.FFmpegError, ValueError):
            self.errors += 1
        self._break(fresh, chunks)
        return chunks

    def _take(
        self, piece: Any, frame: EncodedFrame, chunks: list[AudioChunk], fresh: list[NDArray[np.float32]]
    ) -> None:
        """One decoded piece: find out where it belongs, then resample it."""
        at = frame.at if piece.pts is None else piece.pts / 1_000_000
        if self._anchor is not None:
            expected = self._anchor + self._heard
            step = at - expected
            threshold = KNOWN_STEP if self._lost else STEP
            if -BACK <= step < -STEP:
                return  # a repetition of what was heard
            if step > threshold or step < -BACK:
                self._break(fresh, chunks)
                self._fill(expected, at, frame.arrived, chunks)
                self._anchor = None
            else:
                self._anchor += SLEW * step
        shape = (piece.sample_rate, piece.layout.name, piece.format.name)
        if self._shape not in (None, shape):
            at = at if self._anchor is None else self._anchor + self._heard
            self._break(fresh, chunks)
            self._anchor = None
        if self._shape is None:
            self._resampler = _resampler(len(piece.layout.channels))
        self._shape = shape
        if self._anchor is None:
            self._anchor, self._heard, self._given = at, 0.0, 0
        self._lost = 0.0
        self._resample(piece, fresh)

    def _resample(self, piece: Any, fresh: list[NDArray[np.float32]]) -> None:
        self._heard += piece.samples / piece.sample_rate
        piece.pts = None  # a step in the pts would be passed on by the resampler; time is kept here
        fresh.extend(_mono(out) for out in self._resampler.resample(piece))

    def _break(self, fresh: list[NDArray[np.float32]], chunks: list[AudioChunk]) -> None:
        """Give all that the resampler holds: it keeps the last millisecond back for its filter."""
        if self._shape is not None:
            try:
                fresh.extend(_mono(out) for out in self._resampler.resample(None))
            except (av.error.FFmpegError, ValueError):
                self.errors += 1
            self._shape = None
        self._give(fresh, chunks)
        if self._anchor is not None:  # so that what follows without a step begins where this ended
            self._anchor, self._heard, self._given = self._anchor + self._given / SAMPLE_RATE, 0.0, 0

    def _give(self, fresh: list[NDArray[np.float32]], chunks: list[AudioChunk]) -> None:
        if not fresh or self._anchor is None:
            return
        samples = np.concatenate(fresh) if len(fresh) > 1 else fresh[0].copy()
        fresh.clear()
        at = self._anchor + self._given / SAMPLE_RATE
        self._given += len(samples)
        early = round(-at * SAMPLE_RATE)
        if early > 0:  # priming samples of the encoder, before the media begin
            samples, at = samples[early:], 0.0
        if len(samples):
            chunks.append(AudioChunk(self._session, self._name, at, self._arrived, samples))

    def _fill(self, start: float, end: float, arrived: float, chunks: list[AudioChunk]) -> None:
        start = max(0.0, start)
        left = round(min(end - start, LONGEST_FILL) * SAMPLE_RATE)
        at = start
        while left > 0:
            samples = _SILENCE[:left]
            chunks.append(AudioChunk(self._session, self._name, at, arrived, samples, gap=True))
            left -= len(samples)
            at += len(samples) / SAMPLE_RATE


class VideoDecoder:
    """Any codec to pictures, on one thread.

    After a known loss or a damaged payload it waits for the next keyframe: half-broken pictures would look like a change of scene.

    Attributes:
        errors: payloads that could not be decoded.
        skipped: payloads not decoded because they came between a loss and the next keyframe.
        waiting: whether a keyframe is waited for (ask the sender for one).
    """

    def __init__(self, track: MediaTrack, session: str, track_name: str = "main") -> None:
        self.errors = 0
        self.skipped = 0
        self.waiting = True
        self._patience = PATIENCE
        self._session, self._name = session, track_name
        self._codec = _video_context(track)
        self._arrived: dict[int, float] = {}  # pts in microseconds -> arrival

    def decode(self, frames: Sequence[EncodedFrame]) -> list[VideoFrame]:
        """Decode frames that follow each other; `at` and `arrived` of a picture are those of its own payload, in any order of coding."""
        pictures: list[VideoFrame] = []
        for frame in frames:
            if frame.gap > 0:
                self._wait()
            if frame.keyframe or (self.waiting and self._patience <= 0):
                self.waiting = False
            if self.waiting or not frame.payload:
                self._patience -= 1
                self.skipped += 1
                continue
            packet = _packet(frame)
            self._arrived[cast(int, packet.pts)] = frame.arrived
            while len(self._arrived) > REMEMBERED:
                del self._arrived[next(iter(self._arrived))]
            try:
                pictures += [self._picture(picture, frame) for picture in self._codec.decode(packet)]
            except (av.error.FFmpegError, ValueError):
                self.errors += 1
                self._codec.flush_buffers()
                self._wait()
        return pictures

    def flush(self) -> list[VideoFrame]:
        """The pictures that the decoder still holds back for reordering; the decoder can go on at the next keyframe."""
        pictures: list[VideoFrame] = []
        try:
            pictures = [self._picture(picture, None) for picture in self._codec.decode(None)]
            self._codec.flush_buffers()
        except (av.error.FFmpegError, ValueError):
            self.errors += 1
        self._wait()
        return pictures

    def _wait(self) -> None:
        self.waiting, self._patience = True, PATIENCE

    def _picture(self, picture: Any, frame: EncodedFrame | None) -> VideoFrame:
        at, arrived = (frame.at, frame.arrived) if frame else (0.0, 0.0)
        if picture.pts is not None:
            at = picture.pts / 1_000_000
            arrived = self._arrived.pop(picture.pts, arrived)
        return VideoFrame(
            self._session, self._name, max(0.0, at), arrived, picture, picture.width, picture.height
        )


def thumbnail(frame: VideoFrame, width: int = 320) -> NDArray[np.uint8]:
    """A small gray picture, uint8, shape (h, width), made by one swscale call from the decoder's own pixels."""
    height = max(2, round(width * frame.height / frame.width))
    gray = frame.handle.reformat(width=width, height=height, format="gray", interpolation="AREA")
    return _plane(gray)


def jpeg(frame: VideoFrame, max_width: int = 1280, quality: int = 85) -> bytes:
    """The picture as JPEG, at most `max_width` wide."""
    from PIL import Image  # only here: a caption-only process never needs it

    handle = frame.handle
    if frame.width > max_width:
        height = max(2, round(frame.height * max_width / frame.width))
        handle = handle.reformat(width=max_width, height=height, format="rgb24", interpolation="AREA")
    buffer = io.BytesIO()
    Image.fromarray(handle.to_ndarray(format="rgb24")).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _plane(picture: Any) -> NDArray[np.uint8]:
    plane = picture.planes[0]
    rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: picture.height, : picture.width].copy()


def _packet(frame: EncodedFrame) -> Any:
    packet = av.Packet(frame.payload)
    packet.pts = round(frame.at * 1_000_000)
    packet.time_base = MICROSECONDS
    packet.is_keyframe = frame.keyframe
    return packet


def _resampler(channels: int) -> Any:
    return av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=SAMPLE_RATE)


def _mono(piece: Any) -> NDArray[np.float32]:
    """The mean of the channels: swresample's own stereo to mono adds 3 dB to what both hold, and so clips speech."""
    samples = piece.to_ndarray()
    mono: NDArray[np.float32] = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float32)
    return mono


def _audio_context(track: MediaTrack) -> Any:
    if track.codec in (
        "opus",
        "libopus",
    ):  # libopus conceals better than FFmpeg's own decoder, for 1.4 ms a second
        codec = av.CodecContext.create("libopus", "r")
        codec.sample_rate = 48_000
        codec.layout = (
            "mono"  # libopus mixes down itself, at the right level: libswresample would add both sides up
        )
        if (
            track.context is not None and len(track.context.layout.channels) > 2
        ):  # the header tells how they are coupled; for fewer it
            codec.layout, codec.extradata = (
                track.context.layout,
                track.context.extradata,
            )  # would only cut the pre-skip, unsaid in the pts
        return codec
    context = track.context if track.context is not None else av.CodecContext.create(track.codec, "r")
    context.thread_count = 1
    return context


def _video_context(track: MediaTrack) -> Any:
    # FFmpeg's own vp8 decoder costs less than libvpx, and can skip pictures
    name = {"libvpx": "vp8", "libvpx-vp8": "vp8"}.get(track.codec, track.codec)
    codec = (
        track.context
        if track.context is not None and track.codec == name
        else av.CodecContext.create(name, "r")
    )
    codec.thread_count = 1
    return codec


def by_track(
    batch: Sequence[tuple[MediaTrack, EncodedFrame]],
) -> Iterator[tuple[MediaTrack, list[EncodedFrame]]]:
    """Frames that follow each other with the same track, and the track."""
    for _, group in itertools.groupby(batch, key=lambda sent: id(sent[0])):
        same = list(group)
        yield same[0][0], [frame for _, frame in same]


async def on_thread(media: Executor, function: Callable[..., T], *args: Any) -> T:
    """What a function gives that blocks, from one of the threads that decode."""
    return await asyncio.get_running_loop().run_in_executor(media, function, *args)


TrackFrame = tuple[
    MediaTrack, EncodedFrame
]  # a frame, and what must be known to decode it: the next publisher's tracks may differ


def count_dropped(queue: str) -> None:
    """Count an item that a full ring has count_dropped."""
    metrics.frames.labels(f"dropped_{queue}").inc()
