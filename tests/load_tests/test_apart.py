"""Models behind a clock that jumps: they answer from processes of their own, which are gone afterwards, or from a record."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from load_tests.apart import Apart, Recorded, digest
from streamsvc.core import clock
from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.evaluation import session_run


def test_a_call_and_a_stream_are_answered_by_another_process_in_no_time_of_the_loop() -> None:
    with Apart() as apart, asyncio.Runner(loop_factory=clock.Threadless) as runner:
        role = session_run.Steady(lambda: apart.load("tests.fakes.worker_engine", {}))

        async def main() -> float:
            began = clock.now()
            back = await role.call("echo", {"samples": np.arange(3), "text": "x"}, deadline_in_s=1.0)
            assert back["samples"].tolist() == [0, 1, 2]
            assert back["text"] == "x"
            assert back["pid"] == apart.workers["worker_engine"].pid != os.getpid()
            await role.call(
                "sleep", {"seconds": 0.2}, deadline_in_s=0.1
            )  # of real time: the clock of the loop stands meanwhile
            assert [item["n"] async for item in role.stream("count", {"to": 3}, deadline_in_s=1.0)] == [
                0,
                1,
                2,
            ]
            return clock.now() - began

        assert runner.run(main()) == pytest.approx(5 * session_run.ELSE)
        pid = apart.workers["worker_engine"].pid
        assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_model_that_is_not_there_and_one_that_fails_are_told() -> None:
    with Apart() as apart:
        with pytest.raises(ModelMissing, match="no file"):
            apart.load("tests.fakes.worker_engine", {"missing": True})
        engine = apart.load("tests.fakes.worker_engine", {})
        with pytest.raises(WorkerError, match="ValueError"):
            engine.ops["fail"].run([{}])


def test_equal_calls_have_equal_hashes_and_others_have_not() -> None:
    sound = np.linspace(0, 1, 100, dtype=np.float32)
    first = digest({"samples": sound, "beam": 1})
    assert first == digest({"beam": 1, "samples": sound.copy()})
    assert first != digest({"samples": sound, "beam": 5})
    assert first != digest({"samples": sound.astype(np.float64), "beam": 1})
    assert first != digest({"samples": sound[::-1].copy(), "beam": 1})
    assert digest({"jpeg": b"a"}) != digest({"jpeg": b"b"})


class Counting:
    """A role that counts its calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        self.calls[op] += 1
        return {"heard": payload["samples"] * 2, "number": self.calls[op]}


def test_what_a_model_has_said_to_the_same_samples_is_read_and_takes_its_time(
    virtual: asyncio.Runner, tmp_path: Path
) -> None:
    role, counts = Counting(), Counter[str]()
    recorded = Recorded(role, tmp_path, counts)
    sound = np.ones(4, np.float32)

    async def main() -> tuple[list[dict[str, Any]], float]:
        told = [await recorded.call("transcribe", {"samples": sound}, deadline_in_s=1.0)]
        began = clock.now()
        told.append(await recorded.call("transcribe", {"samples": sound}, deadline_in_s=1.0))
        took = clock.now() - began
        told.append(await recorded.call("transcribe", {"samples": sound * 3}, deadline_in_s=1.0))
        return told, took

    told, took = virtual.run(main())
    assert [each["number"] for each in told] == [1, 1, 2]
    assert np.array_equal(told[1]["heard"], sound * 2)
    assert took == pytest.approx(0.1)
    assert counts == {"transcribe": 3, "transcribe recorded": 1}


def test_voice_activity_is_always_computed(virtual: asyncio.Runner, tmp_path: Path) -> None:
    role = Counting()
    recorded = Recorded(role, tmp_path, Counter())

    async def main() -> None:
        for _ in range(3):
            await recorded.call("vad", {"samples": np.ones(4, np.float32)}, deadline_in_s=1.0)

    virtual.run(main())
    assert role.calls["vad"] == 3
    assert not list(tmp_path.iterdir())
