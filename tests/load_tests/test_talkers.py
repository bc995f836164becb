"""Many talkers by a model of cost: all words come, and longer steps are worth more than a queue."""

from __future__ import annotations

import numpy as np
import pytest

from load_tests import talkers
from load_tests.talkers import decode_seconds, measure
from streamsvc.core.config import Hear
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.speech import pacing

SETTINGS = Hear(model="script.en")


def test_longer_windows_more_padding_and_longer_prompts_cost_more() -> None:
    def cost(seconds: float, *, quick: bool = True, before: str = "") -> float:
        samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
        return decode_seconds({"samples": samples, "quick": quick, "before": before})

    assert 0.05 < cost(2.0) < cost(5.0) < cost(5.0, quick=False) < 0.2
    assert cost(5.0) < cost(5.0, before="a word " * 20)


def test_more_talkers_than_threads_are_later_and_less_so_with_longer_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(talkers, "THREADS", 1)
    one, five = measure(1, 20.0, SETTINGS), measure(5, 20.0, SETTINGS)
    assert one.coverage == five.coverage == 1.0
    assert one.within_budget
    assert one.lost == five.lost == 0.0
    monkeypatch.setattr(pacing, "RISE", 0.0)
    queued = measure(5, 20.0, SETTINGS)
    late = [load.figures["commit_p95"] or 0.0 for load in (one, five, queued)]
    assert late == sorted(late)
    assert late[1] < late[2] - 0.2, "without longer steps every decode waits in the queue"
