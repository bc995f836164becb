"""Media encoded and cut into RTP payloads before a load test begins, so that sending costs next to nothing.

A video is encoded twice: with a keyframe only at its beginning, and as a twin with one each second, which a
sender changes to when keyframes are asked for. What was encoded is kept as Matroska files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.bitstream import BitStreamFilterContext
from av.video.frame import PictureType

RATES = {"vp8": 90_000, "h264": 90_000, "opus": 48_000}  # Hz, of the RTP clock
AUDIO_KBPS = 32
NOISE = 4.0  # gray levels, of generated pictures
SOUND = 960  # samples of a packet: 20 ms
_ENCODERS = {
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "threads": "1"}),
    "h264": (
        "libx264",
        {
            "preset": "veryfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "sc_threshold": "0",  # no keyframe but those that are forced
            "threads": "1",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One picture, or 20 ms of sound. at: media seconds. payloads: of its RTP packets."""

    at: float
    keyframe: bool
    payloads: tuple[bytes, ...]


@dataclass(frozen=True)
class Stream:
    """Units in the order of sending. codec: "vp8", "h264" or "opus". seconds: then it begins again."""

    codec: str
    seconds: float
    units: tuple[Unit, ...]

    @cached_property
    def keyframes(self) -> dict[int, int]:
        """Where a sender may change to this stream: millisecond -> index of the unit."""
        return {round(1000 * unit.at): index for index, unit in enumerate(self.units) if unit.keyframe}

    @property
    def kbps(self) -> float:
        """Bits a second of payload, in thousands."""
        return sum(len(payload) for unit in self.units for payload in unit.payloads) * 8e-3 / self.seconds


@dataclass(frozen=True, slots=True)
class Recording:
    """What a publisher sends. twin: of the video, with a keyframe a second."""

    audio: Stream | None = None
    video: Stream | None = None
    twin: Stream | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """How a video is encoded."""

    codec: str = "vp8"  # or "h264"
    width: int = 1280
    height: int = 720
    fps: int = 30
    kbps: int = 2000


def recording(
    folder: Path,
    *,
    seconds: float,
    video: Path | None = None,
    audio: Path | None = None,
    form: Form | None = Form(),
) -> Recording:
    """Encode media, or read what was encoded before.

    Args:
        folder: where the encoded files are kept, for the next run.
        seconds: of the media, from the beginning; a shorter file is continued by its own beginning.
        video: a file that libav reads; None: generated pictures of a camera.
        audio: the same; None: a tone.
        form: of the video; None: there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sound = _kept(folder, ("opus", audio, seconds), lambda to: _encode_sound(to, audio, seconds))
    if form is None:
        return Recording(_stream(sound, "opus", seconds))
    paths = [
        _kept(
            folder,
            (form, video or "camera", seconds, every),
            lambda to, every=every: _encode_pictures(to, _pictures(video, form, seconds), form, every),  # type: ignore[misc]
        )
        for every in (0, form.fps)
    ]
    main, twin = (_stream(path, form.codec, seconds) for path in paths)
    return Recording(_stream(sound, "opus", seconds), main, twin)


def _kept(folder: Path, key: object, make: Callable[[Path], None]) -> Path:
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.mkv"
    if not path.exists():
        half = path.with_suffix(".part")
        make(half)
        half.rename(path)
    return path


# --- encoding -----------------------------------------------------------------------------------------------


def _encode_pictures(to: Path, pictures: Iterator[Any], form: Form, every: int) -> None:
    """Write pictures; a keyframe comes first, and at each `every`-th picture if that is not 0."""
    name, options = _ENCODERS[form.codec]
    with av.open(str(to), "w", format="matroska") as container:
        stream: Any = container.add_stream(name, rate=form.fps, options={**options, "g": "100000"})
        stream.width, stream.height, stream.pix_fmt = form.width, form.height, "yuv420p"
        stream.bit_rate = form.kbps * 1000
        for number, picture in enumerate(pictures):
            forced = number % every == 0 if every else number == 0
            picture.pict_type = PictureType.I if forced else PictureType.NONE
            picture.pts, picture.time_base = number, Fraction(1, form.fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _pictures(video: Path | None, form: Form, seconds: float) -> Iterator[Any]:
    """`seconds` of pictures of the form's size and rate."""
    count = round(seconds * form.fps)
    if video is None:
        yield from _drawn(form, count)
        return
    number = 0
    while number < count:
        first = number
        with av.open(str(video)) as container:
            for picture in container.decode(video=0):
                due = first + round(float(picture.time or 0.0) * form.fps)
                shown = picture.reformat(width=form.width, height=form.height, format="yuv420p", threads=1)
                while number <= due and number < count:
                    yield shown
                    number += 1
        if number == first:
            raise SystemExit(f"{video} has no pictures")


