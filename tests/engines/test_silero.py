"""Voice activity does not depend on how the audio is cut, and a bad request fails alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines import each
from engines.silero import WINDOW, Silero, silero_file
from streamsvc.core.errors import InvalidRequest


@pytest.fixture(scope="module")
def silero() -> Silero:
    return Silero(silero_file())


def test_voice_activity_in_pieces_equals_that_of_the_whole(silero: Silero) -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, 40 * WINDOW).astype(np.float32)
    whole = silero.probability({"samples": samples})["probability"]
    pieces = []
    state: Any = None
    for start in range(0, len(samples), 8 * WINDOW):
        result = silero.probability({"samples": samples[start : start + 8 * WINDOW], "state": state})
        state = result["state"]
        pieces.append(result["probability"])
    assert np.concatenate(pieces) == pytest.approx(whole, abs=1e-5)


def test_a_bad_request_fails_alone_in_its_batch(silero: Silero) -> None:
    batch = [{"samples": np.zeros(100, np.float32)}, {"samples": np.zeros(512, np.float32)}]
    bad, good = each(silero.probability)(batch)
    assert isinstance(bad, InvalidRequest)
    assert isinstance(good, dict)
