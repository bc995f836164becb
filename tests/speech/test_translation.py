"""Cues of other languages become English from their own audio; what cannot be done in time is counted and costs nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Engine, asr
from streamsvc.core import clock, metrics
from streamsvc.core.config import Models
from streamsvc.core.errors import DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.roles import Payload
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Cue, Translation, Word
from streamsvc.evaluation.recordings import read
from streamsvc.speech import translation
from streamsvc.speech.translation import Translator
from tests.fakes.local_role import LocalRole
from tests.fakes.role import FakeRole


def interpreter(
    *, seconds: float = 0.5, error: StreamsvcError | None = None, unsure: bool = False
) -> FakeRole:
    """A hear role. The text of a translation is the values of the samples, each once; one request at a time."""

    def translate(payload: Payload) -> Payload:
        return {
            "text": " ".join(str(int(value)) for value in np.unique(payload["samples"])),
            "no_speech": 0.9 if unsure else 0.1,
            "log_probability": -2.0 if unsure else -0.3,
        }

    return FakeRole({"translate": error or translate}, delay=lambda op, payload: seconds, overlap=False)


def second(number: int) -> AudioChunk:
    """A second of audio whose samples are its number."""
    return AudioChunk("s", "main", float(number), 100.0 + number, np.full(SAMPLE_RATE, number, np.float32))


def cue(start: float, end: float, language: str = "de", arrived: float = 1e9) -> Cue:
    """A cue of one word; it arrived just now, if nothing is said."""
    return Cue("s", "main", start, arrived, "etwas", (Word("etwas", start, end),), 1, True, language)


def count(how: str) -> float:
    return float(metrics.deadline_missed.labels("translate", how)._value.get())


def played(
    virtual: asyncio.Runner, role: Any, story: Callable[[Translator], Any], **options: Any
) -> list[Translation]:
    """What comes out of a translator while the story is told."""
    done: list[Translation] = []

    async def main() -> None:
        translator = Translator(role, done.append, **options)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(translator.run())
            await story(translator)
            translator.close()
            await running

    virtual.run(main())
    return done


def test_a_cue_is_translated_from_its_own_audio_and_keeps_its_times(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        for number in range(10):
            await translator.hear(second(number))
        translator.put(cue(3.5, 5.5, arrived=clock.now() - 1.0), "e.7")

    role = interpreter()
    (unit,) = played(virtual, role, story, beam=3)
    assert (unit.of, unit.text, unit.language, unit.start, unit.end) == ("e.7", "3 4 5", "en", 3.5, 5.5)
    assert unit.stages["translate"] == pytest.approx(0.5)
    (sent,) = role.payloads("translate")
    assert (sent["language"], sent["beam"]) == ("de", 3)


@pytest.mark.parametrize(("language", "wanted"), [("en", True), ("de", False)])
def test_english_and_what_nobody_wants_is_not_translated(
    virtual: asyncio.Runner, language: str, wanted: bool
) -> None:
    async def story(translator: Translator) -> None:
        await translator.hear(second(0))
        translator.put(cue(0.1, 0.9, language), "e.1")

    role = interpreter()
    assert played(virtual, role, story, wanted=wanted) == []
    assert role.calls == []


def test_of_too_many_cues_the_oldest_are_dropped_and_counted(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        await translator.hear(second(0))
        for number in range(translation.WAITING + 3):
            translator.put(cue(0.1, 0.9), f"e.{number}")

    before = count("dropped")
    units = played(virtual, interpreter(), story)
    assert [unit.of for unit in units] == [f"e.{number}" for number in range(3, translation.WAITING + 3)]
    assert count("dropped") - before == 3


def test_a_source_that_can_wait_waits_for_its_translations(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        for number in range(30):
            await translator.hear(second(number))
            translator.put(cue(number + 0.3, number + 0.7), f"e.{number}")

    units = played(virtual, interpreter(seconds=3.0), story, lossless=True)
    assert [unit.text for unit in units] == [str(number) for number in range(30)]


@pytest.mark.parametrize("lossless", [False, True])
def test_while_captions_come_late_nothing_is_translated_unless_nobody_waits(
    virtual: asyncio.Runner, lossless: bool
) -> None:
    async def story(translator: Translator) -> None:
        await translator.hear(second(0))
        translator.put(cue(0.1, 0.9, arrived=clock.now() - translation.LATE - 0.1), "e.1")
        translator.put(cue(0.1, 0.9, arrived=clock.now() - translation.LATE + 0.1), "e.2")

    before = count("overload")
    units = played(virtual, interpreter(), story, lossless=lossless)
    assert [unit.of for unit in units] == (["e.1", "e.2"] if lossless else ["e.2"])
    assert count("overload") - before == (0 if lossless else 1)


def test_old_audio_is_forgotten_and_its_cue_stays_as_it_is(virtual: asyncio.Runner) -> None:
    async def story(translator: Translator) -> None:
        for number in range(int(translation.KEPT) + 10):
            await translator.hear(second(number))
        assert len(translator._audio) <= translation.KEPT + 2
        translator.put(cue(1.0, 2.0), "e.1")

    before = count("forgotten")
    assert played(virtual, interpreter(), story) == []
    assert count("forgotten") - before == 1


@pytest.mark.parametrize(
    ("role", "how"),
    [
        (interpreter(error=WorkerError("gone")), "skipped"),
        (interpreter(error=DeadlineMissed("late")), "skipped"),
        (interpreter(unsure=True), "unheard"),
    ],
)
def test_what_cannot_be_translated_is_counted_and_the_next_one_is_tried(
    virtual: asyncio.Runner, role: FakeRole, how: str
) -> None:
    async def story(translator: Translator) -> None:
        await translator.hear(second(0))
        translator.put(cue(0.1, 0.9), "e.1")
        translator.put(cue(0.1, 0.9), "e.2")

    before = count(how)
    assert played(virtual, role, story) == []
    assert (count(how) - before, role.count("translate")) == (2, 2)


@pytest.mark.models
@pytest.mark.media
async def test_real_german_and_french_become_english(media: Path) -> None:
    ops = asr.load({"models": Models().dir / "models", "model": "whisper-base", "workers": 1}).ops
    for file, language, wanted in (("lp_de", "de", "room"), ("lp_fr", "fr", "consulate")):
        samples = read(media / "multilingual" / f"{file}.flac")
        done: list[Translation] = []
        translator = Translator(LocalRole(Engine(ops)), done.append, beam=3, lossless=True)
        await translator.hear(AudioChunk("s", "main", 0.0, clock.now(), samples))
        translator.put(cue(0.5, len(samples) / SAMPLE_RATE - 0.3, language), "e.1")
        translator.close()
        await translator.run()
        (unit,) = done
        assert wanted in unit.text.lower(), unit.text
