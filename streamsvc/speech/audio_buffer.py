"""Contiguous audio of one track in session time, with the arrival of every sample. Pure."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap
from streamsvc.speech.vad import VAD_WINDOW

Samples = NDArray[np.float32]

VAD_BATCH = 4 * VAD_WINDOW  # samples per VAD request: 0.13 s; decoding steps are whole batches
VAD_MOST = 10 * SAMPLE_RATE // VAD_WINDOW * VAD_WINDOW  # samples in one VAD request at most: 10 s
GAP_MIN = 0.3  # seconds of lost audio that are reported
HOLE_MAX = 2.0  # seconds without audio that end any utterance
TIMESTAMP_JITTER = 0.05  # seconds that timestamps may deviate from the count of samples


class AudioBuffer:
    """Audio that is not decoded yet.

    Holes between chunks become silence; longer losses are reported as gaps. A cursor separates samples whose
    voice activity is known from those that wait for VAD.

    Args:
        session: id that the gaps carry.
        track: name of the track that they carry.
    """

    def __init__(self, session: str, track: str) -> None:
        self._session = session
        self._track = track
        self._start: float | None = None  # session time of the first sample; None before the first chunk
        self._samples: Samples = np.zeros(0, np.float32)
        self._cursor = 0  # samples
        self._chunk_ends: list[float] = []
        self._chunk_arrivals: list[float] = []
        self._loss: AudioChunk | None = None  # the first chunk of the present loss
        self._reported_until = 0.0  # session time up to which holes have been reported

    @property
    def empty(self) -> bool:
        """Whether no audio has come yet."""
        return self._start is None

    @property
    def start(self) -> float:
        """Session time of the first sample."""
        return self._start or 0.0

    @property
    def end(self) -> float:
        """Session time of the end of the audio so far."""
        return self.start + len(self._samples) / SAMPLE_RATE

    @property
    def cursor(self) -> float:
        """Session time up to which voice activity is known."""
        return self.start + self._cursor / SAMPLE_RATE

    @property
    def last_arrival(self) -> float:
        """Monotonic seconds at which the newest chunk arrived."""
        return self._chunk_arrivals[-1]

    def hole(self, chunk: AudioChunk) -> float:
        """Seconds between the end of the buffer and a chunk; negative where they overlap."""
        return 0.0 if self._start is None else chunk.at - self.end

    def append(self, chunk: AudioChunk, *, reason: str, speaking: bool) -> list[Gap]:
        """Add a chunk; returns the losses to report.

        Args:
            chunk: audio in order of time.
            reason: of a gap before the chunk.
            speaking: an utterance is open; without one, a long hole moves time instead of adding silence.
        """
        if self._start is None:
            self._start = chunk.at
        samples = chunk.samples
        hole = self.hole(chunk)
        gaps: list[Gap] = []
        if hole < -TIMESTAMP_JITTER:
            samples = samples[min(len(samples), round(-hole * SAMPLE_RATE)) :]
        elif hole > TIMESTAMP_JITTER:
            untold = self._loss is None and chunk.at - self._reported_until > TIMESTAMP_JITTER
            if hole >= GAP_MIN and untold:
                gaps.append(self._gap(self.end, chunk, reason))
            if hole > HOLE_MAX and not speaking:
                self._start += hole - HOLE_MAX
                hole = HOLE_MAX
            samples = np.concatenate([np.zeros(round(hole * SAMPLE_RATE), np.float32), samples])
        if chunk.gap:
            self._loss = self._loss or chunk
        else:
            gaps += self._end_loss(chunk.at, chunk.arrived)
        self._samples = np.concatenate([self._samples, samples])
        self._chunk_ends.append(self.end)
        self._chunk_arrivals.append(chunk.arrived)
        return gaps

    def end_loss(self) -> list[Gap]:
        """The loss that is not over at the end of the input, to report."""
        return self._end_loss(self.end, self.last_arrival) if self._loss is not None else []

    def _end_loss(self, end: float, arrived: float) -> list[Gap]:
        loss, self._loss = self._loss, None
        if loss is None or end - loss.at < GAP_MIN:
            return []
        return [Gap(self._session, self._track, loss.at, arrived, loss.at, end, loss.loss)]

    def _gap(self, start: float, chunk: AudioChunk, reason: str) -> Gap:
        return Gap(self._session, self._track, start, chunk.arrived, start, chunk.at, reason)

    def mark_reported(self, end: float) -> None:
        """The loss of audio up to session time `end` has been reported."""
        self._reported_until = end

    def pending(self, least: int) -> Samples | None:
        """Whole VAD windows after the cursor, at most VAD_MOST samples; None below `least` samples."""
        count = min((len(self._samples) - self._cursor) // VAD_WINDOW * VAD_WINDOW, VAD_MOST)
        return self._samples[self._cursor : self._cursor + count] if count >= max(least, VAD_WINDOW) else None

    def advance(self) -> tuple[float, float]:
        """Move the cursor by one VAD window; returns the window's start and end in session time."""
        start = self.cursor
        self._cursor += VAD_WINDOW
        return start, self.cursor

    def slice(self, start: float, end: float) -> Samples:
        """Samples between two session times."""
        first = round((start - self.start) * SAMPLE_RATE)
        last = round((end - self.start) * SAMPLE_RATE)
        return self._samples[first:last]

    def arrival(self, at: float) -> float:
        """Monotonic seconds at which the chunk that contains session time `at` arrived."""
        index = min(bisect_left(self._chunk_ends, at - 1e-6), len(self._chunk_arrivals) - 1)
        return self._chunk_arrivals[index]

    def discard(self, before: float) -> None:
        """Drop samples before a session time, but none after the cursor."""
        count = min(round((before - self.start) * SAMPLE_RATE), self._cursor)
        if count > 0 and self._start is not None:
            self._samples = self._samples[count:]
            self._cursor -= count
            self._start += count / SAMPLE_RATE
            index = max(0, bisect_left(self._chunk_ends, self._start - 1.0) - 1)
            del self._chunk_ends[:index]
            del self._chunk_arrivals[:index]
