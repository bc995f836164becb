"""Audio between the ring and voice activity detection. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from streamsvc.core.types import SAMPLE_RATE, AudioChunk
from streamsvc.speech.audio_buffer import VAD_BATCH


class Backlog:
    """Audio that waits, in pieces of at most VAD_BATCH samples.

    Cut like that, decoding steps do not depend on the length of chunks.

    Rule for full: `drop_excess` drops the oldest pieces of a live source; the caller reports them.

    Args:
        capacity: seconds.
        lossless: the source can wait: nothing is dropped.
    """

    def __init__(self, capacity: float, *, lossless: bool) -> None:
        self._capacity = capacity
        self._lossless = lossless
        self._pieces: deque[AudioChunk] = deque()

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def first(self) -> AudioChunk:
        """The oldest piece."""
        return self._pieces[0]

    @property
    def seconds(self) -> float:
        """Seconds from the start of the oldest piece to the end of the newest."""
        return self._pieces[-1].end - self._pieces[0].at if self._pieces else 0.0

    @property
    def live(self) -> bool:
        """Whether the audio came no faster than real time."""
        if self._lossless:
            return False
        if not self._pieces:
            return True
        return self.seconds <= 1.5 * (self._pieces[-1].arrived - self._pieces[0].arrived) + 0.5

    def add(self, chunk: AudioChunk) -> None:
        """Add a chunk."""
        for first in range(0, len(chunk.samples), VAD_BATCH):
            samples = chunk.samples[first : first + VAD_BATCH]
            self._pieces.append(replace(chunk, at=chunk.at + first / SAMPLE_RATE, samples=samples))

    def pop(self) -> AudioChunk:
        """Remove and return the oldest piece."""
        return self._pieces.popleft()

    def drop_excess(self) -> list[AudioChunk]:
        """Remove and return the oldest pieces of a live source beyond the capacity."""
        dropped: list[AudioChunk] = []
        if self.live:
            while self.seconds > self._capacity:
                dropped.append(self._pieces.popleft())
        return dropped
