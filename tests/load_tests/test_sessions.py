"""Many sessions on one worker: all are measured, and a late one shows in the figures."""

from __future__ import annotations

import asyncio

import pytest

from load_tests.sessions import Load, measure, parts, plot, table
from streamsvc.core.config import Hear
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import Truth
from tests.fakes.hear_engine import ends, hear_role, spoken
from tests.fakes.role import FakeRole

TALK = (spoken(12, 0.4), Truth(tuple(f"w{number}" for number in range(1, 13)), ends(12)))
SETTINGS = Hear(model="script.en", backlog_seconds=5.0)


def queue_role(seconds: float) -> FakeRole:
    """A hear role with one lane; a decode takes `seconds`."""
    return hear_role(delay=lambda op, payload: seconds if op == "transcribe" else 0.0, lanes=1)


def loaded(virtual: asyncio.Runner, role: Role, sessions: int) -> Load:
    return virtual.run(measure([TALK], role, SETTINGS, sessions, None))


def test_every_word_of_every_session_is_covered_and_more_sessions_wait_longer(
    virtual: asyncio.Runner,
) -> None:
    one, six = (loaded(virtual, queue_role(0.1), sessions) for sessions in (1, 6))
    assert (one.figures["words"], six.figures["words"]) == (12, 72)
    assert one.coverage == six.coverage == 1.0
    assert (six.figures["commit_p50"] or 0.0) > (one.figures["commit_p50"] or 0.0) + 0.1
    assert one.within_budget


def test_a_worker_that_cannot_follow_is_out_of_the_budget(virtual: asyncio.Runner) -> None:
    load = loaded(virtual, queue_role(3.0), 3)
    assert not load.within_budget
    assert table([load]).splitlines()[-1].rstrip(" |").endswith("no")


def test_parts_hold_their_own_words_with_times_from_their_own_start() -> None:
    (first, early), (_, late) = parts([TALK], len(TALK[0]) / SAMPLE_RATE / 2 - 0.001)
    assert early.words + late.words in (TALK[1].words, TALK[1].words[:-1])
    assert late.ends is not None and early.ends is not None
    assert all(0.0 < end <= len(first) / SAMPLE_RATE for end in (*early.ends, *late.ends))
    with pytest.raises(SystemExit, match="600"):
        parts([TALK], 600.0)


def test_the_plot_has_a_line_for_each_latency_and_the_budget(virtual: asyncio.Runner) -> None:
    picture = plot([loaded(virtual, hear_role(), sessions) for sessions in (1, 2)])
    assert picture.count("<polyline") == 3
    assert "stroke-dasharray" in picture
