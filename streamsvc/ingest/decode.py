"""Decoders: EncodedFrame -> AudioChunk (16 kHz mono) and VideoFrame.

A damaged payload never raises: it is counted in `errors`, and decoding continues with the next one. A decoder
is used by one thread at a time; `decode` blocks, so call it through `on_thread`.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeVar, cast

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from streamsvc.core.orientation import Orientation
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, EncodedFrame, MediaTrack, VideoFrame
from streamsvc.ingest.display_matrix import has_exif, orientation, shown_size
from streamsvc.ingest.downmix import Downmixer, planar
from streamsvc.ingest.source_decoders import RemotePicture

T = TypeVar("T")

# A frame, and the parameters to decode it: the next publisher's tracks may differ.
TrackFrame = tuple[MediaTrack, EncodedFrame]

MICROSECONDS = Fraction(1, 1_000_000)  # time base of the packets: `at` in microseconds
STEP = 0.06  # seconds: a larger step of `at` between audio frames is lost audio
KNOWN_STEP = 0.005  # seconds: the same, after a loss that the transport reported
REPEATED = 64  # payloads remembered, to tell a repetition from audio whose stamp is too early
SLEW = 0.05  # share of the clock difference corrected per frame: follows drift, ignores jitter
LONGEST_FILL = 4.0  # seconds of silence inserted for one gap; of a longer one, its first and last second
PATIENCE = 300  # inter frames skipped while waiting for a codec keyframe, then decoding is tried without one
REORDERED = 64  # pictures whose arrival is remembered while the decoder reorders
TALL = 4  # times its width: the height of a thumbnail or JPEG at most (security limit)
_SILENCE = np.zeros(SAMPLE_RATE, dtype=np.float32)  # one second, shared by all gaps
_SILENCE.setflags(write=False)


class AudioDecoder:
    """Decodes any codec to mono float32 at 16 kHz.

    Lost audio becomes silence in chunks marked `gap`: of its length, or its first and its last second. Chunks
    never span a gap. Audio whose stamp is too early follows the audio before it: none is left out.

    Attributes:
        errors: payloads that could not be decoded.
        repeated: payloads that came again, and were left out.
    """

    def __init__(self, track: MediaTrack, session: str, track_name: str = "main") -> None:
        self.errors = 0
        self.repeated = 0
        self._session = session
        self._name = track_name
        self._recent: deque[int] = deque(maxlen=REPEATED)  # hashes of payloads
        self._codec = _audio_context(track)
        self._resampler = _resampler()
        self._downmixer: Downmixer | None = None  # None: one channel
        self._shape: tuple[Any, ...] | None = None  # rate, layout and format of the decoded pieces
        self._anchor: float | None = None  # session seconds of the first sample since the last break
        self._decoded = 0.0  # seconds decoded since the anchor
        self._emitted = 0  # samples emitted since the anchor
        self._arrived = 0.0
        self._lost = 0.0  # seconds that the transport reports missing before the next frame

    def decode(self, frames: Sequence[EncodedFrame]) -> list[AudioChunk]:
        """Decode consecutive frames; contiguous samples come out as one chunk."""
        chunks: list[AudioChunk] = []
        fresh: list[NDArray[np.float32]] = []
        for frame in frames:
            self._lost = max(self._lost, frame.gap)
            if self._repeats(frame):
                self.repeated += 1
                continue
            if not frame.payload and frame.gap and self._anchor is not None:  # the end is missing
                self._break(fresh, chunks)
                self._fill(self._anchor + self._decoded, frame, chunks)
                continue
            try:
                decoded = self._codec.decode(_packet(frame)) if frame.payload else []
                for piece in decoded:
                    self._add(piece, frame, chunks, fresh)
            except (av.error.FFmpegError, ValueError):
                self.errors += 1
                continue
            if decoded:
                self._arrived = frame.arrived
        self._emit(fresh, chunks)
        return chunks

    def flush(self) -> list[AudioChunk]:
        """Drain the decoder and the resampler; decoding can continue afterwards."""
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

    def close(self) -> None:
        """Free it; it is not used after this."""

    def _add(
        self, piece: Any, frame: EncodedFrame, chunks: list[AudioChunk], fresh: list[NDArray[np.float32]]
    ) -> None:
        """Place one decoded piece on the time line, then resample it."""
        at = frame.at if piece.pts is None else piece.pts / 1_000_000
        if self._anchor is not None:
            expected = self._anchor + self._decoded
            step = at - expected if frame.stamped else 0.0
            if step > (KNOWN_STEP if self._lost else STEP):
                self._break(fresh, chunks)
                self._fill(expected, replace(frame, at=at), chunks)
                self._anchor = None
            elif step >= -STEP:
                self._anchor += SLEW * step
        elif self._lost:
            self._fill(at - self._lost, replace(frame, at=at), chunks)
        shape = (piece.sample_rate, piece.layout.name, piece.format.name)
        if self._shape not in (None, shape):
            at = at if self._anchor is None else self._anchor + self._decoded
            self._break(fresh, chunks)
            self._anchor = None
        if self._shape is None:
            self._resampler = _resampler()
            names = [channel.name for channel in piece.layout.channels]
            self._downmixer = Downmixer(names, piece.sample_rate) if len(names) > 1 else None
        self._shape = shape
        if self._anchor is None:
            self._set_anchor(at)
        self._lost = 0.0
        self._resample(piece, fresh)

    def _repeats(self, frame: EncodedFrame) -> bool:
        """Whether a frame came already: its payload is known, and its time has passed."""
        payload = hash(frame.payload)
        end = self._anchor + self._decoded if self._anchor is not None else frame.at
        known = payload in self._recent and frame.stamped and frame.at < end - STEP
        self._recent.append(payload)
        return known

    def _set_anchor(self, at: float) -> None:
        self._anchor = at
        self._decoded = 0.0
        self._emitted = 0

    def _resample(self, piece: Any, fresh: list[NDArray[np.float32]]) -> None:
        self._decoded += piece.samples / piece.sample_rate
        if self._downmixer is not None:
            piece = mixed_down(piece, self._downmixer)
        piece.pts = None  # the resampler would pass on a step of the pts; the anchor keeps the time
        fresh.extend(out.to_ndarray()[0] for out in self._resampler.resample(piece))

    def _break(self, fresh: list[NDArray[np.float32]], chunks: list[AudioChunk]) -> None:
        """Drain the resampler, which keeps back the last millisecond for its filter, and emit."""
        if self._shape is not None:
            try:
                fresh.extend(out.to_ndarray()[0] for out in self._resampler.resample(None))
            except (av.error.FFmpegError, ValueError):
                self.errors += 1
            self._shape = None
        self._emit(fresh, chunks)
        if self._anchor is not None:  # audio that follows without a step starts at this end
            self._set_anchor(self._anchor + self._emitted / SAMPLE_RATE)

    def _emit(self, fresh: list[NDArray[np.float32]], chunks: list[AudioChunk]) -> None:
        if not fresh or self._anchor is None:
            return
        samples = np.concatenate(fresh) if len(fresh) > 1 else fresh[0].copy()
        fresh.clear()
        at = self._anchor + self._emitted / SAMPLE_RATE
        self._emitted += len(samples)
        early = round(-at * SAMPLE_RATE)
        if early > 0:  # priming samples of the encoder, before time 0
            samples = samples[early:]
            at = 0.0
        if len(samples):
            chunks.append(AudioChunk(self._session, self._name, at, self._arrived, samples))

    def _fill(self, start: float, frame: EncodedFrame, chunks: list[AudioChunk]) -> None:
        """Append silence from `start`, session seconds, to a frame."""
        at = max(0.0, start)
        while (left := round((frame.at - at) * SAMPLE_RATE)) > 0:
            samples = _SILENCE[:left]
            chunks.append(
                AudioChunk(self._session, self._name, at, frame.arrived, samples, gap=True, loss=frame.loss)
            )
            at += len(samples) / SAMPLE_RATE
            if frame.at - at > LONGEST_FILL:
                at = frame.at - len(_SILENCE) / SAMPLE_RATE


class VideoDecoder:
    """Decodes any codec to pictures, on one thread.

    After a known loss or a damaged payload it waits for the next codec keyframe: broken pictures would look
    like a scene change.

    Attributes:
        errors: payloads that could not be decoded.
        skipped: payloads between a loss and the next codec keyframe, not decoded.
        waiting: whether it waits for a codec keyframe (request one from the sender).
    """

    def __init__(self, track: MediaTrack, session: str, track_name: str = "main") -> None:
        self.errors = 0
        self.skipped = 0
        self.waiting = True
        self._patience = PATIENCE
        self._session = session
        self._name = track_name
        self._codec = _video_context(track)
        self._pixel_aspect = track.pixel_aspect
        self._is_jpeg = self._codec.codec.name == "mjpeg"
        self._arrived: dict[int, float] = {}  # pts in microseconds -> arrival
        self._turned: tuple[float, Orientation] | None = None  # PyAV's rotation, and what it means

    def decode(self, frames: Sequence[EncodedFrame]) -> list[VideoFrame]:
        """Decode consecutive frames; each picture has `at` and `arrived` of its own payload."""
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
            while len(self._arrived) > REORDERED:
                del self._arrived[next(iter(self._arrived))]
            try:
                pictures += [self._picture(picture, frame) for picture in self._codec.decode(packet)]
                if frame.alone and self._codec.has_b_frames:  # it would be held back until others come
                    pictures += [self._picture(picture, frame) for picture in self._codec.decode(None)]
                    self._codec.flush_buffers()
            except (av.error.FFmpegError, ValueError):
                self.errors += 1
                self._codec.flush_buffers()
                self._wait()
        return pictures

    def flush(self) -> list[VideoFrame]:
        """Drain the pictures kept for reordering; decoding can continue at the next codec keyframe."""
        pictures: list[VideoFrame] = []
        try:
            pictures = [self._picture(picture, None) for picture in self._codec.decode(None)]
            self._codec.flush_buffers()
        except (av.error.FFmpegError, ValueError):
            self.errors += 1
        self._wait()
        return pictures

    def close(self) -> None:
        """Free it; it is not used after this."""

    def _wait(self) -> None:
        self.waiting = True
        self._patience = PATIENCE

    def _orientation(self, picture: Any, payload: bytes) -> Orientation:
        """How it is to be shown: looked up anew where the rotation changes.

        PyAV keeps a picture whose side data is read until cycles are collected: 1.4 MB each of 720p.
        """
        if self._is_jpeg and has_exif(payload):
            return orientation(picture, payload)
        rotation = float(picture.rotation)
        if self._turned is None or self._turned[0] != rotation:
            self._turned = rotation, orientation(picture)
        return self._turned[1]

    def _picture(self, picture: Any, frame: EncodedFrame | None) -> VideoFrame:
        at, arrived, payload = (frame.at, frame.arrived, frame.payload) if frame else (0.0, 0.0, b"")
        if picture.pts is not None:
            at = picture.pts / 1_000_000
            arrived = self._arrived.pop(picture.pts, arrived)
        aspect = self._pixel_aspect or self._codec.sample_aspect_ratio
        size = shown_size(picture.width, picture.height, None if aspect is None else float(aspect))
        shown = self._orientation(picture, payload)
        return VideoFrame(
            self._session, self._name, max(0.0, at), arrived, picture, *shown.size(*size), shown
        )


def thumbnail(frame: VideoFrame, width: int = 320) -> NDArray[np.uint8]:
    """A small gray picture as shown, uint8, shape (h, width), scaled from the decoder's own pixels."""
    height = min(max(2, round(width * frame.height / frame.width)), TALL * width)
    return pixels(frame, (height, width))


