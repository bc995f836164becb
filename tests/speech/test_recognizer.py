"""Calls to the hear role: outages, backoff and the VAD state."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.speech.level import TARGET
from streamsvc.speech.recognizer import RETRY_FIRST, RETRY_MAX, Recognizer
from streamsvc.speech.vad import VAD_WINDOW

SAMPLES = np.zeros(31 * VAD_WINDOW, np.float32)


@dataclass
class FailingHear:
    """A hear role that raises `error` if there is one."""

    error: StreamsvcError | None = None
    payloads: list[dict[str, Any]] = field(default_factory=list)

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        self.payloads.append(payload)
        if self.error is not None:
            raise self.error
        return {"probability": np.ones(2, np.float32), "state": len(self.payloads), "language": "de"}

    def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        raise NotImplementedError


def test_the_vad_state_of_a_request_goes_along_with_the_next(virtual: asyncio.Runner) -> None:
    role = FailingHear()
    recognizer = Recognizer(role, "s")
    for _ in range(2):
        assert virtual.run(recognizer.vad(SAMPLES)) is not None
    assert [payload.get("state") for payload in role.payloads] == [None, 1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WorkerError("died"), "worker_restart"),
        (DeadlineMissed("late"), "overload"),
        (CapacityError("full"), "overload"),
    ],
)
def test_a_failure_opens_an_outage_that_the_next_result_ends(
    virtual: asyncio.Runner, error: StreamsvcError, reason: str
) -> None:
    role = FailingHear(error)
    recognizer = Recognizer(role, "s")
    assert virtual.run(recognizer.transcribe({})) is None
    assert (recognizer.outage, recognizer.since) == (reason, recognizer.until)
    recognizer.abandon()
    role.error = None
    assert virtual.run(recognizer.transcribe({})) is not None
    assert (recognizer.outage, recognizer.last_outage, recognizer.abandoned) == ("", reason, False)


def test_a_late_answer_during_a_restart_keeps_the_reason(virtual: asyncio.Runner) -> None:
    role = FailingHear(WorkerError("died"))
    recognizer = Recognizer(role, "s")
    virtual.run(recognizer.transcribe({}))
    role.error = DeadlineMissed("late")
    virtual.run(recognizer.transcribe({}))
    assert recognizer.outage == "worker_restart"


def test_audio_that_arrived_in_an_outage_is_missing_because_of_it(virtual: asyncio.Runner) -> None:
    recognizer = Recognizer(FailingHear(WorkerError("died")), "s")
    assert recognizer.gap_reason(0.0, "packet_loss") == "packet_loss"
    virtual.run(recognizer.transcribe({}))
    assert recognizer.gap_reason(recognizer.until, "packet_loss") == "worker_restart"
    assert recognizer.gap_reason(recognizer.until + 1.0, "packet_loss") == "packet_loss"


def test_the_delay_between_tries_doubles_up_to_its_maximum(virtual: asyncio.Runner) -> None:
    recognizer = Recognizer(FailingHear(), "s")

    async def delays() -> list[float]:
        times = [clock.now()]
        for _ in range(5):
            await recognizer.wait()
            times.append(clock.now())
        return [end - start for start, end in itertools.pairwise(times)]

    assert virtual.run(delays()) == pytest.approx([RETRY_FIRST, 0.5, 1.0, RETRY_MAX, RETRY_MAX])


def test_voice_activity_detection_hears_quiet_audio_amplified(virtual: asyncio.Runner) -> None:
    role = FailingHear()
    recognizer = Recognizer(role, "s")
    quiet = np.full(4 * VAD_WINDOW, 0.001, np.float32)
    virtual.run(recognizer.vad(quiet))
    assert role.payloads[-1]["samples"] == pytest.approx(TARGET)
    loud = np.full(VAD_WINDOW, 0.5, np.float32)
    virtual.run(recognizer.vad(loud))
    virtual.run(recognizer.vad(quiet[:VAD_WINDOW]))
    assert role.payloads[-1]["samples"].max() < 0.002, "the level goes along with the next request"
