"""Closed cues of other languages -> English, by Whisper's own translate task on their audio. Never in the way of transcription.

At most one request is in flight, on a lane of its own in the worker. A cue that cannot be translated in time stays untranslated, and
while captions themselves come late, nothing is translated: the machine has no time to spare.
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
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Cue, Translation

log = structlog.get_logger()
TO = "en"  # the only language that Whisper translates into
KEPT, KEPT_LOSSLESS = (
    40.0,
    150.0,
)  # seconds of audio remembered; a source that waits runs further ahead of its captions
WAITING, WAITING_LOSSLESS = 8, 64  # cues; full: the oldest is dropped and counted
DEADLINE, DEADLINE_LOSSLESS = 8.0, 30.0  # seconds for one cue
LATE = 3.0  # seconds from the last word of a cue to its closing, from which on captions come late
AROUND = 0.2  # seconds of audio before and after a cue: word times are only so good
LONGEST = 28.0  # seconds of audio in one request
NO_SPEECH, UNLIKELY = 0.6, -1.0  # as in transcription: what is both is no speech


@dataclass(frozen=True, slots=True)
class _Asked:
    cue: Cue
    of: str


class Translator:
    """The translations of one track.

    Args:
        hear: the worker role of engines/asr.py, with a multilingual model.
        emit: takes every translation; must not block.
        wanted: False: nothing is translated, and no audio kept.
        beam: hypotheses followed at once.
        lossless: the source waits for us: nothing is dropped.
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
        self._hear, self._emit, self._wanted, self._beam, self._lossless = hear, emit, wanted, beam, lossless
        self._audio: deque[AudioChunk] = deque()
        self._kept, self._deadline = (KEPT_LOSSLESS, DEADLINE_LOSSLESS) if lossless else (KEPT, DEADLINE)
        self._waiting: Ring[_Asked] = Ring(
            WAITING_LOSSLESS if lossless else WAITING, lambda asked: self._missed("dropped")
        )
        self._room = asyncio.Event()
        self._room.set()

    async def hear(self, chunk: AudioChunk) -> None:
        """Remember audio, and forget what is old; where the source can wait, it does so while cues wait."""
        if not self._wanted:
            return
        if self._lossless:
            await self._room.wait()
        self._audio.append(chunk)
        while self._audio[0].end < chunk.end - self._kept:
            self._audio.popleft()

    def put(self, cue: Cue, of: str) -> None:
        """Take a closed cue and the id of its event; one in English needs nothing."""
        if not self._wanted or cue.language == TO:
            return
        if not self._lossless and clock.now() - cue.arrived > LATE:
            self._missed("overload")
            return
        self._waiting.put(_Asked(cue, of))
        if len(self._waiting) >= WAITING:
            self._room.clear()

    def close(self) -> None:
        """No more cues will come; those that wait are still translated."""
        self._waiting.close()

    async def run(self) -> None:
        """Translate until closed and empty."""
        try:
            async for (asked,) in self._waiting.batches(1):
                await self._translate(asked)
                if len(self._waiting) < WAITING:
                    self._room.set()
        finally:
            self._waiting.close()
            self._room.set()

    async def _translate(self, asked: _Asked) -> None:
        cue = asked.cue
        samples = self._between(cue.start - AROUND, min(cue.end + AROUND, cue.start - AROUND + LONGEST))
        if not len(samples):
            self._missed("forgotten")
            return
        began = clock.now()
        payload = {"samples": samples, "language": cue.language, "beam": self._beam}
        try:
            result = await self._hear.call(
                "translate", payload, deadline_in_s=self._deadline, affinity=cue.session
            )
        except StreamsvcError as error:
            self._missed("skipped")
            log.warning("caption not translated", session=cue.session, reason=error.code)
            return
        text = result["text"]
        if not text or (result["no_speech"] > NO_SPEECH and result["log_probability"] < UNLIKELY):
            self._missed("unheard")
            return
        stages = {"translate": clock.now() - began}
        self._emit(
            Translation(
                cue.session, cue.track, cue.start, cue.arrived, asked.of, text, TO, cue.start, cue.end, stages
            )
        )

    def _between(self, start: float, end: float) -> NDArray[np.float32]:
        """The remembered samples of a stretch of session time, shape (n,); none where any of it is forgotten."""
        if not self._audio or self._audio[0].at > max(start, 0.0) + AROUND:
            return np.zeros(0, np.float32)
        pieces = [
            chunk.samples[
                max(0, round((start - chunk.at) * SAMPLE_RATE)) : max(
                    0, round((end - chunk.at) * SAMPLE_RATE)
                )
            ]
            for chunk in self._audio
            if chunk.end > start and chunk.at < end
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _missed(self, how: str) -> None:
        metrics.deadline_missed.labels("translate", how).inc()
