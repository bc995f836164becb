"""The report of `bench captions`: a line a run, and what makes a run doubtful."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from streamsvc.core.config import Hear, Settings
from streamsvc.evaluation import caption_bench, score_captions
from streamsvc.evaluation.caption_bench import Plan, captions
from streamsvc.evaluation.caption_report import table
from streamsvc.evaluation.transcriber_run import Cost
from tests.fakes.hear_engine import NAME, ends, spoken, written

SETTINGS = Settings(hear=Hear(model="script.en"))
TWELVE = tuple(f"w{number}" for number in range(1, 13))


def quiet(line: str) -> None:
    """No progress wanted."""


@pytest.fixture
def talk_file(tmp_path: Path) -> Path:
    """A talk of twelve words with a manifest that has their times."""
    words = [{"w": word, "end": end} for word, end in zip(TWELVE, ends(12), strict=True)]
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": [{"path": "talk.wav", "transcript": "...", "words": words}]})
    )
    return written(tmp_path / "talk.wav", spoken(12, 1.0))


def test_the_table_has_a_line_a_run_and_one_for_all_and_no_word_that_was_said(talk_file: Path) -> None:
    plan = Plan((talk_file,), runs=2, live=False, offline=True)
    rows, _ = captions(SETTINGS, Plan((talk_file,), runs=2, live=False), NAME, quiet)
    lines = table(rows, None, plan).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["talk (1)", "talk (2)", "all"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert "w1" not in "\n".join(lines)
    assert "nothing to compare" in lines[-1]


def test_the_table_says_what_makes_a_run_doubtful(talk_file: Path) -> None:
    (row,), _ = captions(SETTINGS, Plan((talk_file,), live=False), NAME, quiet)
    cost = Cost(1.0, 0.9 * row.seconds, 10_000_000, 20_000_000)
    doubtful = caption_bench.Row(
        "talk",
        1,
        row.seconds,
        "truth",
        row.reference,
        row.score,
        cost,
        flush=0.1,
        late=0.5,
        lost=2.0,
        edits=np.array([1]),
    )
    difference = score_captions.Difference(0.01, 0.02, 3)
    result = table([doubtful], caption_bench.Offline(0.05, difference), Plan((talk_file,), offline=True))
    for remark in (
        "0.50 s late",
        "0.90 CPU s/s",
        "2.0 s of audio",
        "+1.0 points, upper 95 % bound +2.0",
        "Too few pieces",
        "10 / 20",
    ):
        assert remark in result
    assert not any(
        remark in table([row], None, Plan((talk_file,), live=False))
        for remark in ("late", "Too few", "were dropped")
    )