def jpeg(frame: VideoFrame, max_width: int = 1280, quality: int = 85) -> bytes:
    """Encode a picture as shown as JPEG, at most `max_width` pixels wide."""
    from PIL import Image  # lazy: a caption-only process does not need it

    scale = min(1.0, max_width / frame.width, TALL * max_width / frame.height)
    shown = max(2, round(frame.height * scale)), max(2, round(frame.width * scale))
    buffer = io.BytesIO()
    Image.fromarray(pixels(frame, (*shown, 3))).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def pixels(frame: VideoFrame, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture as shown, uint8. `shape`: (h, w): gray; (h, w, 3): RGB.

    Raises:
        SourceError: its source's process has failed.
    """
    handle = frame.handle
    if isinstance(handle, RemotePicture):
        return handle.pixels(shape)
    width, height = frame.orientation.size(shape[1], shape[0])
    if len(shape) == 2:
        gray = handle.reformat(width=width, height=height, format="gray", interpolation="AREA", threads=1)
        return frame.orientation.apply(_plane(gray))
    if (width, height) != (handle.width, handle.height):
        handle = handle.reformat(width=width, height=height, format="rgb24", interpolation="AREA", threads=1)
    return frame.orientation.apply(handle.to_ndarray(format="rgb24", threads=1))


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


def mixed_down(piece: Any, downmixer: Downmixer) -> Any:
    """One channel of the sound of an av.AudioFrame, as another one (fltp)."""
    mono = av.AudioFrame.from_ndarray(downmixer.mix(planar(piece))[None], format="fltp", layout="mono")
    mono.sample_rate = piece.sample_rate
    return mono


def _resampler() -> Any:
    return av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)


def _audio_context(track: MediaTrack) -> Any:
    if track.codec in ("opus", "libopus"):  # libopus conceals losses better than FFmpeg's own decoder
        codec = av.CodecContext.create("libopus", "r")
        codec.sample_rate = 48_000
        channels = 2 if track.context is None else len(track.context.layout.channels)
        codec.layout = "mono" if channels == 1 else "stereo"  # mono from stereo: silence where they cancel
        if track.context is not None and channels > 2:
            # The header says how channels are coupled; with fewer it would only cut the pre-skip, unseen by
            # the pts.
            codec.layout = track.context.layout
            codec.extradata = track.context.extradata
        return codec
    context = track.context if track.context is not None else av.CodecContext.create(track.codec, "r")
    context.thread_count = 1
    return context


def _video_context(track: MediaTrack) -> Any:
    # FFmpeg's own vp8 decoder is cheaper than libvpx and can skip pictures.
    name = {"libvpx": "vp8", "libvpx-vp8": "vp8"}.get(track.codec, track.codec)
    codec = (
        track.context
        if track.context is not None and track.codec == name
        else av.CodecContext.create(name, "r")
    )
    codec.thread_count = 1
    return codec


def by_track(batch: Sequence[TrackFrame]) -> Iterator[tuple[MediaTrack, list[EncodedFrame]]]:
    """Group consecutive frames of the same track."""
    for _, group in itertools.groupby(batch, key=lambda pair: id(pair[0])):
        pairs = list(group)
        yield pairs[0][0], [frame for _, frame in pairs]


async def on_thread(media: Executor, function: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a decoding thread: of `decoders.threads`."""
    return await asyncio.get_running_loop().run_in_executor(media, function, *args)
