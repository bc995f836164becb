"""Units are frozen, start with both times, and compute their ends."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from streamsvc.core import types
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Cue, Event, Word

WITH_CLOCKS = (
    "EncodedFrame",
    "VideoFrame",
    "AudioChunk",
    "Keyframe",
    "Sight",
    "ScreenText",
    "Words",
    "Speech",
    "Gap",
    "Cue",
    "Scene",
)


def units() -> list[type]:
    classes = [
        item for _, item in inspect.getmembers(types, inspect.isclass) if item.__module__ == types.__name__
    ]
    return [item for item in classes if not getattr(item, "_is_protocol", False)]  # a protocol is not a unit


@pytest.mark.parametrize("unit", units(), ids=lambda unit: unit.__name__)
def test_every_unit_is_a_frozen_dataclass_with_slots(unit: type) -> None:
    assert dataclasses.is_dataclass(unit)
    assert unit.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__dict__" not in dir(unit)


@pytest.mark.parametrize("name", WITH_CLOCKS)
def test_units_from_media_carry_session_track_and_both_clocks_first(name: str) -> None:
    fields = [field.name for field in dataclasses.fields(getattr(types, name))]
    assert fields[:4] == ["session", "track", "at", "arrived"]


def test_a_chunk_ends_after_its_last_sample() -> None:
    chunk = AudioChunk("s", "main", 2.0, 0.0, np.zeros(SAMPLE_RATE // 2, np.float32))
    assert chunk.end == 2.5


def test_a_cue_spans_its_words() -> None:
    cue = Cue(
        "s", "main", 1.0, 0.0, "hello there", (Word("hello", 1.0, 1.4), Word("there", 1.5, 2.0)), 2, True
    )
    assert (cue.start, cue.end) == (1.0, 2.0)


@pytest.mark.parametrize(("seq", "durable"), [(None, False), (0, True), (7, True)])
def test_an_event_with_a_seq_is_durable(seq: int | None, durable: bool) -> None:
    event = Event("s", "main", "e1", "id", "caption.final", 1.0, 300.0, {}, {}, seq)
    assert event.durable is durable
