"""Models for a virtual clock: calls run in worker processes, results come from a cache."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from load_tests.worker_models import CachedRole, WorkerProcesses, digest
from streamsvc.core import clock
from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.evaluation import session_run
from tests.fakes.role import FakeRole


def test_a_call_and_a_stream_are_answered_by_another_process_in_no_time_of_the_loop() -> None:
    with WorkerProcesses() as workers, asyncio.Runner(loop_factory=clock.Threadless) as runner:
        role = session_run.FixedTimeRole(lambda: workers.load("tests.fakes.worker_engine", {}))

        async def main() -> float:
            began = clock.now()
            back = await role.call("echo", {"samples": np.arange(3), "text": "x"}, deadline_in_s=1.0)
            assert back["samples"].tolist() == [0, 1, 2]
            assert back["text"] == "x"
            assert back["pid"] == workers.workers["worker_engine"].pid != os.getpid()
            await role.call(
                "sleep", {"seconds": 0.2}, deadline_in_s=0.1
            )  # of real time: the clock of the loop stands meanwhile
            assert [item["n"] async for item in role.stream("count", {"to": 3}, deadline_in_s=1.0)] == [
                0,
                1,
                2,
            ]
            return clock.now() - began

        seconds = 2 * session_run.OTHER_CALL_SECONDS + 3 * session_run.CALL_SECONDS["count"]
        assert runner.run(main()) == pytest.approx(seconds)
        pid = workers.workers["worker_engine"].pid
        assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_missing_model_and_a_failing_one_raise() -> None:
    with WorkerProcesses() as workers:
        with pytest.raises(ModelMissing, match="no file"):
            workers.load("tests.fakes.worker_engine", {"missing": True})
        engine = workers.load("tests.fakes.worker_engine", {})
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


def counting_role() -> FakeRole:
    """A role whose results are numbered per op."""
    numbers = itertools.count(1)
    return FakeRole(
        {
            "transcribe": lambda payload: {"heard": payload["samples"] * 2, "number": next(numbers)},
            "vad": lambda payload: {"heard": payload["samples"] * 2},
        }
    )


def test_a_cached_result_is_read_and_takes_its_time(virtual: asyncio.Runner, tmp_path: Path) -> None:
    role, counts = counting_role(), Counter[str]()
    recorded = CachedRole(role, tmp_path, counts)
    sound = np.ones(4, np.float32)

    async def main() -> tuple[list[dict[str, Any]], float]:
        outcome = [await recorded.call("transcribe", {"samples": sound}, deadline_in_s=1.0)]
        began = clock.now()
        outcome.append(await recorded.call("transcribe", {"samples": sound}, deadline_in_s=1.0))
        took = clock.now() - began
        outcome.append(await recorded.call("transcribe", {"samples": sound * 3}, deadline_in_s=1.0))
        return outcome, took

    outcome, took = virtual.run(main())
    assert [each["number"] for each in outcome] == [1, 1, 2]
    assert np.array_equal(outcome[1]["heard"], sound * 2)
    assert took == pytest.approx(0.1)
    assert counts == {"transcribe": 3, "transcribe recorded": 1}


def test_voice_activity_is_always_computed(virtual: asyncio.Runner, tmp_path: Path) -> None:
    role = counting_role()
    recorded = CachedRole(role, tmp_path, Counter())

    async def main() -> None:
        for _ in range(3):
            await recorded.call("vad", {"samples": np.ones(4, np.float32)}, deadline_in_s=1.0)

    virtual.run(main())
    assert role.count("vad") == 3
    assert not list(tmp_path.iterdir())
