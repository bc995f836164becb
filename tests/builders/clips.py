"""Small generated media for tests."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def clip(
    path: Path,
    *,
    video: str | None = "mpeg4",
    audio: str | None = "aac",
    seconds: float = 1.0,
    rate: int = 48_000,
    b_frames: int = 0,
) -> Path:
    """Write a clip: a tone of 440 Hz, and a picture of rising brightness, 160x96 at 25 frames/s."""
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream(video, rate=25) if video else None
        sound: Any = container.add_stream(audio, rate=rate, layout="mono") if audio else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
            pictures.codec_context.max_b_frames = b_frames
            for number in range(round(25 * seconds)):
                frame = av.VideoFrame.from_ndarray(
                    np.full((96, 160, 3), number * 5 % 250, np.uint8), format="rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        if sound is not None:
            wave = (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)).astype(
                np.float32
            )
            resampler = av.AudioResampler(
                format=sound.format.name, layout="mono", rate=rate, frame_size=sound.frame_size or 1024
            )
            tone = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            tone.sample_rate, tone.pts = rate, 0
            for piece in [*resampler.resample(tone), *resampler.resample(None)]:
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
    return path


def slides(path: Path, *times: float, codec: str = "libx264", b_frames: int = 0) -> Path:
    """Write still pictures, each unlike the one before it and coded once, at some seconds; 160x96."""
    options = {"deadline": "realtime", "lag-in-frames": "0"} if codec == "libvpx" else {}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=1, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = b_frames
        for seed, at in enumerate(times):
            blocks = np.random.default_rng(seed).integers(0, 255, (6, 10), dtype=np.uint8)
            gray = blocks.repeat(16, 0).repeat(16, 1)
            frame = av.VideoFrame.from_ndarray(np.stack([gray] * 3, axis=2), format="rgb24")
            frame.pts, frame.time_base = round(at * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shot(path: Path, at: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture of a recording at a second, as a JPEG."""
    with av.open(str(path)) as container:
        container.seek(int(at * 1_000_000))
        picture: Any = next(frame for frame in container.decode(video=0) if frame.time >= at)
        buffer = io.BytesIO()
        picture.to_image().save(buffer, "JPEG", quality=85)
    return np.frombuffer(buffer.getvalue(), np.uint8)
