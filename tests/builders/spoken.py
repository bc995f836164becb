"""Recordings as raw samples, and events as the event log returns them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

SAID = (
    "stale smell of old",
    "takes heat to bring out the odor",
    "cold dip restores health",
    "salt pickle",
    "tacos",
    "hot cross bun",
)
KEY = "a-key-of-enough-length"


def samples(path: Path, rate: int, codec: str = "pcm_s16le") -> bytes:
    """A recording as mono samples without a container."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(str(path)) as container:
        pieces = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ] + resampler.resample(None)
    if codec == "pcm_s16le":
        return np.concatenate([piece.to_ndarray()[0] for piece in pieces]).tobytes()
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    out = b""
    for piece in pieces:
        piece.pts = None
        out += b"".join(bytes(packet) for packet in encoder.encode(piece))
    return out


def heard(text: str) -> list[str]:
    """The phrases of harvard.flac that `text` holds."""
    return [phrase for phrase in SAID if phrase in text.lower()]


def words(text: str, start: float = 1.0) -> list[dict[str, Any]]:
    """Words of a caption, half a second each."""
    return [
        {"text": word, "start": start + place / 2, "end": start + place / 2 + 0.4, "probability": 0.9}
        for place, word in enumerate(text.split())
    ]


def caption(text: str, stable: int | None = None, start: float = 1.0) -> dict[str, Any]:
    """A caption event: partial where `stable` is given, else final."""
    told = words(text, start)
    event = {
        "type": "caption.final",
        "text": text,
        "words": told,
        "start": start,
        "end": told[-1]["end"] if told else start,
        "at": start,
    }
    return event if stable is None else event | {"type": "caption.partial", "stable": stable}


def speech(active: bool, at: float) -> dict[str, Any]:
    """speech.started or speech.stopped."""
    return {"type": "speech.started" if active else "speech.stopped", "at": at}


def flushed() -> dict[str, Any]:
    """session.flushed."""
    return {"type": "session.flushed", "at": 0.0}


def closed(reason: str) -> dict[str, Any]:
    """session.closed."""
    return {"type": "session.closed", "at": 0.0, "reason": reason}
