"""Speech becomes words that never change, silence becomes nothing, and lost audio is said."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import asr
from streamsvc.core import clock
from streamsvc.core.config import Hear, Models
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Payload
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Words
from streamsvc.evaluation.recordings import read, truth_of
from streamsvc.evaluation.score_captions import align, norm
from streamsvc.evaluation.transcriber_run import TranscriberRun, run_virtual
from streamsvc.speech import decoding_loop
from streamsvc.speech.segmenter import VAD_WINDOW, Unit
from tests.fakes.role import FakeRole

SETTINGS = Hear(model="whisper-tiny.en", step=0.5, hangover=0.5, backlog_seconds=5.0)
CHUNK = VAD_WINDOW  # samples
CHUNK_SECONDS = CHUNK / SAMPLE_RATE


@dataclass
class Script(FakeRole):
    """A hear role whose audio is its script: a sample's value is the number of the word spoken, 0 is silence.

    One request at a time; a decode takes `seconds`.
    """

    fails: Callable[[str, float], Exception | None] = lambda op, now: None  # by op and monotonic seconds
    mishears: Callable[[int, int], str | None] = lambda number, heard: None  # by word and samples of it heard
    speaks: Callable[[int], str] = lambda number: "de"  # word -> language; decoded in another: "x<number>"
    probable: float = -0.1  # mean log probability of a decode
    sure: float = 0.9  # probability of each word
    seconds: float = 0.05  # that a decode takes

    def __post_init__(self) -> None:
        super().__post_init__()
        self.overlap = False
        self.delay = lambda op, payload: self.seconds if op == "transcribe" else 0.002
        ops = {"vad": self._vad, "detect_language": self._detect_language, "transcribe": self._transcribe}
        self.results = {op: partial(self._failing, op, run) for op, run in ops.items()}

    @property
    def asked(self) -> list[tuple[float, str, float]]:
        """Monotonic seconds, op and seconds of samples of each request."""
        return [(call.at, call.op, len(call.payload["samples"]) / SAMPLE_RATE) for call in self.calls]

    def decoded(self, name: str) -> list[Any]:
        """A value of each decode that returned words."""
        return [call.payload.get(name) for call in self.completed if call.op == "transcribe"]

    def _failing(self, op: str, run: Callable[[Payload], Payload], payload: Payload) -> Payload | Exception:
        return self.fails(op, clock.now()) or run(payload)

    def _vad(self, payload: Payload) -> Payload:
        windows = payload["samples"].reshape(-1, VAD_WINDOW)
        return {
            "probability": (windows != 0).any(axis=1).astype(np.float32),
            "state": np.zeros(320, np.float32),
        }

    def _detect_language(self, payload: Payload) -> Payload:
        samples = payload["samples"]
        spoken = [self.speaks(int(number)) for number in np.round(samples[samples != 0])]
        most = max(sorted(set(spoken)), key=spoken.count)
        return {"language": most, "probability": spoken.count(most) / len(spoken) - 0.05}

    def _transcribe(self, payload: Payload) -> Payload:
        return {
            "words": self.words(payload["samples"], payload["language"]),
            "no_speech": 0.0,
            "log_probability": self.probable,
            "seconds": self.seconds,
        }

    def words(self, samples: Any, language: str) -> list[list[Any]]:
        words = []
        for number in [n for n in dict.fromkeys(np.round(samples).astype(int).tolist()) if n]:
            places = np.flatnonzero(np.round(samples) == number)
            text = (
                self.mishears(number, len(places))
                or f"{'w' if language in ('en', self.speaks(number)) else 'x'}{number}"
            )
            words.append(
                [text, float(places[0]) / SAMPLE_RATE, float(places[-1] + 1) / SAMPLE_RATE, self.sure]
            )
        return words


def spoken(*parts: tuple[int, float]) -> Any:
    """Samples of words: (how many words, seconds of silence after them); each word lasts 0.32 s. Numbers go on."""
    blocks, number = [], 0
    for words, silence in parts:
        for _ in range(words):
            number += 1
            blocks.append(np.full(10 * VAD_WINDOW, number, np.float32))
        blocks.append(np.zeros(int(silence * SAMPLE_RATE / VAD_WINDOW) * VAD_WINDOW, np.float32))
    return np.concatenate(blocks)


def told(
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
    watch: list[tuple[float, Unit]] | None = None,
    **more: Any,
) -> list[tuple[float, Unit]]:
    """Every unit with the session time at which it came. lose(at): "" (keep), "marked" (silence put in) or "hole".

    flushes: by the session time of the first chunk behind them, in order. watch: takes the units as they come.
    """
    seams = list(flushes)
    units: list[tuple[float, Unit]] = [] if watch is None else watch

    async def main() -> None:
        box: Ring[AudioChunk | decoding_loop.Flush] = Ring(ring)
        zero = clock.now()

        async def speak() -> None:
            for start in range(0, len(samples), chunk_samples):
                at, piece = start / SAMPLE_RATE, samples[start : start + chunk_samples]
                while seams and at >= seams[0][0]:
                    box.put(seams.pop(0)[1])
                if live:
                    await clock.sleep(zero + at + len(piece) / SAMPLE_RATE - clock.now())
                how = lose(at)
                if how != "hole":
                    chunk = AudioChunk(
                        "s", "main", at, clock.now(), np.zeros_like(piece) if how else piece, bool(how)
                    )
                    if live:
                        box.put(chunk)
                    else:
                        await box.put_when_space(chunk)
            for _, seam in seams:
                box.put(seam)
            box.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(speak())
            group.create_task(
                decoding_loop.run(
                    box,
                    role,
                    lambda unit: units.append((clock.now() - zero, unit)),
                    settings,
                    session="s",
                    **more,
                )
            )

    virtual.run(main())
    return units


def stable(units: Sequence[tuple[float, Unit]]) -> list[str]:
    return [
        word.text.lower()
        for _, unit in units
        if isinstance(unit, Words)
        for word in unit.words[: unit.stable]
    ]


def numbers(count: int) -> list[str]:
    return [f"w{number}" for number in range(1, count + 1)]


# --- steps and ends, on a virtual clock ---------------------------------------------------------------------------


def test_every_word_comes_once_in_order_soon_after_it_was_said(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((12, 1.0), (5, 1.5)), Script())
    assert stable(units) == numbers(17)
    for came, unit in units:
        if isinstance(unit, Words):
            for word in unit.words[: unit.stable]:
                assert came - word.end < 1.35
            last = (unit.words[: unit.stable] or unit.words)[-1:]
            assert all(unit.arrived == pytest.approx(1000.0 + word.end, abs=0.05) for word in last)


def test_an_utterance_ends_after_the_hangover(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((6, 2.0)), Script())
    end = 6 * 0.32
    (final,) = [came for came, unit in units if isinstance(unit, Words) and unit.final]
    assert end + SETTINGS.hangover <= final <= end + SETTINGS.hangover + 0.3
    assert [(unit.active, round(unit.at, 2)) for _, unit in units if isinstance(unit, Speech)] == [
        (True, 0.0),
        (False, round(end, 2)),
    ]


def test_a_pause_settles_all_words_but_the_last_which_waits_for_what_follows(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((3, 0.42), (3, 2.0)), Script())
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


def test_who_never_pauses_is_ended_between_two_words(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((200, 1.0)), Script())
    assert stable(units) == numbers(200)
    assert sum(isinstance(unit, Words) and unit.final for _, unit in units) >= 3
    assert sum(isinstance(unit, Speech) for _, unit in units) == 2


def test_a_word_that_wavers_is_not_stable_until_it_is_whole(virtual: asyncio.Runner) -> None:
    whole = 10 * VAD_WINDOW
    units = told(
        virtual,
        spoken((20, 1.0)),
        Script(mishears=lambda number, heard: f"half{heard}" if heard < whole else None),
    )
    assert stable(units) == numbers(20)


def test_silence_asks_no_decode_and_yields_nothing(virtual: asyncio.Runner) -> None:
    role = Script()
    assert told(virtual, spoken((0, 60.0)), role) == []
    assert {op for _, op, _ in role.asked} == {"vad"}


def test_steps_are_quick_and_what_settles_them_is_not(virtual: asyncio.Runner) -> None:
    live, patient = Script(), Script()
    told(virtual, spoken((6, 1.0), (6, 1.0)), live)
    assert live.decoded("quick")[0]
    assert live.decoded("quick").count(False) == 2, "each pause settles once"
    told(virtual, spoken((6, 1.0), (6, 1.0)), patient, lossless=True)
    assert patient.decoded("quick")
    assert not any(patient.decoded("quick"))


def test_where_speech_is_hard_to_hear_steps_take_their_time(virtual: asyncio.Runner) -> None:
    unclear = Script(probable=-0.6)
    told(virtual, spoken((30, 1.0)), unclear)
    assert unclear.decoded("quick")[0], "nothing is known yet"
    assert not any(unclear.decoded("quick")[4:])
    clear = Script()
    told(virtual, spoken((30, 1.0)), clear)
    assert 1.2 * len(unclear.decoded("quick")) < len(clear.decoded("quick")), "and steps are longer"


def test_where_speech_is_clear_words_become_stable_sooner(virtual: asyncio.Runner) -> None:
    def late(probable: float) -> float:
        units = told(virtual, spoken((30, 1.0)), Script(probable=probable, sure=0.5))
        waited = [
            at - word.end
            for at, unit in units
            if isinstance(unit, Words)
            for word in unit.words[: unit.stable]
        ]
        assert len(waited) == 30
        return sum(waited) / len(waited)

    assert late(-0.1) < late(-0.42) - 0.1, "both are heard in steps of the same length"


def test_a_click_is_no_speech(virtual: asyncio.Runner) -> None:
    samples = spoken((0, 4.0))
    samples[3 * VAD_WINDOW : 5 * VAD_WINDOW] = 1
    assert told(virtual, samples, Script()) == []


def test_a_source_without_end_leaves_the_window_short(virtual: asyncio.Runner) -> None:
    role = Script()
    told(virtual, spoken((300, 1.0)), role)
    assert max(seconds for _, op, seconds in role.asked if op == "transcribe") < 7.0


def test_speech_that_the_model_cannot_hear_does_not_hold_the_window(virtual: asyncio.Runner) -> None:
    class Deaf(Script):
        def words(self, samples: Any, language: str) -> list[list[Any]]:
            return []

    role = Deaf()
    units = told(virtual, spoken((100, 1.0)), role)
    assert stable(units) == []
    assert max(seconds for _, op, seconds in role.asked if op == "transcribe") < 9.0


def test_a_model_that_stops_at_the_context_gets_a_window_without_it(virtual: asyncio.Runner) -> None:
    class Stops(Script):
        def words(self, samples: Any, language: str) -> list[list[Any]]:
            heard = super().words(samples, language)
            return heard[:1] if (np.round(samples) == 10).any() else heard

    stops = Stops()
    units = told(virtual, spoken((10, 0.4), (20, 1.0)), stops)
    assert stable(units)[-15:] == numbers(30)[-15:]
    decodes = [(at, seconds) for at, op, seconds in stops.asked if op == "transcribe"]
    quickest = min(itertools.pairwise(decodes), key=lambda pair: pair[1][0] - pair[0][0])
    assert quickest[1][0] - quickest[0][0] < SETTINGS.step / 2, (
        "what it passed over is asked for at once again"
    )
    assert quickest[1][1] < quickest[0][1]


def test_a_file_read_at_full_speed_gives_the_words_of_the_live_run(virtual: asyncio.Runner) -> None:
    samples = spoken((40, 0.6), (30, 2.0), (3, 1.0))
    assert stable(told(virtual, samples, Script(), live=False)) == numbers(73)


def test_a_file_is_stepped_through_by_audio_time_however_slow_the_worker(virtual: asyncio.Runner) -> None:
    quick, slow = Script(seconds=0.01), Script(seconds=3.0)
    for role in (quick, slow):
        told(virtual, spoken((60, 1.0)), role, live=False)
    assert [what[1:] for what in quick.asked] == [what[1:] for what in slow.asked]


def test_a_file_is_stepped_through_in_the_same_way_however_long_its_chunks_are(
    virtual: asyncio.Runner,
) -> None:
    samples = spoken((10, 0.6), (10, 0.6), (10, 2.0))
    short, long = Script(), Script()
    words = stable(told(virtual, samples, short, live=False))
    assert (
        stable(told(virtual, samples, long, live=False, chunk_samples=10 * SAMPLE_RATE))
        == words
        == numbers(30)
    )
    assert len(long.asked) == len(short.asked)


def test_a_source_that_waits_is_never_skipped_and_takes_longer_steps(virtual: asyncio.Runner) -> None:
    samples, hasty, patient = spoken((150, 1.0)), Script(seconds=2.0), Script(seconds=2.0)
    backlog = Hear(backlog_seconds=2.0)
    assert any(isinstance(unit, Gap) for _, unit in told(virtual, samples, hasty, settings=backlog))
    units = told(virtual, samples, patient, settings=backlog, lossless=True)
    assert stable(units) == numbers(150)
    assert not any(isinstance(unit, Gap) for _, unit in units)


def test_a_slow_worker_makes_longer_steps_not_a_growing_lag(virtual: asyncio.Runner) -> None:
    role = Script(seconds=1.2)
    units = told(virtual, spoken((150, 1.0)), role)
    assert stable(units) == numbers(150)
    lags = [
        came - unit.words[unit.stable - 1].end
        for came, unit in units
        if isinstance(unit, Words) and unit.stable
    ]
    assert max(lags[len(lags) // 2 :]) <= max(lags[: len(lags) // 2]) + 0.5


def test_the_step_follows_the_budget(virtual: asyncio.Runner) -> None:
    often, seldom = Script(), Script()
    told(virtual, spoken((30, 1.0)), often, step=lambda: 0.5)
    told(virtual, spoken((30, 1.0)), seldom, step=lambda: 1.0)
    count = [sum(op == "transcribe" for _, op, _ in role.asked) for role in (often, seldom)]
    assert count[1] <= 0.6 * count[0]


MULTILINGUAL = SETTINGS.model_copy(update={"model": "whisper-base"})


def languages(units: Sequence[tuple[float, Unit]]) -> list[tuple[str, str]]:
    return [
        (word.text.lower(), unit.language)
        for _, unit in units
        if isinstance(unit, Words)
        for word in unit.words[: unit.stable]
    ]


def test_a_language_that_is_not_set_is_detected_once_in_an_utterance_and_before_any_decode(
    virtual: asyncio.Runner,
) -> None:
    role = Script()
    units = told(virtual, spoken((9, 1.0), (5, 1.0)), role, settings=MULTILINGUAL)
    assert languages(units) == [(word, "de") for word in numbers(14)]
    ops = [op for _, op, _ in role.asked if op != "vad"]
    assert ops.index("detect_language") < ops.index("transcribe")
    assert ops.count("detect_language") == 2
    assert min(seconds for _, op, seconds in role.asked if op == "detect_language") >= 0.7


def test_two_languages_in_one_stream_come_out_each_in_its_own(virtual: asyncio.Runner) -> None:
    role = Script(speaks=lambda number: "de" if number <= 9 or number > 18 else "fr")
    units = told(virtual, spoken((9, 0.8), (9, 0.8), (9, 1.0)), role, settings=MULTILINGUAL)
    assert languages(units) == [(f"w{number}", role.speaks(number)) for number in range(1, 28)]


def test_words_of_another_language_are_no_prompt(virtual: asyncio.Runner) -> None:
    role = Script(speaks=lambda number: "de" if number <= 20 else "fr")
    told(virtual, spoken((20, 0.8), (30, 1.0)), role, settings=MULTILINGUAL)
    german = [before for before in role.decoded("before") if "w1" in before.lower().split()]
    french = [before for before in role.decoded("before") if "w21" in before.lower().split()]
    assert german
    assert french
    assert all(int(word[1:]) > 20 for before in french for word in before.split())


@pytest.mark.parametrize("model", ["whisper-base", "whisper-tiny.en"])
def test_a_language_that_is_fixed_is_never_asked_for(virtual: asyncio.Runner, model: str) -> None:
    role = Script()
    units = told(
        virtual,
        spoken((9, 1.0)),
        role,
        settings=SETTINGS.model_copy(update={"model": model}),
        language=lambda: "de",
    )
    assert "detect_language" not in [op for _, op, _ in role.asked]
    assert {code for _, code in languages(units)} == {"de" if model == "whisper-base" else "en"}


def test_a_language_may_be_fixed_while_the_stream_runs(virtual: asyncio.Runner) -> None:
    zero = virtual.get_loop().time()
    role = Script()
    units = told(
        virtual,
        spoken((9, 1.0), (9, 1.0)),
        role,
        settings=MULTILINGUAL,
        language=lambda: "fr" if clock.now() - zero > 3.6 else None,
    )
    assert {code for word, code in languages(units) if word in numbers(9)} == {"de"}
    assert {code for word, code in languages(units) if word not in numbers(9)} == {"fr"}


def test_improbable_words_make_the_language_doubtful_but_not_at_every_step(virtual: asyncio.Runner) -> None:
    role = Script(probable=-1.2)
    told(virtual, spoken((40, 1.0)), role, settings=MULTILINGUAL)
    assert 2 <= [op for _, op, _ in role.asked].count("detect_language") <= 4


# --- gaps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["marked", "hole"])
def test_lost_audio_is_said_and_what_follows_keeps_its_time(virtual: asyncio.Runner, how: str) -> None:
    units = told(virtual, spoken((20, 1.0)), Script(), lose=lambda at: how if 2.5 < at < 3.3 else "")
    (gap,) = [unit for _, unit in units if isinstance(unit, Gap)]
    assert (gap.reason, round(gap.start, 1), round(gap.end, 1)) == ("packet_loss", 2.5, 3.3)
    words = {w.text: w for _, unit in units if isinstance(unit, Words) for w in unit.words[: unit.stable]}
    assert words["w20"].end == pytest.approx(20 * 0.32, abs=0.1)


def test_a_short_loss_is_not_worth_a_word(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((20, 1.0)), Script(), lose=lambda at: "marked" if 2.5 < at < 2.6 else "")
    assert not [unit for _, unit in units if isinstance(unit, Gap)]


def test_a_long_hole_in_the_middle_of_speech_is_survived(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((40, 1.0)), Script(), lose=lambda at: "hole" if 3.2 <= at < 9.6 else "")
    assert stable(units) == [word for word in numbers(40) if not 11 <= int(word[1:]) <= 30]
    assert [unit.active for _, unit in units if isinstance(unit, Speech)] == [True, False, True, False]


# --- a worker that fails ------------------------------------------------------------------------------------------


def away(start: float, end: float, error: type[Exception]) -> Callable[[str, float], Exception | None]:
    return lambda op, now: error("away") if 1000.0 + start <= now < 1000.0 + end else None


@pytest.mark.parametrize("error", [WorkerError, DeadlineMissed, CapacityError])
def test_a_worker_that_comes_back_costs_time_and_no_word(
    virtual: asyncio.Runner, error: type[Exception]
) -> None:
    units = told(virtual, spoken((30, 1.0)), Script(fails=away(3.0, 6.0, error)))
    assert stable(units) == numbers(30)
    assert not [unit for _, unit in units if isinstance(unit, Gap)]


def test_a_worker_away_for_longer_than_the_backlog_costs_a_gap_and_captions_resume(
    virtual: asyncio.Runner,
) -> None:
    units = told(virtual, spoken((80, 1.0)), Script(fails=away(3.0, 15.0, WorkerError)))
    gaps = [unit for _, unit in units if isinstance(unit, Gap)]
    assert gaps
    assert {gap.reason for gap in gaps} == {"worker_restart"}
    heard = stable(units)
    assert heard[-30:] == numbers(80)[-30:]
    missing = [0.32 * int(word[1:]) for word in numbers(80) if word not in heard]
    assert all(any(gap.start - 0.7 <= end <= gap.end + 0.7 for gap in gaps) for end in missing), (
        "a word was lost without a gap"
    )


def test_audio_dropped_by_a_small_ring_is_blamed_on_the_worker(virtual: asyncio.Runner) -> None:
    units = told(
        virtual, spoken((80, 1.0)), Script(fails=away(3.0, 15.0, WorkerError), seconds=0.05), ring=30
    )
    assert {unit.reason for _, unit in units if isinstance(unit, Gap)} == {"worker_restart"}
    assert stable(units)[-1] == "w80"


def test_a_worker_that_never_comes_back_is_given_up_with_a_gap(virtual: asyncio.Runner) -> None:
    units = told(virtual, spoken((20, 1.0)), Script(fails=away(2.0, 1e9, WorkerError)))
    last = [unit for _, unit in units if isinstance(unit, Gap)][-1]
    assert last.reason == "worker_restart"
    assert last.end == pytest.approx(20 * 0.32 + 1.0, abs=0.1)
    assert [unit.active for _, unit in units if isinstance(unit, Speech)][-1] is False


# --- flushes ------------------------------------------------------------------------------------------------------


class Seams:
    """Flushes of a run; `done`: the session time at which each was done, and the stable words by then, of the `units` watched."""

    def __init__(self, virtual: asyncio.Runner) -> None:
        self.zero = virtual.get_loop().time()
        self.done: list[tuple[float, list[str]]] = []
        self.units: list[tuple[float, Unit]] = []

    def at(
        self, *seconds: float, hangover: float = SETTINGS.hangover, vocabulary: Sequence[str] = ()
    ) -> list[tuple[float, decoding_loop.Flush]]:
        return [(second, decoding_loop.Flush(self._done, vocabulary, hangover)) for second in seconds]

    def _done(self) -> None:
        self.done.append((clock.now() - self.zero, stable(self.units)))


@pytest.mark.parametrize("live", [True, False])
def test_a_flush_gives_every_word_before_it_and_the_time_line_goes_on(
    virtual: asyncio.Runner, live: bool
) -> None:
    seams = Seams(virtual)
    end = 12 * 0.32  # in the middle of speech
    units = told(virtual, spoken((30, 1.0)), Script(), flushes=seams.at(end), live=live, watch=seams.units)
    ((came, words),) = seams.done
    assert words == numbers(12)
    assert not live or came - end <= 0.2, "one decode, without waiting for a step or a pause"
    assert stable(units) == numbers(30)
    heard = {
        word.text: word for _, unit in units if isinstance(unit, Words) for word in unit.words[: unit.stable]
    }
    assert heard["w30"].end == pytest.approx(30 * 0.32, abs=0.1)
    assert [unit.active for _, unit in units if isinstance(unit, Speech)] == [True, False, True, False]


def test_flushes_of_nothing_of_silence_and_one_upon_the_other_are_done_at_once_and_ask_no_decode(
    virtual: asyncio.Runner,
) -> None:
    seams, role = Seams(virtual), Script()
    units = told(virtual, spoken((0, 5.0)), role, flushes=seams.at(0.0, 0.0, 3.2, 3.2, 3.2, 9.0))
    assert [round(came, 1) for came, _ in seams.done] == [0.0, 0.0, 3.2, 3.2, 3.2, 5.0]
    assert units == []
    assert {op for _, op, _ in role.asked} == {"vad"}


def test_a_flush_while_the_worker_is_away_is_done_with_a_gap_and_the_next_ones_do_not_wait_again(
    virtual: asyncio.Runner,
) -> None:
    seams = Seams(virtual)
    role = Script(fails=away(3.0, 30.0, WorkerError))
    settings = SETTINGS.model_copy(update={"backlog_seconds": 60.0})
    flushes = seams.at(6.4, 6.4, 7.04)
    units = told(virtual, spoken((120, 1.0)), role, settings=settings, flushes=flushes, watch=seams.units)
    times = [came for came, _ in seams.done]
    assert times[0] == pytest.approx(6.4 + decoding_loop.GIVE_UP, abs=decoding_loop.RETRY_MOST + 0.1)
    assert times[2] - times[0] <= 3 * decoding_loop.RETRY_MOST
    gaps = [unit for _, unit in units if isinstance(unit, Gap)]
    assert {gap.reason for gap in gaps} == {"worker_restart"}
    heard = stable(units)
    assert len(set(heard)) == len(heard), "what was given up does not come after all"
    assert heard[-30:] == numbers(120)[-30:]
    missing = [0.32 * int(word[1:]) for word in numbers(120) if word not in heard]
    assert all(any(gap.start - 0.7 <= end <= gap.end + 0.7 for gap in gaps) for end in missing), (
        "a word was lost without a gap"
    )


def test_a_flush_waits_for_a_worker_that_comes_back_and_loses_no_word(virtual: asyncio.Runner) -> None:
    seams = Seams(virtual)
    units = told(
        virtual,
        spoken((30, 1.0)),
        Script(fails=away(3.0, 8.0, WorkerError)),
        flushes=seams.at(6.4),
        watch=seams.units,
    )
    ((_, words),) = seams.done
    assert words == numbers(20)
    assert stable(units) == numbers(30)
    assert not [unit for _, unit in units if isinstance(unit, Gap)]


def test_what_holds_from_a_flush_on_is_what_it_says(virtual: asyncio.Runner) -> None:
    seams, role = Seams(virtual), Script()
    samples = spoken((6, 0.9), (6, 0.9), (6, 2.0))  # each 2.82 s
    units = told(virtual, samples, role, flushes=seams.at(2.8, hangover=1.5, vocabulary=("Zürich", "Anna")))
    assert [unit.active for _, unit in units if isinstance(unit, Speech)] == [True, False, True, False], (
        "0.9 s end only the first"
    )
    assert stable(units) == numbers(18)
    assert None in role.decoded("hotwords")
    assert role.decoded("hotwords")[-1] == "Zürich Anna"


@pytest.mark.parametrize("hangover", [0.1, 0.2])
def test_a_short_hangover_ends_an_utterance_soon_with_all_its_words(
    virtual: asyncio.Runner, hangover: float
) -> None:
    settings = SETTINGS.model_copy(update={"hangover": hangover, "step": 1.3})
    units = told(virtual, spoken((5, 0.6), (8, 0.6), (6, 2.0)), Script(), settings=settings)
    assert stable(units) == numbers(19)
    stopped = [came - unit.at for came, unit in units if isinstance(unit, Speech) and not unit.active]
    assert len(stopped) == 3
    assert max(stopped) <= hangover + 0.25


# --- real weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Any:
    return asr.load({"models": Models().dir / "models", "model": "whisper-tiny.en", "workers": 1})


def wer(heard: TranscriberRun, path: Path) -> float:
    truth = truth_of(path)
    assert truth is not None
    return align(truth.words, [w for word in heard.stable for w in norm(word.text)])[1] / len(truth.words)


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize(("clip", "most"), [("jfk_inaugural_excerpt", 0.14), ("harvard", 0.08)])
def test_real_speech_becomes_the_right_words(media: Path, engine: Any, clip: str, most: float) -> None:
    path = media / "speech" / f"{clip}.flac"
    heard = run_virtual(read(path), engine, Hear())
    assert wer(heard, path) <= most
    assert not [unit for _, unit in heard.units if isinstance(unit, Gap)]


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize("clip", ["noise2", "room_noise", "digital_silence_30s", "music_guitar"])
def test_what_is_no_speech_becomes_no_word(media: Path, engine: Any, clip: str) -> None:
    assert run_virtual(read(media / "non_speech" / f"{clip}.flac"), engine, Hear()).stable == []
