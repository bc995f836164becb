"""Closed cues of other languages -> English, by Whisper's translate task on their audio.

At most one request is in flight, on its own lane of the worker. A cue that is not translated in time stays
untranslated. While captions are late, nothing is translated: the machine has no capacity to spare.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock, metrics
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.latency import WAIT
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Cue, Translation
from streamsvc.speech.hypothesis import is_no_speech

log = structlog.get_logger()
TARGET = "en"  # the only language that Whisper translates into
LATE = 3.0  # seconds from the last word of a cue to its end, from which captions count as late
MARGIN = 0.2  # seconds of audio before and after a cue: accuracy of word times
SECONDS_MAX = 28.0  # of audio in one request


@dataclass(frozen=True, slots=True)
class _Limits:
    audio_seconds: float  # kept for cues to come
    queue: int  # cues; when full, the oldest is dropped and counted
    deadline: float  # seconds for one cue


LIVE = _Limits(audio_seconds=40.0, queue=8, deadline=8.0)
# A lossless source runs further ahead of its captions.
LOSSLESS = _Limits(audio_seconds=150.0, queue=64, deadline=30.0)


@dataclass(frozen=True, slots=True)
class _Request:
    cue: Cue
    event: str  # id of its event


class Translator:
    """Translates the closed cues of one track.

    Args:
        hear: the worker role of engines/asr.py, with a multilingual model.
        emit: called with every translation; must not block.
        wanted: False: nothing is translated, and no audio is kept.
        beam: beam size.
        lossless: the source can wait: nothing is dropped.
    """

    def __init__(
        self,
        hear: Role,
        emit: Callable[[Translation], None],
        *,
        wanted: bool = True,
        beam: int = 1,
        lossless: bool = False,
    ) -> None:
        self._hear = hear
        self._emit = emit
        self._wanted = wanted
        self._beam = beam
        self._lossless = lossless
        self._limits = LOSSLESS if lossless else LIVE
        self._audio: deque[AudioChunk] = deque()
        self._queue: Ring[_Request] = Ring(self._limits.queue, lambda request: _count("dropped"))
        self._has_room = asyncio.Event()
        self._has_room.set()

    def want(self, wanted: bool) -> None:
        """Translate the cues from here on, or none of them; audio is kept from here on."""
        self._wanted = wanted
        if not wanted:
            self._audio.clear()

    async def add_audio(self, chunk: AudioChunk) -> None:
        """Keep audio for cues to come. Backpressure: a lossless source waits while cues are queued."""
        if not self._wanted:
            return
        if self._lossless:
            await self._has_room.wait()
        self._audio.append(chunk)
        while self._audio[0].end < chunk.end - self._limits.audio_seconds:
            self._audio.popleft()

    def put(self, cue: Cue, event: str) -> None:
        """Queue a closed cue, unless it is English already. `event`: id of its event."""
        if not self._wanted or cue.language == TARGET:
            return
        if not self._lossless and clock.now() - cue.arrived > LATE:
            _count("overload")
            return
        self._queue.put(_Request(cue, event))
        if len(self._queue) >= LIVE.queue:
            self._has_room.clear()

    def close(self) -> None:
        """Close the queue; queued cues are still translated."""
        self._queue.close()

    async def run(self) -> None:
        """Translate until closed and empty."""
        try:
            async for (request,) in self._queue.batches(1):
                await self._translate(request)
                if len(self._queue) < LIVE.queue:
                    self._has_room.set()
        finally:
            self._queue.close()
            self._has_room.set()

    async def _translate(self, request: _Request) -> None:
        cue = request.cue
        start = cue.start - MARGIN
        samples = self._between(start, min(cue.end + MARGIN, start + SECONDS_MAX))
        if not len(samples):
            _count("forgotten")
            return
        began = clock.now()
        payload = {"samples": samples, "language": cue.language, "beam": self._beam}
        try:
            result = await self._hear.call(
                "translate", payload, deadline_in_s=self._limits.deadline, affinity=cue.session
            )
        except StreamsvcError as error:
            _count("skipped")
            log.warning("caption not translated", session=cue.session, reason=error.code)
            return
        text = result["text"]
        if not text or is_no_speech(result["no_speech"], result["log_probability"]):
            _count("unheard")
            return
        self._emit(
            Translation(
                cue.session,
                cue.track,
                cue.start,
                cue.arrived,
                request.event,
                text,
                TARGET,
                cue.start,
                cue.end,
                (*cue.stages, (WAIT, began), ("translate", clock.now())),
            )
        )

    def _between(self, start: float, end: float) -> NDArray[np.float32]:
        """Kept samples between two session times, shape (n,); empty if any of them is dropped."""
        if not self._audio or self._audio[0].at > max(start, 0.0) + MARGIN:
            return np.zeros(0, np.float32)
        pieces = []
        for chunk in self._audio:
            if chunk.end > start and chunk.at < end:
                first = max(0, round((start - chunk.at) * SAMPLE_RATE))
                last = max(0, round((end - chunk.at) * SAMPLE_RATE))
                pieces.append(chunk.samples[first:last])
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _count(reason: str) -> None:
    """Count a cue that stays untranslated."""
    metrics.deadline_missed.labels("translate", reason).inc()
