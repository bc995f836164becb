"""One run: audio when due, units with their times, CPU time of the models, and the cost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import Op
from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import SAMPLE_RATE, Speech, Word, Words
from streamsvc.evaluation.transcriber_run import Meter, TimedRole, TranscriberRun, play, run_virtual
from tests.fakes.hear_engine import hear_role, load, spoken

SETTINGS = Hear(model="whisper-tiny.en")
TALK = spoken(12, 1.5)


def texts(heard: TranscriberRun) -> list[str]:
    return [word.text.lower() for word in heard.stable]


def unit(words: str, stable: int) -> Words:
    return Words("s", "main", 0.0, 0.0, tuple(Word(text, 0.0, 0.1) for text in words.split()), stable, False)


@pytest.mark.parametrize("chunk", [320, 1600])
def test_every_word_comes_after_it_was_spoken_and_before_the_talk_ends(
    virtual: asyncio.Runner, chunk: int
) -> None:
    heard = virtual.run(play(TALK, hear_role(), SETTINGS, chunk=chunk))
    assert texts(heard) == [f"w{number}" for number in range(1, 13)]
    for at, each in heard.units:
        assert not isinstance(each, Words) or all(word.end - 0.1 <= at for word in each.words)
    assert heard.dropped == 0
    assert heard.late == pytest.approx(0.0, abs=0.001)
    assert heard.units[-1][0] <= len(TALK) / SAMPLE_RATE + heard.flush


def test_fed_at_once_the_same_words_take_no_time(virtual: asyncio.Runner) -> None:
    heard = virtual.run(play(TALK, hear_role(), SETTINGS, live=False))
    assert texts(heard) == [f"w{number}" for number in range(1, 13)]
    assert heard.units[-1][0] < 0.1


def test_snapshots_have_the_stable_words_and_the_tentative_tail() -> None:
    heard = TranscriberRun(
        [
            (1.0, unit("a b", 0)),
            (1.2, Speech("s", "main", 0.0, 0.0, True)),
            (1.5, unit("a b c", 2)),
            (2.0, unit("c", 1)),
        ]
    )
    assert heard.shown == [(1.0, "", "a b"), (1.5, "a b", "c"), (2.0, "a b c", "")]


def test_cpu_time_of_a_call_advances_the_virtual_clock(virtual: asyncio.Runner) -> None:
    def work(batch: list[Any]) -> list[Any]:
        until = time.process_time() + 0.03
        while time.process_time() < until:
            pass
        return [{"done": True}]

    role = TimedRole(SimpleNamespace(ops={"work": Op(work)}))

    async def main() -> float:
        began = clock.now()
        assert await role.call("work", {}, deadline_in_s=1.0) == {"done": True}
        return clock.now() - began

    assert virtual.run(main()) == pytest.approx(role.cpu["work"])
    assert role.cpu["work"] >= 0.03
    assert role.calls == {"work": 1}


def test_an_error_of_the_engine_is_raised(virtual: asyncio.Runner) -> None:
    role = TimedRole(SimpleNamespace(ops={"work": Op(lambda batch: [InvalidRequest("no")])}))
    with pytest.raises(InvalidRequest):
        virtual.run(role.call("work", {}, deadline_in_s=1.0))


def test_a_whole_run_counts_the_calls_of_each_op() -> None:
    heard = run_virtual(TALK, load({}), SETTINGS)
    assert texts(heard) == [f"w{number}" for number in range(1, 13)]
    assert heard.calls["transcribe"] >= 6
    assert heard.cpu.keys() == heard.calls.keys() == {"vad", "transcribe"}


def test_cpu_and_memory_are_measured_from_construction_on() -> None:
    began = time.process_time()
    meter = Meter()
    while time.process_time() < began + 0.1:
        pass
    ballast = np.ones(30_000_000, np.uint8)
    meter.sample()
    with_ballast = meter.cost()
    # Threads of other tests may be at work in this process: they count in both.
    assert with_ballast.cpu == pytest.approx(time.process_time() - began, abs=0.05)
    assert with_ballast.cpu > 0.05
    assert with_ballast.hear is None
    assert with_ballast.all > len(ballast)


def test_memory_sampling_ends_with_the_worker() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as worker:
        meter = Meter(worker.pid)
        meter.sample()
        worker.communicate()
        asyncio.run(asyncio.wait_for(meter.watch(), 5.0))


def test_a_worker_is_measured_alone_and_in_the_sum() -> None:
    cost = Meter(os.getpid()).cost()  # this process twice: as itself and as the worker
    assert cost.hear is not None
    assert cost.all == pytest.approx(2 * cost.hear, rel=0.01)
