"""A long talk is fed with pauses; a growing lag exceeds the limit."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import pytest

from load_tests.hour import PAUSES, Interval, measure, packets, table, verdict
from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.errors import CapacityError
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import Truth
from tests.fakes.hear_engine import ends, hear_role, spoken
from tests.fakes.role import FakeRole

TALK = (spoken(6, 0.4), Truth(tuple(f"w{number}" for number in range(1, 7)), ends(6)))
# Longer than what counts for a repetition: repeated speech is decoded in pieces, which come whole.
LONG_TALK = (spoken(20, 0.4), Truth(tuple(f"w{number}" for number in range(1, 21)), ends(20)))
SETTINGS = Hear(model="script.en", backlog_seconds=5.0)


def slow_role(since: float) -> FakeRole:
    """A hear role that takes longer and longer from monotonic second `since` on.

    60 s later it refuses decodes.
    """
    role = hear_role(
        delay=lambda op, payload: min(0.1 * (clock.now() - since), 2.0) if op == "transcribe" else 0.0
    )
    transcribe = role.results["transcribe"]
    assert callable(transcribe)
    refusal = CapacityError("too much", retry_after=1.0)
    role.results = {
        **role.results,
        "transcribe": lambda payload: refusal if clock.now() - since > 60 else transcribe(payload),
    }
    return role


def hour(
    virtual: asyncio.Runner, role: Role, seconds: float, every: float, talk: tuple[Any, Truth] = TALK
) -> list[Interval]:
    return virtual.run(measure([talk], role, SETTINGS, seconds=seconds, every=every, pids=[os.getpid()]))


def test_the_feed_repeats_the_talks_with_pauses() -> None:
    of = list(packets([TALK], 30.0))
    assert [at for at, _, _ in of] == pytest.approx([number * 0.02 for number in range(len(of))])
    assert len(of) == 1500
    heard = np.concatenate([samples for _, samples, _ in of])
    assert np.array_equal(heard[: len(TALK[0]) // 320 * 320], TALK[0][: len(TALK[0]) // 320 * 320])
    again = len(TALK[0]) + int(PAUSES[0] * SAMPLE_RATE)
    assert np.array_equal(heard[again // 320 * 320 :][:320], TALK[0][:320])
    assert (
        sum(words for _, _, words in of) == 24
    )  # four times: 1 + 4 + 15 seconds of pauses lie between, and half a one


def test_every_word_of_a_long_talk_is_committed_soon_and_nothing_is_wrong(virtual: asyncio.Runner) -> None:
    found = hour(virtual, hear_role(), 120.0, 40.0, LONG_TALK)
    assert [each.until for each in found] == [40.0, 80.0, 120.0]
    assert sum(each.spoken for each in found) > 50
    assert sum(len(each.lags) for each in found) == pytest.approx(
        sum(each.spoken for each in found), abs=1
    )  # the end cuts a word
    assert all(0.0 <= lag < 1.5 for each in found for lag in each.lags)
    assert all(each.gaps == 0 and each.pss[0] > 10 for each in found)
    assert verdict(found) == []
    assert len(table(found).splitlines()) == 5


def test_a_growing_lag_and_dropped_audio_exceed_the_limits(virtual: asyncio.Runner) -> None:
    found = hour(virtual, slow_role(virtual.run(_now()) + 30.0), 100.0, 25.0)
    grown, lost = verdict(found)[0], sum(each.lost for each in found)
    assert "lag grew" in grown or "nothing was committed" in grown
    assert lost > 0
    assert f"{lost:.1f} s of audio were given up" in verdict(found)


async def _now() -> float:
    return clock.now()
