"""A hear engine without a model: the audio is its own script. For worker processes, and as a FakeRole.

A sample of n hundredths belongs to word number n, 0 is silence. Word n is recognised as "w<n>".
"""

from __future__ import annotations

import itertools
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines import Engine, Op, Payload, each
from streamsvc.core.types import SAMPLE_RATE
from tests.fakes.role import FakeRole

NAME = "tests.fakes.hear_engine"
WINDOW = 512  # samples per voice-activity probability
WORD = 10 * WINDOW  # samples: 0.32 s


def spoken(words: int, silence: float) -> Any:
    """Samples of words 1 to `words`, each WORD long, then `silence` seconds of silence."""
    blocks = [np.full(WORD, number / 100, np.float32) for number in range(1, words + 1)]
    return np.concatenate([*blocks, np.zeros(int(silence * SAMPLE_RATE / WINDOW) * WINDOW, np.float32)])


def ends(words: int) -> tuple[float, ...]:
    """Seconds at which these words end."""
    return tuple(round(number * WORD / SAMPLE_RATE, 3) for number in range(1, words + 1))


def written(path: Path, samples: Any) -> Path:
    """Write samples as a 16-bit WAV file."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.round(samples * 32768).astype("<i2").tobytes())
    return path


def load(options: Mapping[str, Any]) -> Engine:
    """Nothing to load."""
    return Engine(
        {"vad": Op(each(_vad)), "transcribe": Op(each(_transcribe)), "detect_language": Op(each(_language))}
    )


def _vad(payload: Payload) -> Payload:
    windows = payload["samples"].reshape(-1, WINDOW)
    return {
        "probability": (np.abs(windows) > 0.004).any(axis=1).astype(np.float32),
        "state": np.zeros(320, np.float32),
    }


def recognition(words: list[list[Any]], language: str | None) -> Payload:
    """What op `transcribe` answers. `words`: text, start, end, probability of each."""
    return {
        "words": words,
        "text": " ".join(str(word[0]) for word in words),
        "no_speech": 0.0,
        "log_probability": -0.1,
        "padded": False,
        "rejected": False,
        "language": language,
        "seconds": 0.0,
    }


def _transcribe(payload: Payload) -> Payload:
    numbers = np.round(payload["samples"] * 100).astype(int)
    words: list[list[Any]] = []
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for first, last in itertools.pairwise(edges):
        if numbers[first]:
            words.append([f"w{numbers[first]}", first / SAMPLE_RATE, last / SAMPLE_RATE, 0.9])
    return recognition(words, payload["language"])


def _language(payload: Payload) -> Payload:
    return {"language": "de", "probability": 0.9}


def hear_role(**script: Any) -> FakeRole:
    """The engine as a role in the test's own loop; `script`: fields of FakeRole."""
    ops = {"vad": _vad, "transcribe": _transcribe, "detect_language": _language}
    return FakeRole(ops, **script)
