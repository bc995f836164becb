"""Runs of `bench captions`: on the virtual clock, in real time, and beside offline decoding."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest

from engines import asr
from streamsvc.core.config import Hear, Models, Settings
from streamsvc.core.errors import ConfigError, WorkerError
from streamsvc.evaluation import caption_bench
from streamsvc.evaluation.caption_bench import Plan, captions
from streamsvc.evaluation.caption_report import as_json, figures, table
from streamsvc.evaluation.recordings import Clip, Truth
from tests.fakes.hear_engine import NAME, ends, hear_role, spoken, written

SETTINGS = Settings(hear=Hear(model="script.en"))
TWELVE = tuple(f"w{number}" for number in range(1, 13))


def quiet(line: str) -> None:
    """No progress wanted."""


# --- whole runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def talk_file(tmp_path: Path) -> Path:
    """A talk of twelve words with a manifest that has their times."""
    words = [{"w": word, "end": end} for word, end in zip(TWELVE, ends(12), strict=True)]
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": [{"path": "talk.wav", "transcript": "...", "words": words}]})
    )
    return written(tmp_path / "talk.wav", spoken(12, 1.0))


def test_a_run_on_the_virtual_clock_gives_all_figures(talk_file: Path) -> None:
    lines: list[str] = []
    plan = Plan((talk_file,), runs=2, live=False)
    rows, offline = captions(SETTINGS, plan, NAME, lines.append)
    result = figures(rows)
    assert (
        result["wer"],
        result["words"],
        result["committed"],
        result["commit_erased"],
        result["non_speech_words"],
    ) == (0.0, 24, 24, 0, 0)
    assert 0.0 < (result["commit_p50"] or 0.0) < 1.2
    assert 0.0 < (result["longest_gap_s"] or 0.0) < 1.0
    assert (result["pss_hear_mb"], result["lost_s"], offline) == (None, 0, None)
    assert len(lines) == 2
    assert as_json(rows, None, plan, "script.en")["all"] == result


def test_a_run_in_real_time_measures_the_hear_worker(talk_file: Path) -> None:
    plan = Plan((talk_file,), seconds=1.4)
    rows, _ = captions(SETTINGS, plan, NAME, quiet)
    result = figures(rows)
    assert (result["wer"], result["words"], result["committed"]) == (
        0.25,
        4,
        5,
    )  # the fifth word is cut, and heard all the same
    assert 0 < (result["pss_hear_mb"] or 0) < (result["pss_all_mb"] or 0)
    assert 0.0 < (result["cpu_per_audio_s"] or 0.0) < 1.0
    assert (result["seconds"], result["lost_s"]) == (3.4, 0)


def test_captions_outside_of_speech_are_counted(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    path = written(tmp_path / "noise.wav", spoken(3, 1.0))
    rows, _ = captions(SETTINGS, Plan((path,), tmp_path / "empty.txt", live=False), NAME, quiet)
    assert figures(rows)["non_speech_words"] == 3
    assert figures(rows)["wer"] is None


def test_without_a_truth_there_is_everything_but_a_word_error_rate(tmp_path: Path) -> None:
    rows, _ = captions(
        SETTINGS, Plan((written(tmp_path / "talk.wav", spoken(12, 1.0)),), live=False), NAME, quiet
    )
    result = figures(rows)
    assert result["wer"] is None
    assert result["first_p50"] is not None
    assert result["commit_max"] is not None
    assert "there is no WER" in table(rows, None, Plan(()))


def test_a_worker_that_dies_during_a_run_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        pids = iter([os.getpid(), None])
        pid = property(lambda self: next(self.pids))

    monkeypatch.setattr(caption_bench, "TAIL", 0.1)
    short = Clip(Path("a.wav"), np.zeros(1600, np.float32), Truth(()))
    with pytest.raises(WorkerError, match="died during the run"):
        asyncio.run(caption_bench._rows([short], Plan(()), SETTINGS.hear, hear_role(), Dying(), quiet))  # type: ignore[arg-type]


def test_an_unreadable_recording_raises_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        captions(SETTINGS, Plan((tmp_path / "absent.wav",)), "no.such.engine", quiet)


# --- real weights -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened() -> None:
    """Load the speech engine once: ONNX Runtime then opens files that stay open until the process ends."""
    asr.load({"models": Models().dir / "models", "model": "whisper-tiny.en", "workers": 1})


@pytest.mark.models
@pytest.mark.media
@pytest.mark.usefixtures("opened")
def test_a_real_recording_is_measured_and_compared_with_offline_decoding(media: Path) -> None:
    plan = Plan((media / "speech" / "jfk_inaugural_excerpt.flac",), live=False, offline=True)
    rows, offline = captions(
        Settings(hear=Hear(model="whisper-tiny.en"), models=Models()), plan, "engines.asr", quiet
    )
    result = figures(rows)
    assert (result["wer"] or 0.0) <= 0.14
    assert 0.2 < (result["commit_p50"] or 0.0) < 2.0
    assert 0.0 < (result["cpu_per_audio_s"] or 0.0) < 1.0
    assert (result["commit_erased"], result["non_speech_words"], rows[0].ends_from) == (0, 0, "truth")
    assert offline is not None
    assert offline.wer <= 0.1
    assert offline.difference.points == pytest.approx((result["wer"] or 0.0) - offline.wer, abs=1e-3)
