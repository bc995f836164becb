"""The load test of decoding, in small: all kinds take publishers, and what is missed is told."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import pytest

from load_tests.decoding import Figures, measured, table, verdict
from load_tests.rtp_media import Form, recording

ROW = Figures("aiortc", 8, 10.0, 80.0, 30.0, 1.0, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 2000.0)


def test_goals_are_of_a_machine_on_which_aiortc_costs_what_it_did() -> None:
    kinds = [ROW, replace(ROW, kind="full", cpu_ms=59.0), replace(ROW, kind="keyframes", cpu_ms=31.0)]
    assert verdict(kinds, [], []) == []
    slow = [replace(one, cpu_ms=2 * one.cpu_ms) for one in kinds]
    assert verdict(slow, [], []) == []
    assert len(verdict([ROW, replace(kinds[1], cpu_ms=70.0), replace(kinds[2], cpu_ms=40.0)], [], [])) == 2
    assert len(verdict([replace(ROW, audio=0.5)], [], [])) == 1


def test_publishers_are_held_where_nothing_is_late_or_lost() -> None:
    held = replace(ROW, kind="keyframes", publishers=20)
    assert verdict([], [held], [20]) == []
    for late in (replace(held, lag=1.0), replace(held, audio=0.9), replace(held, lost=1.0)):
        assert verdict([], [late], [20]) == ["20 publishers are not held"]
    assert "0.50" in table([ROW, replace(held, cpu_ms=40.0)])


@pytest.mark.load
def test_publishers_are_taken_and_measured(tmp_path: Path) -> None:
    recording(tmp_path, seconds=2.0, form=Form(kbps=100, width=160, height=96))
    cores = sorted(os.sched_getaffinity(0))
    chosen = argparse.Namespace(
        kept=tmp_path, codec="vp8", kbps=100, size=(160, 96), loop=2.0, seconds=1.0, warm_up=1.0
    )
    one = measured("keyframes", 1, chosen, (cores[0], cores[-1]))
    assert one.cpu_ms > 0
    assert one.pictures > 0
    assert one.audio > 0
