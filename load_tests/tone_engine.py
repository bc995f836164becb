"""Engines without models, for load tests of everything else: words are tones, which outlive Opus.

Word number n is a tone of FIRST + n * STEP Hz that lasts WORD seconds, then GAP seconds of silence follow. It
is recognised as "w<n>" by its frequency, in a millisecond. Pictures show a cat, and text is read nowhere.
For a worker process: `load` has the ops of all roles.
"""

from __future__ import annotations

import random
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines import Engine, Op, Payload, each
from streamsvc.core.types import SAMPLE_RATE
from tests.fakes.embed_role import word_scores, word_vectors
from tests.fakes.hear_engine import recognition
from tests.fakes.see_engine import Eyes

NAME = "load_tests.tone_engine"
WORDS, FIRST, STEP = 20, 500.0, 150.0  # Hz: up to 3,350
WORD, GAP, PAUSE = 0.24, 0.1, 0.9  # seconds
SENTENCE = 7  # words
WINDOW = 512  # samples per voice-activity probability
_FRAME = 160  # samples whose level is looked at
_LOUD = 0.02
_SHORTEST = 0.08  # seconds of a tone that is a word
_SAME = 0.2  # seconds between two parts of one word, of which a packet was lost


def script(seconds: float, seed: int = 1) -> list[tuple[str, float, float]]:
    """The words of so many seconds with their starts and ends; no word follows itself."""
    draw = random.Random(seed)
    words: list[tuple[str, float, float]] = []
    at, last = 0.5, -1
    while at + WORD + 1.5 <= seconds:
        last = draw.choice([number for number in range(WORDS) if number != last])
        words.append((f"w{last}", at, at + WORD))
        at += WORD + (PAUSE if len(words) % SENTENCE == 0 else GAP)
    return words


def write(to: Path, seconds: float, seed: int = 1) -> Path:
    """Write the words of `script` as a WAV file."""
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    time = np.arange(round(WORD * SAMPLE_RATE)) / SAMPLE_RATE
    edge = np.minimum(1.0, np.minimum(time, WORD - time) / 0.01).astype(np.float32)  # without clicks
    for word, start, _ in script(seconds, seed):
        first = round(start * SAMPLE_RATE)
        tone = 0.3 * np.sin(2 * np.pi * (FIRST + STEP * int(word[1:])) * time)
        samples[first : first + len(time)] = tone * edge
    return write_wav(to, samples)


def write_wav(to: Path, samples: Any) -> Path:
    """Write samples at SAMPLE_RATE, mono, as a 16-bit WAV file."""
    with wave.open(str(to), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return to


def recognised(samples: Any) -> list[tuple[str, float, float]]:
    """The words of samples at SAMPLE_RATE with their starts and ends."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    loud = np.concatenate([[False], np.abs(frames).max(axis=1, initial=0.0) > _LOUD, [False]])
    edges = np.flatnonzero(np.diff(loud.astype(np.int8))) * _FRAME
    words: list[tuple[str, float, float]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
        word = _word(samples[first:last])
        if not word:
            continue
        if words and words[-1][0] == word and start - words[-1][2] < _SAME:
            words[-1] = (word, words[-1][1], end)
        elif end - start >= _SHORTEST:
            words.append((word, start, end))
    return words


def _word(samples: Any) -> str:
    """The word of a tone; "": it is above all words, so that it is sound and no word."""
    size = 4096
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    loudest = float(np.argmax(spectrum)) * SAMPLE_RATE / size
    number = round((loudest - FIRST) / STEP)
    return "" if number > 2 * WORDS else f"w{min(WORDS - 1, max(0, number))}"


def load(options: Mapping[str, Any]) -> Engine:
    """Nothing to load."""
    eyes = Eyes()
    return Engine(
        {
            "vad": Op(each(_vad)),
            "transcribe": Op(each(_transcribe)),
            "detect_language": Op(each(lambda _: {"language": "en", "probability": 1.0})),
            "look": Op(eyes.look),
            "read": Op(eyes.read),
            "texts": Op(each(word_vectors)),
            "rank": Op(each(word_scores)),
        }
    )


def _vad(payload: Payload) -> Payload:
    windows = payload["samples"].reshape(-1, WINDOW)
    loud = np.abs(windows).max(axis=1) > _LOUD
    return {"probability": loud.astype(np.float32), "state": np.zeros(320, np.float32)}


def _transcribe(payload: Payload) -> Payload:
    words = [[word, start, end, 0.9] for word, start, end in recognised(payload["samples"])]
    return recognition(words, payload["language"])
