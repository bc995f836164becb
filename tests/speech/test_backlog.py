"""The backlog: pieces, real time, and the drop rule."""

from __future__ import annotations

import numpy as np
import pytest

from streamsvc.core.types import SAMPLE_RATE, AudioChunk
from streamsvc.speech.audio_buffer import VAD_BATCH
from streamsvc.speech.backlog import Backlog


def chunk(at: float, seconds: float, arrived: float) -> AudioChunk:
    return AudioChunk("s", "main", at, arrived, np.zeros(round(seconds * SAMPLE_RATE), np.float32))


def test_a_long_chunk_is_cut_into_pieces_that_keep_their_times() -> None:
    backlog = Backlog(5.0, lossless=False)
    backlog.add(chunk(3.0, 1.0, 100.0))
    assert backlog.seconds == pytest.approx(1.0)
    assert backlog.first.at == 3.0
    pieces = [backlog.pop() for _ in range(len(backlog))]
    assert all(len(piece.samples) <= VAD_BATCH for piece in pieces)
    assert [piece.at for piece in pieces[1:]] == pytest.approx([piece.end for piece in pieces[:-1]])
    assert (len(backlog), backlog.seconds) == (0, 0.0)


def test_audio_that_comes_faster_than_real_time_is_not_live() -> None:
    live, file, lossless = (Backlog(5.0, lossless=value) for value in (False, False, True))
    assert live.live and not lossless.live
    for second in range(10):
        live.add(chunk(second, 1.0, 100.0 + second))
        file.add(chunk(second, 1.0, 100.0))
    assert live.live and not file.live


@pytest.mark.parametrize(
    ("pace", "lossless", "left"), [(1.0, False, 2.0), (0.0, False, 10.0), (1.0, True, 10.0)]
)
def test_only_a_live_source_loses_its_oldest_audio(pace: float, lossless: bool, left: float) -> None:
    backlog = Backlog(2.0, lossless=lossless)
    for second in range(10):
        backlog.add(chunk(second, 1.0, 100.0 + pace * second))
    dropped = backlog.drop_excess()
    assert backlog.seconds == pytest.approx(left, abs=0.2)
    assert sum(len(piece.samples) for piece in dropped) / SAMPLE_RATE == pytest.approx(10.0 - left, abs=0.2)
    assert not dropped or dropped[0].at == 0.0