def _drawn(form: Form, count: int) -> Iterator[Any]:
    """Pictures of a still scene before a camera: its noise is work for encoders, and no change."""
    across, down = np.meshgrid(np.arange(form.width), np.arange(form.height))
    scene = 128 + 80 * np.sin(across / 40) * np.cos(down / 60)
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, NOISE, (form.height, form.width))
    for _ in range(count):
        moved = np.roll(noise, tuple(rng.integers(0, form.height, 2)), (0, 1))
        gray = (scene + moved).clip(0, 255).astype(np.uint8)
        yield av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p", threads=1)


def _encode_sound(to: Path, audio: Path | None, seconds: float) -> None:
    with av.open(str(to), "w", format="matroska") as container:
        stream: Any = container.add_stream("libopus", rate=48_000, layout="mono")
        stream.bit_rate = AUDIO_KBPS * 1000
        for number, samples in enumerate(_sound(audio, seconds)):
            piece = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            piece.sample_rate, piece.pts = 48_000, number * SOUND
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def _sound(audio: Path | None, seconds: float) -> Iterator[Any]:
    """`seconds` of sound in pieces of SOUND samples, int16."""
    if audio is None:
        samples = (8000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 48_000)) / 48_000)).astype(
            np.int16
        )
    else:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
        with av.open(str(audio)) as container:
            parts = [
                out.to_ndarray()[0]
                for piece in container.decode(audio=0)
                for out in resampler.resample(piece)
            ]
        samples = np.concatenate(parts)
    samples = np.resize(samples, round(seconds * 48_000))
    for start in range(0, len(samples) - SOUND + 1, SOUND):
        yield samples[start : start + SOUND]


# --- RTP payloads -------------------------------------------------------------------------------------------


def _stream(path: Path, codec: str, seconds: float) -> Stream:
    with av.open(str(path)) as container:
        stream = container.streams[0]
        packets: Iterator[Any] = container.demux(stream)
        if codec == "h264":  # as Annex B, with the parameter sets before each keyframe
            packets = _filtered(packets, BitStreamFilterContext("h264_mp4toannexb", stream))
        found = [
            (packet.pts, packet.is_keyframe, bytes(packet)) for packet in packets if packet.pts is not None
        ]
        base = float(stream.time_base or 0)
    first = found[0][0]
    units = []
    for number, (pts, keyframe, data) in enumerate(found):
        at = number * SOUND / 48_000 if codec == "opus" else (pts - first) * base
        if at < seconds:
            units.append(Unit(at, keyframe, _payloads(codec, data, number)))
    return Stream(codec, seconds, tuple(units))


def _filtered(packets: Iterator[Any], bsf: Any) -> Iterator[Any]:
    for packet in packets:
        yield from bsf.filter(packet if packet.pts is not None else None)


def _payloads(codec: str, data: bytes, number: int) -> tuple[bytes, ...]:
    if codec == "vp8":
        return tuple(Vp8Encoder._packetize(data, number & 0x7FFF))
    if codec == "h264":
        return tuple(H264Encoder._packetize(H264Encoder._split_bitstream(data)))
    return (data,)
