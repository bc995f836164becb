"""Recordings to measure on, and their transcripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from streamsvc.core.errors import ConfigError
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.score_captions import norm
from streamsvc.ingest.decode import mixed_down
from streamsvc.ingest.downmix import Downmixer

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truth:
    """The transcript of a recording: words (see `norm`) and their ends in seconds, if known."""

    words: tuple[str, ...]
    ends: tuple[float, ...] | None = None

    def until(self, seconds: float) -> Truth:
        """The words that end by `seconds`; all words if the ends are unknown."""
        if self.ends is None:
            return self
        count = sum(end <= seconds for end in self.ends)
        return Truth(self.words[:count], self.ends[:count])


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording.

    `samples`: mono float32 at SAMPLE_RATE, shape (n,). `cut`: only its first part was read.
    """

    path: Path
    samples: Samples
    truth: Truth | None
    cut: bool = False

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / SAMPLE_RATE


def read(path: Path, seconds: float | None = None) -> Samples:
    """Decode the first audio track of a file, or its first `seconds`.

    Mono float32 at SAMPLE_RATE, shape (n,); channels are mixed down as a session does.

    Raises:
        ConfigError: the file does not exist, has no sound, or cannot be decoded.
    """
    blocks: list[Samples] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ConfigError(f"{path} has no sound")
            resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE)
            downmixer: Downmixer | None = None
            for frame in container.decode(audio=0):
                piece: Any = frame
                if len(frame.layout.channels) > 1:
                    names = [channel.name for channel in frame.layout.channels]
                    downmixer = downmixer or Downmixer(names, frame.sample_rate)
                    piece = mixed_down(frame, downmixer)
                blocks += [block.to_ndarray()[0] for block in resampler.resample(piece)]
                if seconds is not None and frame.time is not None and frame.time > seconds + 1.0:
                    break
            if blocks:
                blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    except (av.error.FFmpegError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    if not blocks:
        raise ConfigError(f"{path} has no sound")
    samples = np.concatenate(blocks)
    return samples if seconds is None else samples[: int(seconds * SAMPLE_RATE)]


def truth_of(path: Path, given: Path | None = None) -> Truth | None:
    """The transcript of a recording.

    Args:
        path: the recording.
        given: a text, or JSON: {"words": [{"w", "end"}]}, {"transcript"} or streambench's {"truth", "end"}.
            None: the entry of the nearest manifest.json of a folder above that has one.

    Returns:
        None: there is no transcript.

    Raises:
        ConfigError: the file cannot be read.
    """
    if given is not None:
        try:
            text = given.read_text(encoding="utf-8")
            return Truth(tuple(norm(text))) if given.suffix != ".json" else _from_json(json.loads(text))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"--truth {given}: cannot be read ({type(error).__name__})") from None
    for folder in path.resolve().parents:
        for entry in _entries(folder / "manifest.json"):
            if folder / entry["path"] == path.resolve():
                try:
                    return (
                        _from_json(entry)
                        if entry.get("words") or entry.get("transcript") is not None
                        else None
                    )
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    manifest, name = folder / "manifest.json", type(error).__name__
                    message = f"{manifest}: the entry of {entry['path']} cannot be read ({name})"
                    raise ConfigError(message) from None
    return None


def _entries(manifest: Path) -> list[dict[str, Any]]:
    """The recordings of a manifest; [] where there is none, or a file of that name with another purpose."""
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    listed = files if isinstance(files, list) else []
    return [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("path"), str)]


def _from_json(entry: dict[str, Any]) -> Truth:
    if "truth" in entry:
        return Truth(tuple(entry["truth"]), tuple(float(end) for end in entry["end"]))
    if entry.get("words"):
        timed = [(word, float(item["end"])) for item in entry["words"] for word in norm(item["w"])]
        return Truth(tuple(word for word, _ in timed), ascending([end for _, end in timed]))
    return Truth(tuple(norm(entry["transcript"])))


def ascending(ends: Sequence[float]) -> tuple[float, ...]:
    """Ends of words, rounded to milliseconds, made non-decreasing."""
    return tuple(float(end) for end in np.maximum.accumulate(np.asarray(ends, np.float64)).round(3))
