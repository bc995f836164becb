"""The audio buffer: holes become silence, losses are reported, samples have arrivals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap
from streamsvc.speech.audio_buffer import HOLE_MAX, AudioBuffer
from streamsvc.speech.vad import VAD_WINDOW

WINDOW = VAD_WINDOW / SAMPLE_RATE  # seconds


def chunk(at: float, windows: int = 1, *, value: float = 1.0, gap: bool = False) -> AudioChunk:
    """Whole VAD windows that arrive 100 s after their session time."""
    end = at + windows * WINDOW
    return AudioChunk("s", "main", at, 100.0 + end, np.full(windows * VAD_WINDOW, value, np.float32), gap)


def buffer_of(*chunks: AudioChunk, speaking: bool = False) -> tuple[AudioBuffer, list[Gap]]:
    audio = AudioBuffer("s", "main")
    gaps = [gap for item in chunks for gap in audio.append(item, reason="overload", speaking=speaking)]
    return audio, gaps


def test_contiguous_chunks_start_at_the_time_of_the_first() -> None:
    audio, gaps = buffer_of(chunk(3.0), chunk(3.0 + WINDOW))
    assert (audio.start, audio.end) == pytest.approx((3.0, 3.0 + 2 * WINDOW))
    assert gaps == []


def test_a_hole_becomes_silence_and_is_reported_from_the_minimum_on() -> None:
    audio, gaps = buffer_of(chunk(0.0, 10), chunk(0.52))
    assert audio.end == pytest.approx(0.52 + WINDOW)
    assert gaps == []
    assert not audio.slice(0.33, 0.51).any()
    _, (gap,) = buffer_of(chunk(0.0, 10), chunk(1.32))
    assert (gap.start, gap.end) == pytest.approx((0.32, 1.32))
    assert gap.reason == "overload"


def test_a_hole_that_was_reported_is_not_reported_again() -> None:
    audio, _ = buffer_of(chunk(0.0))
    audio.mark_reported(2.0)
    assert audio.append(chunk(2.0), reason="overload", speaking=False) == []


def test_a_long_hole_moves_time_unless_an_utterance_is_open() -> None:
    idle, _ = buffer_of(chunk(0.0), chunk(60.0))
    assert idle.end - idle.start == pytest.approx(HOLE_MAX + 2 * WINDOW, abs=0.01)
    speaking, _ = buffer_of(chunk(0.0), chunk(60.0), speaking=True)
    assert speaking.end - speaking.start == pytest.approx(60.0 + WINDOW, abs=0.01)


def test_jitter_of_timestamps_adds_and_removes_nothing_and_an_overlap_is_cut() -> None:
    audio, _ = buffer_of(chunk(0.0, 10), chunk(0.36), chunk(0.31))
    assert audio.end == pytest.approx(11 * WINDOW, abs=0.05)


def test_marked_losses_are_reported_when_they_end() -> None:
    _, gaps = buffer_of(chunk(0.0, 10), chunk(0.32, 20, gap=True), chunk(0.96))
    assert [(gap.start, gap.end, gap.reason) for gap in gaps] == [(0.32, 0.96, "packet_loss")]


def test_a_loss_that_is_not_filled_to_its_end_is_reported_once_with_its_reason() -> None:
    first, last = (replace(chunk(at, 5, gap=True), loss="missing") for at in (0.32, 59.84))
    _, gaps = buffer_of(chunk(0.0, 10), first, last, chunk(60.0))
    assert [(gap.start, gap.end, gap.reason) for gap in gaps] == [(0.32, 60.0, "missing")]


def test_a_loss_at_the_end_of_the_input_is_reported_there() -> None:
    audio, gaps = buffer_of(chunk(0.0, 10), chunk(0.32, 20, gap=True))
    assert gaps == []
    assert [(gap.start, gap.end) for gap in audio.end_loss()] == [(0.32, pytest.approx(0.96))]
    assert audio.end_loss() == []
    assert AudioBuffer("s", "main").end_loss() == []


def test_the_cursor_moves_by_whole_windows_and_limits_what_is_discarded() -> None:
    audio, _ = buffer_of(chunk(0.0, 10))
    pending = audio.pending(VAD_WINDOW)
    assert pending is not None and len(pending) == 10 * VAD_WINDOW
    assert audio.pending(11 * VAD_WINDOW) is None
    assert audio.advance() == pytest.approx((0.0, WINDOW))
    audio.discard(5 * WINDOW)
    assert (audio.start, audio.cursor) == pytest.approx((WINDOW, WINDOW))


def test_an_arrival_is_that_of_the_chunk_that_contains_the_time() -> None:
    audio, _ = buffer_of(*(chunk(index * WINDOW) for index in range(5)))
    assert audio.arrival(1.5 * WINDOW) == pytest.approx(100.0 + 2 * WINDOW)
    assert audio.arrival(99.0) == audio.last_arrival == pytest.approx(100.0 + 5 * WINDOW)
