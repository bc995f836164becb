"""Speech becomes stable words, silence yields nothing, and lost audio is reported."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import asr
from streamsvc.core import clock
from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear, Models
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.core.queues import Ring
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Words
from streamsvc.evaluation.recordings import read, truth_of
from streamsvc.evaluation.score_captions import align, norm
from streamsvc.evaluation.transcriber_run import TimedRole, TranscriberRun, play, run_virtual
from streamsvc.speech import decoding_loop
from streamsvc.speech.recognizer import RETRY_MAX
from streamsvc.speech.segmenter import SpeechUnit
from streamsvc.speech.vad import VAD_WINDOW

SETTINGS = Hear(model="whisper-tiny.en", step=0.5, hangover=0.5, backlog_seconds=5.0)
# yes_please.flac: voice slt of flite 2.2; quiet_end.ogg: LibriVox (public domain), 24 dB down, as Opus.
FIXTURES = Path(__file__).parents[1] / "fixtures"
CHUNK = VAD_WINDOW  # samples
CHUNK_SECONDS = CHUNK / SAMPLE_RATE


@dataclass
class ScriptedHear:
    """A hear role without a model.

    The value of a sample is the number of the word spoken; 0 is silence.

    Attributes:
        fails: (op, monotonic seconds) -> the error to raise, or None.
        misrecognises: (number of a word, its samples in the window) -> text, or None.
        speaks: number of a word -> its language; decoded in another one (but English) it becomes "x…".
    """

    fails: Callable[[str, float], Exception | None] = lambda op, now: None
    misrecognises: Callable[[int, int], str | None] = lambda number, count: None
    speaks: Callable[[int], str] = lambda number: "de"
    log_probability: float = -0.1  # mean of a token
    probability: float = 0.9  # of a word
    prompts: list[str] = field(default_factory=list)
    hotwords: list[str | None] = field(default_factory=list)
    screen_terms: list[tuple[str, ...]] = field(default_factory=list)
    quick: list[bool] = field(default_factory=list)
    seconds: float = 0.05  # of a decode
    requests: list[tuple[float, str, float]] = field(
        default_factory=list
    )  # (monotonic, op, seconds of samples)
    in_flight: int = 0

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        assert not self.in_flight, "one request at a time"
        self.in_flight += 1
        try:
            samples = payload["samples"]
            self.requests.append((clock.now(), op, len(samples) / SAMPLE_RATE))
            await clock.sleep(self.seconds if op == "transcribe" else 0.002)
            if (error := self.fails(op, clock.now())) is not None:
                raise error
            if op == "vad":
                windows = samples.reshape(-1, VAD_WINDOW)
                return {
                    "probability": (windows != 0).any(axis=1).astype(np.float32),
                    "state": np.zeros(320, np.float32),
                }
            if op == "detect_language":
                spoken = [self.speaks(int(number)) for number in np.round(samples[samples != 0])]
                most = max(sorted(set(spoken)), key=spoken.count)
                return {"language": most, "probability": spoken.count(most) / len(spoken) - 0.05}
            self.prompts.append(payload["before"])
            self.hotwords.append(payload.get("hotwords"))
            self.screen_terms.append(tuple(payload.get("screen_terms", ())))
            self.quick.append(payload["quick"])
            words = self.words(samples, payload["language"])
            return {
                "words": words,
                "no_speech": 0.0,
                "log_probability": self.log_probability,
                "seconds": self.seconds,
            }
        finally:
            self.in_flight -= 1

    def words(self, samples: Any, language: str) -> list[list[Any]]:
        words = []
        for number in [n for n in dict.fromkeys(np.round(samples).astype(int).tolist()) if n]:
            positions = np.flatnonzero(np.round(samples) == number)
            text = (
                self.misrecognises(number, len(positions))
                or f"{'w' if language in ('en', self.speaks(number)) else 'x'}{number}"
            )
            words.append(
                [
                    text,
                    float(positions[0]) / SAMPLE_RATE,
                    float(positions[-1] + 1) / SAMPLE_RATE,
                    self.probability,
                ]
            )
        return words


def spoken(*parts: tuple[int, float]) -> Any:
    """Samples of consecutive words of 0.32 s: (number of words, seconds of silence after them)."""
    blocks, number = [], 0
    for words, silence in parts:
        for _ in range(words):
            number += 1
            blocks.append(np.full(10 * VAD_WINDOW, number, np.float32))
        blocks.append(np.zeros(int(silence * SAMPLE_RATE / VAD_WINDOW) * VAD_WINDOW, np.float32))
    return np.concatenate(blocks)


def transcribe(
    virtual: asyncio.Runner,
    samples: Any,
    role: Any,
    *,
    settings: Hear = SETTINGS,
    ring: int = 2000,
    live: bool = True,
    chunk_samples: int = CHUNK,
    lose: Callable[[float], str] = lambda at: "",
    flushes: Sequence[tuple[float, decoding_loop.Flush]] = (),
    watch: list[tuple[float, SpeechUnit]] | None = None,
    step: Callable[[], float] | None = None,
    language: Callable[[], str | None] | None = None,
    lossless: bool = False,
    new_vocabulary: Callable[[], Sequence[str] | None] = lambda: None,
    screen_terms: Callable[[float], Sequence[str]] = decoding_loop.no_terms,
) -> list[tuple[float, SpeechUnit]]:
    """Every unit with the session time of its publication.

    Args:
        virtual: runner on the virtual clock.
        samples: what is spoken.
        role: the hear role.
        settings: of the hear group.
        ring: chunks that fit in the ring.
        live: chunks come in real time.
        chunk_samples: samples of a chunk.
        lose: session time of a chunk -> "" (keep it), "marked" (silence with `gap` set) or "hole".
        flushes: with the session time of the first chunk after them, in order.
        watch: list that takes the units as they come.
        step: see DecodingOptions.
        language: see DecodingOptions.
        lossless: see DecodingOptions.
        new_vocabulary: see DecodingOptions.
        screen_terms: see DecodingOptions.
    """
    pending = list(flushes)
    options = decoding_loop.DecodingOptions(
        settings,
        session="s",
        step=step,
        language=language,
        lossless=lossless,
        new_vocabulary=new_vocabulary,
        screen_terms=screen_terms,
    )
    units: list[tuple[float, SpeechUnit]] = [] if watch is None else watch

    async def main() -> None:
        queue: Ring[AudioChunk | decoding_loop.Flush] = Ring(ring)
        zero = clock.now()

        async def speak() -> None:
            for start in range(0, len(samples), chunk_samples):
                at, piece = start / SAMPLE_RATE, samples[start : start + chunk_samples]
                while pending and at >= pending[0][0]:
                    queue.put(pending.pop(0)[1])
                if live:
                    await clock.sleep(zero + at + len(piece) / SAMPLE_RATE - clock.now())
                loss = lose(at)
                if loss != "hole":
                    chunk = AudioChunk(
                        "s", "main", at, clock.now(), np.zeros_like(piece) if loss else piece, bool(loss)
                    )
                    if live:
                        queue.put(chunk)
                    else:
                        await queue.put_when_space(chunk)
            for _, flush in pending:
                queue.put(flush)
            queue.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(speak())
            group.create_task(
                decoding_loop.run(
                    queue,
                    role,
                    lambda unit: units.append((clock.now() - zero, unit)),
                    options,
                )
            )

    virtual.run(main())
    return units


def stable(units: Sequence[tuple[float, SpeechUnit]]) -> list[str]:
    return [
        word.text.lower()
        for _, unit in units
        if isinstance(unit, Words)
        for word in unit.words[: unit.stable]
    ]


def numbers(count: int) -> list[str]:
    return [f"w{number}" for number in range(1, count + 1)]


# --- steps and ends of utterances


def test_every_word_is_published_once_in_order_and_soon(virtual: asyncio.Runner) -> None:
    units = transcribe(virtual, spoken((12, 1.0), (5, 1.5)), ScriptedHear())
    assert stable(units) == numbers(17)
    for came, unit in units:
        if isinstance(unit, Words):
            for word in unit.words[: unit.stable]:
                assert came - word.end < 1.35
            last = (unit.words[: unit.stable] or unit.words)[-1:]
            assert all(unit.arrived == pytest.approx(1000.0 + word.end, abs=0.05) for word in last)


def test_an_utterance_ends_after_the_hangover(virtual: asyncio.Runner) -> None:
    units = transcribe(virtual, spoken((6, 2.0)), ScriptedHear())
    end = 6 * 0.32
    (final,) = [came for came, unit in units if isinstance(unit, Words) and unit.final]
    assert end + SETTINGS.hangover <= final <= end + SETTINGS.hangover + 0.3
    assert [(unit.active, round(unit.at, 2)) for _, unit in units if isinstance(unit, Speech)] == [
        (True, 0.0),
        (False, round(end, 2)),
    ]


def test_a_pause_makes_all_words_stable_but_the_last(virtual: asyncio.Runner) -> None:
    units = transcribe(virtual, spoken((3, 0.42), (3, 2.0)), ScriptedHear())
    second, third = (
        next(
            came
            for came, unit in units
            if isinstance(unit, Words) and text in [w.text for w in unit.words[: unit.stable]]
        )
        for text in ("w2", "w3")
    )
    assert second < 3 * 0.32 + 0.55
    assert third < 3 * 0.32 + 1.0
    assert sum(isinstance(unit, Words) and unit.final for _, unit in units) == 1


def test_an_utterance_without_pauses_ends_between_two_words(virtual: asyncio.Runner) -> None:
    units = transcribe(virtual, spoken((200, 1.0)), ScriptedHear())
    assert stable(units) == numbers(200)
    assert sum(isinstance(unit, Words) and unit.final for _, unit in units) >= 3
    assert sum(isinstance(unit, Speech) for _, unit in units) == 2


def test_a_word_that_changes_is_not_stable_until_it_is_complete(virtual: asyncio.Runner) -> None:
    whole = 10 * VAD_WINDOW
    units = transcribe(
        virtual,
        spoken((20, 1.0)),
        ScriptedHear(misrecognises=lambda number, count: f"half{count}" if count < whole else None),
    )
    assert stable(units) == numbers(20)


def test_silence_is_not_decoded_and_yields_nothing(virtual: asyncio.Runner) -> None:
    role = ScriptedHear()
    assert transcribe(virtual, spoken((0, 60.0)), role) == []
    assert {op for _, op, _ in role.requests} == {"vad"}


def test_steps_are_decoded_quickly_and_pauses_with_full_effort(virtual: asyncio.Runner) -> None:
    live, lossless = ScriptedHear(), ScriptedHear()
    transcribe(virtual, spoken((6, 1.0), (6, 1.0)), live)
    assert live.quick[0]
    assert live.quick.count(False) == 2, "each pause is decoded once"
    transcribe(virtual, spoken((6, 1.0), (6, 1.0)), lossless, lossless=True)
    assert lossless.quick
    assert not any(lossless.quick)


def test_unclear_speech_is_decoded_with_full_effort_in_longer_steps(virtual: asyncio.Runner) -> None:
    unclear = ScriptedHear(log_probability=-0.6)
    transcribe(virtual, spoken((30, 1.0)), unclear)
    assert unclear.quick[0], "nothing is known yet"
    assert not any(unclear.quick[4:])
    clear = ScriptedHear()
    transcribe(virtual, spoken((30, 1.0)), clear)
    assert 1.2 * len(unclear.quick) < len(clear.quick), "and steps are longer"


def test_clear_speech_becomes_stable_sooner(virtual: asyncio.Runner) -> None:
    def late(log_probability: float) -> float:
        units = transcribe(
            virtual, spoken((30, 1.0)), ScriptedHear(log_probability=log_probability, probability=0.5)
        )
        waited = [
            at - word.end
            for at, unit in units
            if isinstance(unit, Words)
            for word in unit.words[: unit.stable]
        ]
        assert len(waited) == 30
        return sum(waited) / len(waited)

    assert late(-0.1) < late(-0.42) - 0.1, "both have steps of the same length"


def test_a_click_is_no_speech(virtual: asyncio.Runner) -> None:
    samples = spoken((0, 4.0))
    samples[3 * VAD_WINDOW : 5 * VAD_WINDOW] = 1
    assert transcribe(virtual, samples, ScriptedHear()) == []


def test_endless_speech_does_not_grow_the_window(virtual: asyncio.Runner) -> None:
    role = ScriptedHear()
    transcribe(virtual, spoken((300, 1.0)), role)
    assert max(seconds for _, op, seconds in role.requests if op == "transcribe") < 7.0


def test_unrecognised_speech_does_not_grow_the_window(virtual: asyncio.Runner) -> None:
    class NeverRecognises(ScriptedHear):
        def words(self, samples: Any, language: str) -> list[list[Any]]:
            return []

    role = NeverRecognises()
    units = transcribe(virtual, spoken((100, 1.0)), role)
    assert stable(units) == []
    assert max(seconds for _, op, seconds in role.requests if op == "transcribe") < 9.0


def test_a_model_that_stops_after_the_context_gets_a_window_without_it(virtual: asyncio.Runner) -> None:
    class Stops(ScriptedHear):
        def words(self, samples: Any, language: str) -> list[list[Any]]:
            heard = super().words(samples, language)
            return heard[:1] if (np.round(samples) == 10).any() else heard

    stops = Stops()
    units = transcribe(virtual, spoken((10, 0.4), (20, 1.0)), stops)
    assert stable(units)[-15:] == numbers(30)[-15:]
    decodes = [(at, seconds) for at, op, seconds in stops.requests if op == "transcribe"]
    quickest = min(itertools.pairwise(decodes), key=lambda pair: pair[1][0] - pair[0][0])
    assert quickest[1][0] - quickest[0][0] < SETTINGS.step / 2, "unrecognised speech is decoded again at once"
    assert quickest[1][1] < quickest[0][1]


def test_a_file_read_at_full_speed_gives_the_words_of_the_live_run(virtual: asyncio.Runner) -> None:
    samples = spoken((40, 0.6), (30, 2.0), (3, 1.0))
    assert stable(transcribe(virtual, samples, ScriptedHear(), live=False)) == numbers(73)


def test_a_file_is_stepped_through_by_audio_time_however_slow_the_worker(virtual: asyncio.Runner) -> None:
    quick, slow = ScriptedHear(seconds=0.01), ScriptedHear(seconds=3.0)
    for role in (quick, slow):
        transcribe(virtual, spoken((60, 1.0)), role, live=False)
    assert [what[1:] for what in quick.requests] == [what[1:] for what in slow.requests]


def test_a_file_is_stepped_through_in_the_same_way_however_long_its_chunks_are(
    virtual: asyncio.Runner,
) -> None:
    samples = spoken((10, 0.6), (10, 0.6), (10, 2.0))
    short, long = ScriptedHear(), ScriptedHear()
    words = stable(transcribe(virtual, samples, short, live=False))
    assert (
        stable(transcribe(virtual, samples, long, live=False, chunk_samples=10 * SAMPLE_RATE))
        == words
        == numbers(30)
    )
    assert len(long.requests) == len(short.requests)


def test_a_lossless_source_is_never_skipped_and_takes_longer_steps(virtual: asyncio.Runner) -> None:
    samples, live, lossless = spoken((150, 1.0)), ScriptedHear(seconds=2.0), ScriptedHear(seconds=2.0)
    backlog = Hear(backlog_seconds=2.0)
    assert any(isinstance(unit, Gap) for _, unit in transcribe(virtual, samples, live, settings=backlog))
    units = transcribe(virtual, samples, lossless, settings=backlog, lossless=True)
    assert stable(units) == numbers(150)
    assert not any(isinstance(unit, Gap) for _, unit in units)


def test_a_slow_worker_makes_longer_steps_not_a_growing_lag(virtual: asyncio.Runner) -> None:
    role = ScriptedHear(seconds=1.2)
    units = transcribe(virtual, spoken((150, 1.0)), role)
    assert stable(units) == numbers(150)
    lags = [
        came - unit.words[unit.stable - 1].end
        for came, unit in units
        if isinstance(unit, Words) and unit.stable
    ]
    assert max(lags[len(lags) // 2 :]) <= max(lags[: len(lags) // 2]) + 0.5


def test_the_step_follows_the_load(virtual: asyncio.Runner) -> None:
    often, seldom = ScriptedHear(), ScriptedHear()
    transcribe(virtual, spoken((30, 1.0)), often, step=lambda: 0.5)
    transcribe(virtual, spoken((30, 1.0)), seldom, step=lambda: 1.0)
    count = [sum(op == "transcribe" for _, op, _ in role.requests) for role in (often, seldom)]
    assert count[1] <= 0.6 * count[0]


MULTILINGUAL = SETTINGS.model_copy(update={"model": "whisper-base"})


def languages(units: Sequence[tuple[float, SpeechUnit]]) -> list[tuple[str, str]]:
    return [
        (word.text.lower(), unit.language)
        for _, unit in units
        if isinstance(unit, Words)
        for word in unit.words[: unit.stable]
    ]


def test_a_language_is_detected_once_in_an_utterance_before_any_decode(
    virtual: asyncio.Runner,
) -> None:
    role = ScriptedHear()
    units = transcribe(virtual, spoken((9, 1.0), (5, 1.0)), role, settings=MULTILINGUAL)
    assert languages(units) == [(word, "de") for word in numbers(14)]
    ops = [op for _, op, _ in role.requests if op != "vad"]
    assert ops.index("detect_language") < ops.index("transcribe")
    assert ops.count("detect_language") == 2
    assert min(seconds for _, op, seconds in role.requests if op == "detect_language") >= 0.7


def test_two_languages_in_one_stream_are_both_recognised(virtual: asyncio.Runner) -> None:
    role = ScriptedHear(speaks=lambda number: "de" if number <= 9 or number > 18 else "fr")
    units = transcribe(virtual, spoken((9, 0.8), (9, 0.8), (9, 1.0)), role, settings=MULTILINGUAL)
    assert languages(units) == [(f"w{number}", role.speaks(number)) for number in range(1, 28)]


def test_the_prompt_has_no_words_of_another_language(virtual: asyncio.Runner) -> None:
    role = ScriptedHear(speaks=lambda number: "de" if number <= 20 else "fr")
    transcribe(virtual, spoken((20, 0.8), (30, 1.0)), role, settings=MULTILINGUAL)
    german = [prompt for prompt in role.prompts if "w1" in prompt.lower().split()]
    french = [prompt for prompt in role.prompts if "w21" in prompt.lower().split()]
    assert german
    assert french
    assert all(int(word[1:]) > 20 for prompt in french for word in prompt.split())


@pytest.mark.parametrize("model", ["whisper-base", "whisper-tiny.en"])
def test_a_fixed_language_is_never_detected(virtual: asyncio.Runner, model: str) -> None:
    role = ScriptedHear()
    units = transcribe(
        virtual,
        spoken((9, 1.0)),
        role,
        settings=SETTINGS.model_copy(update={"model": model}),
        language=lambda: "de",
    )
    assert "detect_language" not in [op for _, op, _ in role.requests]
    assert {code for _, code in languages(units)} == {"de" if model == "whisper-base" else "en"}


def test_a_language_may_be_fixed_while_the_stream_runs(virtual: asyncio.Runner) -> None:
    zero = virtual.get_loop().time()
    role = ScriptedHear()
    units = transcribe(
        virtual,
        spoken((9, 1.0), (9, 1.0)),
        role,
        settings=MULTILINGUAL,
        language=lambda: "fr" if clock.now() - zero > 3.6 else None,
    )
    assert {code for word, code in languages(units) if word in numbers(9)} == {"de"}
    assert {code for word, code in languages(units) if word not in numbers(9)} == {"fr"}


def test_improbable_words_start_language_detection_but_not_at_every_step(virtual: asyncio.Runner) -> None:
    role = ScriptedHear(log_probability=-1.2)
    transcribe(virtual, spoken((40, 1.0)), role, settings=MULTILINGUAL)
    assert 2 <= [op for _, op, _ in role.requests].count("detect_language") <= 4


# --- gaps


@pytest.mark.parametrize("how", ["marked", "hole"])
def test_lost_audio_is_reported_and_later_words_keep_their_times(virtual: asyncio.Runner, how: str) -> None:
    units = transcribe(
        virtual, spoken((20, 1.0)), ScriptedHear(), lose=lambda at: how if 2.5 < at < 3.3 else ""
    )
    (gap,) = [unit for _, unit in units if isinstance(unit, Gap)]
    assert (gap.reason, round(gap.start, 1), round(gap.end, 1)) == ("packet_loss", 2.5, 3.3)
    words = {w.text: w for _, unit in units if isinstance(unit, Words) for w in unit.words[: unit.stable]}
    assert words["w20"].end == pytest.approx(20 * 0.32, abs=0.1)


def test_lost_audio_at_the_end_is_reported(virtual: asyncio.Runner) -> None:
    units = transcribe(
        virtual, spoken((20, 1.0)), ScriptedHear(), lose=lambda at: "marked" if at > 5.0 else ""
    )
    (gap,) = [unit for _, unit in units if isinstance(unit, Gap)]
    assert (round(gap.start, 1), round(gap.end, 1)) == (5.0, 7.4)


def test_a_short_loss_is_not_reported(virtual: asyncio.Runner) -> None:
    units = transcribe(
        virtual, spoken((20, 1.0)), ScriptedHear(), lose=lambda at: "marked" if 2.5 < at < 2.6 else ""
    )
    assert not [unit for _, unit in units if isinstance(unit, Gap)]


def test_a_long_hole_within_speech_ends_the_utterance(virtual: asyncio.Runner) -> None:
    units = transcribe(
        virtual, spoken((40, 1.0)), ScriptedHear(), lose=lambda at: "hole" if 3.2 <= at < 9.6 else ""
    )
    assert stable(units) == [word for word in numbers(40) if not 11 <= int(word[1:]) <= 30]
    assert [unit.active for _, unit in units if isinstance(unit, Speech)] == [True, False, True, False]


# --- outages of the worker


def away(start: float, end: float, error: type[Exception]) -> Callable[[str, float], Exception | None]:
    return lambda op, now: error("away") if 1000.0 + start <= now < 1000.0 + end else None


@pytest.mark.parametrize("error", [WorkerError, DeadlineMissed, CapacityError])
def test_a_short_outage_costs_time_and_no_word(virtual: asyncio.Runner, error: type[Exception]) -> None:
    units = transcribe(virtual, spoken((30, 1.0)), ScriptedHear(fails=away(3.0, 6.0, error)))
    assert stable(units) == numbers(30)
    assert not [unit for _, unit in units if isinstance(unit, Gap)]


def test_an_outage_beyond_the_backlog_is_a_gap_and_captions_resume(
    virtual: asyncio.Runner,
) -> None:
    units = transcribe(virtual, spoken((80, 1.0)), ScriptedHear(fails=away(3.0, 15.0, WorkerError)))
    gaps = [unit for _, unit in units if isinstance(unit, Gap)]
    assert gaps
    assert {gap.reason for gap in gaps} == {"worker_restart"}
    heard = stable(units)
    assert heard[-30:] == numbers(80)[-30:]
    missing = [0.32 * int(word[1:]) for word in numbers(80) if word not in heard]
    assert all(any(gap.start - 0.7 <= end <= gap.end + 0.7 for gap in gaps) for end in missing), (
        "a word was lost without a gap"
    )


def test_audio_dropped_by_a_small_ring_has_the_reason_of_the_outage(virtual: asyncio.Runner) -> None:
    units = transcribe(
        virtual, spoken((80, 1.0)), ScriptedHear(fails=away(3.0, 15.0, WorkerError), seconds=0.05), ring=30
    )
    assert {unit.reason for _, unit in units if isinstance(unit, Gap)} == {"worker_restart"}
    assert stable(units)[-1] == "w80"


def test_a_lost_worker_is_given_up_with_a_gap(virtual: asyncio.Runner) -> None:
    units = transcribe(virtual, spoken((20, 1.0)), ScriptedHear(fails=away(2.0, 1e9, WorkerError)))
    last = [unit for _, unit in units if isinstance(unit, Gap)][-1]
    assert last.reason == "worker_restart"
    assert last.end == pytest.approx(20 * 0.32 + 1.0, abs=0.1)
    assert [unit.active for _, unit in units if isinstance(unit, Speech)][-1] is False


def test_an_outage_that_begins_at_a_long_hole_is_given_up_and_captions_resume(
    virtual: asyncio.Runner,
) -> None:
    units = transcribe(
        virtual,
        spoken((200, 1.0)),
        ScriptedHear(fails=away(9.0, 30.0, WorkerError)),
        lose=lambda at: "hole" if 3.2 <= at < 9.6 else "",
    )
    gaps = [unit for _, unit in units if isinstance(unit, Gap)]
    assert {gap.reason for gap in gaps} == {"worker_restart"}
    assert stable(units)[-60:] == numbers(200)[-60:]


# --- flushes


class Flushes:
    """Flushes of a run.

    Attributes:
        done: session time of each completion, and the stable words among `units` by then.
        units: the units of the run (`watch`).
    """

    def __init__(self, virtual: asyncio.Runner) -> None:
        self.zero = virtual.get_loop().time()
        self.done: list[tuple[float, list[str]]] = []
        self.units: list[tuple[float, SpeechUnit]] = []

    def at(
        self, *seconds: float, hangover: float = SETTINGS.hangover, vocabulary: Sequence[str] = ()
    ) -> list[tuple[float, decoding_loop.Flush]]:
        return [(second, decoding_loop.Flush(self._done, vocabulary, hangover)) for second in seconds]

    def _done(self) -> None:
        self.done.append((clock.now() - self.zero, stable(self.units)))


@pytest.mark.parametrize("live", [True, False])
def test_a_flush_publishes_every_word_before_it_and_time_continues(
    virtual: asyncio.Runner, live: bool
) -> None:
    markers = Flushes(virtual)
    end = 12 * 0.32  # in the middle of speech
    units = transcribe(
        virtual, spoken((30, 1.0)), ScriptedHear(), flushes=markers.at(end), live=live, watch=markers.units
    )
    ((came, words),) = markers.done
    assert words == numbers(12)
    assert not live or came - end <= 0.2, "one decode, without waiting for a step or a pause"
    assert stable(units) == numbers(30)
    heard = {
        word.text: word for _, unit in units if isinstance(unit, Words) for word in unit.words[: unit.stable]
    }
    assert heard["w30"].end == pytest.approx(30 * 0.32, abs=0.1)
    assert [unit.active for _, unit in units if isinstance(unit, Speech)] == [True, False, True, False]


def test_flushes_of_silence_are_done_at_once_without_a_decode(
    virtual: asyncio.Runner,
) -> None:
    markers, role = Flushes(virtual), ScriptedHear()
    units = transcribe(virtual, spoken((0, 5.0)), role, flushes=markers.at(0.0, 0.0, 3.2, 3.2, 3.2, 9.0))
    assert [round(came, 1) for came, _ in markers.done] == [0.0, 0.0, 3.2, 3.2, 3.2, 5.0]
    assert units == []
    assert {op for _, op, _ in role.requests} == {"vad"}


def test_a_flush_during_an_outage_is_done_with_a_gap_and_later_ones_do_not_wait_again(
    virtual: asyncio.Runner,
) -> None:
    markers = Flushes(virtual)
    role = ScriptedHear(fails=away(3.0, 30.0, WorkerError))
    settings = SETTINGS.model_copy(update={"backlog_seconds": 60.0})
    flushes = markers.at(6.4, 6.4, 7.04)
    units = transcribe(
        virtual, spoken((120, 1.0)), role, settings=settings, flushes=flushes, watch=markers.units
    )
    times = [came for came, _ in markers.done]
    assert times[0] == pytest.approx(6.4 + decoding_loop.GIVE_UP, abs=RETRY_MAX + 0.1)
    assert times[2] - times[0] <= 3 * RETRY_MAX
    gaps = [unit for _, unit in units if isinstance(unit, Gap)]
    assert {gap.reason for gap in gaps} == {"worker_restart"}
    heard = stable(units)
    assert len(set(heard)) == len(heard), "abandoned words are not published later"
    assert heard[-30:] == numbers(120)[-30:]
    missing = [0.32 * int(word[1:]) for word in numbers(120) if word not in heard]
    assert all(any(gap.start - 0.7 <= end <= gap.end + 0.7 for gap in gaps) for end in missing), (
        "a word was lost without a gap"
    )


def test_a_flush_waits_for_the_end_of_a_short_outage_and_loses_no_word(virtual: asyncio.Runner) -> None:
    markers = Flushes(virtual)
    units = transcribe(
        virtual,
        spoken((30, 1.0)),
        ScriptedHear(fails=away(3.0, 8.0, WorkerError)),
        flushes=markers.at(6.4),
        watch=markers.units,
    )
    ((_, words),) = markers.done
    assert words == numbers(20)
    assert stable(units) == numbers(30)
    assert not [unit for _, unit in units if isinstance(unit, Gap)]


def test_a_flush_sets_the_hangover_and_the_vocabulary_from_then_on(virtual: asyncio.Runner) -> None:
    markers, role = Flushes(virtual), ScriptedHear()
    samples = spoken((6, 0.9), (6, 0.9), (6, 2.0))  # 2.82 s each
    units = transcribe(
        virtual, samples, role, flushes=markers.at(2.8, hangover=1.5, vocabulary=("Zürich", "Anna"))
    )
    assert [unit.active for _, unit in units if isinstance(unit, Speech)] == [True, False, True, False], (
        "0.9 s end only the first"
    )
    assert stable(units) == numbers(18)
    assert None in role.hotwords
    assert role.hotwords[-1] == "Zürich Anna"


@pytest.mark.parametrize("hangover", [0.1, 0.2])
def test_a_short_hangover_ends_an_utterance_soon_with_all_its_words(
    virtual: asyncio.Runner, hangover: float
) -> None:
    settings = SETTINGS.model_copy(update={"hangover": hangover, "step": 1.3})
    units = transcribe(virtual, spoken((5, 0.6), (8, 0.6), (6, 2.0)), ScriptedHear(), settings=settings)
    assert stable(units) == numbers(19)
    stopped = [came - unit.at for came, unit in units if isinstance(unit, Speech) and not unit.active]
    assert len(stopped) == 3
    assert max(stopped) <= hangover + 0.25


# --- real weights


@pytest.fixture(scope="module")
def engine() -> Any:
    return asr.load({"models": Models().dir / "models", "model": "whisper-tiny.en", "workers": 1})


def word_error_rate(heard: TranscriberRun, path: Path) -> float:
    truth = truth_of(path)
    assert truth is not None
    return align(truth.words, [w for word in heard.stable for w in norm(word.text)])[1] / len(truth.words)


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize(("clip", "most"), [("jfk_inaugural_excerpt", 0.14), ("harvard", 0.08)])
def test_real_speech_becomes_the_right_words(media: Path, engine: Any, clip: str, most: float) -> None:
    path = media / "speech" / f"{clip}.flac"
    heard = run_virtual(read(path), engine, Hear())
    assert word_error_rate(heard, path) <= most
    assert not [unit for _, unit in heard.units if isinstance(unit, Gap)]


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize("clip", ["noise2", "room_noise", "digital_silence_30s", "music_guitar"])
def test_non_speech_yields_no_word(media: Path, engine: Any, clip: str) -> None:
    assert run_virtual(read(media / "non_speech" / f"{clip}.flac"), engine, Hear()).stable == []


def test_a_vocabulary_may_change_while_the_stream_runs(virtual: asyncio.Runner) -> None:
    zero = virtual.get_loop().time()
    role = ScriptedHear()
    terms = ("Ada", "Zürich")
    units = transcribe(
        virtual,
        spoken((9, 1.0), (9, 1.0)),
        role,
        new_vocabulary=lambda: terms if clock.now() - zero > 3.6 else None,
    )
    assert stable(units) == numbers(18), "no utterance is closed for it"
    change = role.hotwords.index("Ada Zürich")
    assert set(role.hotwords[:change]) == {None}
    assert set(role.hotwords[change:]) == {"Ada Zürich"}


def test_terms_of_the_screen_are_those_of_the_window_s_end_and_none_that_the_user_gave(
    virtual: asyncio.Runner,
) -> None:
    role = ScriptedHear()
    asked: list[float] = []

    def shown(at: float) -> Sequence[str]:
        asked.append(at)
        return ("ADA", "Okafor") if at > 2.0 else ()

    transcribe(virtual, spoken((9, 1.0)), role, screen_terms=shown)
    assert role.screen_terms == [("ADA", "Okafor") if at > 2.0 else () for at in asked]
    assert len(set(role.screen_terms)) == 2
    assert asked == sorted(asked), "session seconds, whatever the machine does"
    role = ScriptedHear()
    given = iter([None, *[("Ada", "Zürich")] * 100])
    transcribe(
        virtual, spoken((9, 1.0)), role, new_vocabulary=lambda: next(given), screen_terms=lambda at: ("ADA",)
    )
    assert (role.hotwords[-1], role.screen_terms[-1]) == ("Ada Zürich", ())


def test_speech_in_another_language_gets_no_terms_of_the_screen(virtual: asyncio.Runner) -> None:
    role = ScriptedHear(speaks=lambda number: "de" if number <= 9 else "en")
    transcribe(
        virtual,
        spoken((9, 1.0), (9, 1.0)),
        role,
        settings=MULTILINGUAL,
        screen_terms=lambda at: ("Okafor",),
    )
    assert role.screen_terms[0] == ()
    assert role.screen_terms[-1] == ("Okafor",)


@pytest.mark.parametrize("outage", [None, (1.5, 60.0)], ids=["a worker that is up", "one that goes away"])
def test_every_unit_carries_what_the_time_since_its_arrival_went_to(
    virtual: asyncio.Runner, outage: tuple[float, float] | None
) -> None:
    zero = virtual.get_loop().time()
    role = ScriptedHear() if outage is None else ScriptedHear(fails=away(*outage, WorkerError))
    units = transcribe(virtual, spoken((9, 1.0)), role)
    found = [(published, unit) for published, unit in units if not isinstance(unit, Gap)]
    assert found
    for published, unit in found:
        ends = [ended for _, ended in unit.stages]
        assert ends == sorted(ends)
        assert {name for name, _ in unit.stages} <= {"wait", "vad", "queue", "asr"}
        assert ends[-1] == pytest.approx(zero + published), "up to its publication, by name"


@dataclass
class LateHear(TimedRole):
    """The models in this process; each decode takes `seconds`."""

    seconds: float = 0.1

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        (result,) = self.engine.ops[op].run([payload])
        await clock.sleep(self.seconds if op == "transcribe" else 0.002)
        return dict(result)


def texts_of(samples: Any, engine: Any, seconds: float = 0.1) -> list[str]:
    """The stable words of samples that come in real time, in lower case without punctuation."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        heard = runner.run(play(samples.astype(np.float32), LateHear(engine, seconds=seconds), Hear()))
    assert not [unit for _, unit in heard.units if isinstance(unit, Gap)]
    return [piece for word in heard.stable for piece in norm(word.text)]


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("late", [0.1, 1.2])
def test_repeated_sentences_all_come_also_when_steps_are_late(engine: Any, late: float) -> None:
    once = read(FIXTURES / "yes_please.flac")
    samples = np.concatenate([np.zeros(16_000), *[once, np.zeros(5_000)] * 8, np.zeros(16_000)])
    samples += 1e-4 * np.random.default_rng(1).standard_normal(len(samples))
    heard = texts_of(samples, engine, late)
    assert 8 <= heard.count("please") <= 9
    assert 8 <= heard.count("yes") <= 9


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("decibels", [0, -16])  # root mean square of 65 and 81 dB below full scale
def test_the_last_words_of_quiet_speech_come(engine: Any, decibels: int) -> None:
    samples = read(FIXTURES / "quiet_end.ogg") * 10 ** (decibels / 20)
    assert texts_of(samples, engine)[-5:] == ["power", "to", "do", "for", "them"]
