"""The bench of a model that sees runs, on a tiny pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import sight
from load_tests import sight as bench
from tests.builders import vlm_gguf


def test_it_tells_time_and_memory_for_each_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vlm_gguf.write(tmp_path / "tiny")
    monkeypatch.setattr(bench, "default_dir", lambda: tmp_path)
    monkeypatch.setattr(sight, "SIDE", vlm_gguf.TINY.tower.image)
    bench.main(["--model", "tiny", "--threads", "1", "--keyframes", "2", "--questions", "1"])
    output = capsys.readouterr().out
    for told in ("1 threads: loaded", "a keyframe", "a question", "a scene caption", "memory: PSS"):
        assert told in output


def test_the_published_shape_is_as_large_as_the_published_files() -> None:
    tower = vlm_gguf.SMOLVLM_500M.tower
    assert tower.tokens == 64
    assert vlm_gguf.SMOLVLM_500M.vocabulary == 49_280
