"""Models in processes of their own behind a clock that jumps: they answer, take no time of that clock, and are gone afterwards."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import psutil
import pytest

from load_tests.apart import Apart
from streamsvc import clock, rehearsal
from streamsvc.errors import ModelMissing, WorkerError


def test_a_call_and_a_stream_are_answered_by_another_process_in_no_time_of_the_loop() -> None:
    with Apart() as apart, asyncio.Runner(loop_factory=clock.Threadless) as runner:
        role = rehearsal.Steady(lambda: apart.load("tests.worker_engine", {}))

        async def main() -> float:
            began = clock.now()
            back = await role.call("echo", {"samples": np.arange(3), "text": "x"}, deadline_in_s=1.0)
            assert back["samples"].tolist() == [0, 1, 2]
            assert back["text"] == "x"
            assert back["pid"] == apart.workers["worker_engine"].pid != os.getpid()
            await role.call("sleep", {"seconds": 0.2}, deadline_in_s=0.1)  # of real time: the clock of the loop stands meanwhile
            assert [item["n"] async for item in role.stream("count", {"to": 3}, deadline_in_s=1.0)] == [0, 1, 2]
            return clock.now() - began

        assert runner.run(main()) == pytest.approx(5 * rehearsal.ELSE)
        pid = apart.workers["worker_engine"].pid
        assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_model_that_is_not_there_and_one_that_fails_are_told() -> None:
    with Apart() as apart:
        with pytest.raises(ModelMissing, match="no file"):
            apart.load("tests.worker_engine", {"missing": True})
        engine = apart.load("tests.worker_engine", {})
        with pytest.raises(WorkerError, match="ValueError"):
            engine.ops["fail"].run([{}])
