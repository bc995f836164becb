"""Streams of made units: what is seen, read and said, handed to a session without vision or speech models.

A stream is a list of steps: "see" (label -> number), "read" (lines of the screen), "say" (a text), "quiet_s"
(seconds of silence). Units come as late behind their media as live ones do (LAG), so that an alert's age
means something; between the steps somebody goes on talking, so that silence is where a step says so, and up
to 1.6 s longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import (
    Box,
    Cue,
    Keyframe,
    MediaTrack,
    ScreenText,
    Sight,
    Speech,
    TextLine,
    VideoFrame,
    Word,
    Words,
)
from streamsvc.core.units import Unit
from streamsvc.evaluation.session_run import Event, ObservedSession, RecordingPublisher, observed_session
from streamsvc.service.service import Service

LEAD = 2.0  # seconds before the first step
LOOKS = 6  # pictures of a step, a second apart
WORD = 0.4  # seconds
GAP = 4.0  # seconds after a step, in which a model still decides what it has shown
# Seconds from media to unit, about the medians of live runs (load_tests/README.md).
LAG = {"see": 0.4, "read": 1.5, "say": 1.0}
COOLDOWN = 1.0  # seconds
_NO_EMBEDDING = np.zeros(2, np.float32)

Step = Mapping[str, Any]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a stream: the spans of its steps in session seconds, and the alerts of the watch.

    `alerts` None: the watch was refused.
    """

    spans: tuple[Span, ...]
    alerts: tuple[Event, ...] | None

    def step_of(self, at: float) -> int:
        """The step that session second `at` is of; -1: of none."""
        return max((number for number, (start, _) in enumerate(self.spans) if start <= at), default=-1)


def spans_of(stream: Sequence[Step]) -> tuple[Span, ...]:
    """When the steps of a stream are played, each from a whole second to the beginning of the next."""
    spans: list[Span] = []
    start = LEAD
    for step in stream:
        end = start + _length(step)
        spans.append((start, float(math.ceil(end))))
        start = spans[-1][1]
    return tuple(spans)


def _length(step: Step) -> float:
    seconds = float(step.get("quiet_s", 0.0)) + (LOOKS if "see" in step else 0)
    seconds += WORD * len(str(step.get("say", "")).split())
    lags = [lag for kind, lag in LAG.items() if kind in step]
    # A silence goes on until somebody speaks: not longer than the step says.
    return seconds + (max(lags) + GAP if lags else 0.6)


async def play(service: Service, when: str, stream: Sequence[Step]) -> Played:
    """Add a watch to a new session and play a stream into it. Requires a virtual clock."""
    spans = spans_of(stream)
    async with observed_session(service) as observed:
        session = observed.session
        session.media.attach(RecordingPublisher((MediaTrack("audio", "opus"), MediaTrack("video", "vp8"))))
        stage = _Stage(observed, await _picture(service) if session.vision.vlm is not None else "")
        stage.tell(Speech(session.id, "main", 0.0, clock.now(), True))
        try:
            watch = await session.watches.add(when, COOLDOWN)
        except InvalidRequest:
            return Played(spans, None)
        for step, (start, end) in zip(stream, spans, strict=True):
            await stage.step(step, start)
            await stage.until(end)
    alerts = [event for event in observed.events if event["type"] == "alert.fired"]
    return Played(spans, tuple(event for event in alerts if event["watch_id"] == watch["id"]))


async def _picture(service: Service) -> str:
    """A model's key of a picture that shows nothing: a stand-in does not look at it."""
    jpeg = BytesIO()
    Image.new("RGB", (32, 32), "gray").save(jpeg, "JPEG")
    payload = {"jpeg": np.frombuffer(jpeg.getvalue(), np.uint8)}
    return str((await service.roles.think.call("encode", payload, deadline_in_s=10.0))["picture"])


class _Stage:
    """Hands the units of steps to a session, at their times. `picture`: the model's key of each picture."""

    def __init__(self, observed: ObservedSession, picture: str) -> None:
        self._session = observed.session
        self._picture = picture
        self._speaking = True

    def tell(self, unit: Unit) -> None:
        """Hand a unit on."""
        self._session.dispatch(unit)

    async def until(self, at: float) -> float:
        """Wait for session second `at`; monotonic seconds of then."""
        then = self._session.clock.zero + at
        await clock.sleep(max(0.0, then - clock.now()))
        return then

    async def step(self, step: Step, at: float) -> None:
        """Play a step from session second `at` on."""
        if "quiet_s" in step:
            self._speak(at, await self.until(at), active=False)
            at += float(step["quiet_s"])
            await self.until(at)
        if "see" in step:
            for look in range(LOOKS):
                await self._see(step["see"], at + look)
            at += LOOKS
        if "read" in step:
            await self._read(step["read"], at)
        if "say" in step:
            await self._say(str(step["say"]), at)

    async def _see(self, labels: Mapping[str, int], at: float) -> None:
        arrived = await self.until(at)
        of = self._session.id
        frame = VideoFrame(of, "main", at, arrived, None, 32, 32)
        self.tell(Keyframe(of, "main", at, arrived, frame, "interval"))
        if self._session.vision.vlm is not None:
            self._session.vision.vlm.keys[at] = self._picture
        await self.until(at + LAG["see"])
        boxes = tuple(Box(label, 0.9, 0, 0, 1, 1) for label, count in labels.items() for _ in range(count))
        self.tell(Sight(of, "main", at, arrived, _NO_EMBEDDING, (), boxes))

    async def _read(self, texts: Sequence[str], at: float) -> None:
        arrived = await self.until(at)
        await self.until(at + LAG["read"])
        lines = tuple(TextLine(text, 0.9, 0, 0.1 * n, 1, 0.1) for n, text in enumerate(texts))
        title = texts[0] if texts else None
        self.tell(ScreenText(self._session.id, "main", at, arrived, title, lines, at))

    async def _say(self, text: str, at: float) -> None:
        self._speak(at, await self.until(at), active=True)
        said = text if text[-1:] in ".?!" else f"{text}."
        words = tuple(Word(word, at + WORD * n, at + WORD * (n + 1)) for n, word in enumerate(said.split()))
        end = words[-1].end
        arrived = await self.until(end)
        await self.until(end + LAG["say"])
        self.tell(Words(self._session.id, "main", end, arrived, words, len(words), final=True))
        self.tell(Cue(self._session.id, "main", end, arrived, said, words, len(words), final=True))

    def _speak(self, at: float, arrived: float, *, active: bool) -> None:
        if active != self._speaking:
            self.tell(Speech(self._session.id, "main", at, arrived, active))
        self._speaking = active
