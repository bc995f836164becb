"""Cues of other languages are translated from their audio; untranslated ones are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Engine, asr
from streamsvc.core import clock, metrics
from streamsvc.core.config import Models
from streamsvc.core.errors import DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Cue, Translation, Word
from streamsvc.evaluation.recordings import read
from streamsvc.speech import translation
from streamsvc.speech.translation import Translator
from tests.fakes.local_role import LocalRole


@dataclass
class FakeHear:
    """A hear role that returns the values of the samples as text."""

    seconds: float = 0.5
    error: StreamsvcError | None = None
    no_speech: bool = False
    payloads: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        assert op == "translate"
        self.in_flight += 1
        assert self.in_flight == 1, "one request at a time"
        self.payloads.append(payload)
        await clock.sleep(self.seconds)
        self.in_flight -= 1
        if self.error is not None:
            raise self.error
        text = " ".join(str(int(second)) for second in np.unique(payload["samples"]))
        confidence = (
            {"no_speech": 0.9, "log_probability": -2.0}
            if self.no_speech
            else {"no_speech": 0.1, "log_probability": -0.3}
        )
        return {"text": text, **confidence}


def second(number: int) -> AudioChunk:
    """A second of audio whose samples are its number."""
    return AudioChunk("s", "main", float(number), 100.0 + number, np.full(SAMPLE_RATE, number, np.float32))


def cue(start: float, end: float, language: str = "de", arrived: float = 1e9) -> Cue:
    """A cue of one word; by default it arrived just now."""
    return Cue("s", "main", start, arrived, "etwas", (Word("etwas", start, end),), 1, True, language)


def count(reason: str) -> float:
    return float(metrics.deadline_missed.labels("translate", reason)._value.get())


def translate(
    virtual: asyncio.Runner, role: Any, story: Callable[[Translator], Any], **options: Any
) -> list[Translation]:
    """Translations of a translator while `story` feeds it."""
    translations: list[Translation] = []

    async def main() -> None:
        translator = Translator(role, translations.append, **options)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(translator.run())
            await story(translator)
            translator.close()
            await running

    virtual.run(main())
    return translations


def test_a_cue_is_translated_from_its_own_audio_and_keeps_its_times(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        for number in range(10):
            await translator.add_audio(second(number))
        translator.put(cue(3.5, 5.5, arrived=clock.now() - 1.0), "e.7")

    role = FakeHear()
    (unit,) = translate(virtual, role, story, beam=3)
    assert (unit.of, unit.text, unit.language, unit.start, unit.end) == ("e.7", "3 4 5", "en", 3.5, 5.5)
    (_, began), (name, ended) = unit.stages
    assert name == "translate"
    assert ended - began == pytest.approx(0.5)
    assert (role.payloads[0]["language"], role.payloads[0]["beam"]) == ("de", 3)


@pytest.mark.parametrize(("language", "wanted"), [("en", True), ("de", False)])
def test_english_cues_and_unwanted_translations_are_skipped(
    virtual: asyncio.Runner, language: str, wanted: bool
) -> None:
    async def story(translator: Translator) -> None:
        await translator.add_audio(second(0))
        translator.put(cue(0.1, 0.9, language), "e.1")

    role = FakeHear()
    assert translate(virtual, role, story, wanted=wanted) == []
    assert role.payloads == []


def test_a_full_queue_drops_and_counts_the_oldest_cues(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        await translator.add_audio(second(0))
        for number in range(translation.LIVE.queue + 3):
            translator.put(cue(0.1, 0.9), f"e.{number}")

    before = count("dropped")
    units = translate(virtual, FakeHear(), story)
    assert [unit.of for unit in units] == [f"e.{number}" for number in range(3, translation.LIVE.queue + 3)]
    assert count("dropped") - before == 3


def test_backpressure_makes_a_lossless_source_wait_for_its_translations(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        for number in range(30):
            await translator.add_audio(second(number))
            translator.put(cue(number + 0.3, number + 0.7), f"e.{number}")

    units = translate(virtual, FakeHear(seconds=3.0), story, lossless=True)
    assert [unit.text for unit in units] == [str(number) for number in range(30)]


@pytest.mark.parametrize("lossless", [False, True])
def test_nothing_is_translated_while_captions_are_late_unless_the_source_is_lossless(
    virtual: asyncio.Runner, lossless: bool
) -> None:
    async def story(translator: Translator) -> None:
        await translator.add_audio(second(0))
        translator.put(cue(0.1, 0.9, arrived=clock.now() - translation.LATE - 0.1), "e.1")
        translator.put(cue(0.1, 0.9, arrived=clock.now() - translation.LATE + 0.1), "e.2")

    before = count("overload")
    units = translate(virtual, FakeHear(), story, lossless=lossless)
    assert [unit.of for unit in units] == (["e.1", "e.2"] if lossless else ["e.2"])
    assert count("overload") - before == (0 if lossless else 1)


def test_old_audio_is_dropped_and_its_cue_stays_untranslated(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        for number in range(int(translation.LIVE.audio_seconds) + 10):
            await translator.add_audio(second(number))
        assert len(translator._audio) <= translation.LIVE.audio_seconds + 2
        translator.put(cue(1.0, 2.0), "e.1")

    before = count("forgotten")
    assert translate(virtual, FakeHear(), story) == []
    assert count("forgotten") - before == 1


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        (FakeHear(error=WorkerError("gone")), "skipped"),
        (FakeHear(error=DeadlineMissed("late")), "skipped"),
        (FakeHear(no_speech=True), "unheard"),
    ],
)
def test_a_failed_translation_is_counted_and_the_next_cue_is_tried(
    virtual: asyncio.Runner, role: FakeHear, reason: str
) -> None:
    async def story(translator: Translator) -> None:
        await translator.add_audio(second(0))
        translator.put(cue(0.1, 0.9), "e.1")
        translator.put(cue(0.1, 0.9), "e.2")

    before = count(reason)
    assert translate(virtual, role, story) == []
    assert (count(reason) - before, len(role.payloads)) == (2, 2)


@pytest.mark.models
@pytest.mark.media
async def test_real_german_and_french_become_english(media: Path) -> None:
    ops = asr.load({"models": Models().dir / "models", "model": "whisper-base", "workers": 1}).ops
    for file, language, wanted in (("lp_de", "de", "room"), ("lp_fr", "fr", "consulate")):
        samples = read(media / "multilingual" / f"{file}.flac")
        translations: list[Translation] = []
        translator = Translator(LocalRole(Engine(ops)), translations.append, beam=3, lossless=True)
        await translator.add_audio(AudioChunk("s", "main", 0.0, clock.now(), samples))
        translator.put(cue(0.5, len(samples) / SAMPLE_RATE - 0.3, language), "e.1")
        translator.close()
        await translator.run()
        (unit,) = translations
        assert wanted in unit.text.lower(), unit.text
