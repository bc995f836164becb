"""The bench of reading along runs, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.chat_models import chat_file
from engines.fetch import default_dir
from load_tests import reading
from tests.builders import chat_gguf


def test_it_tells_time_and_memory_of_each_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny").mkdir()
    chat_gguf.write(tmp_path / "tiny" / "tiny.gguf")
    monkeypatch.setattr(reading, "default_dir", lambda: tmp_path)
    reading.main(["--model", "tiny", "--windows", "200", "400", "--questions", "1"])
    output = capsys.readouterr().out
    assert output.count("read at") == 2
    assert "all slots used: RSS" in output
    assert "flat within" in output


@pytest.mark.models
def test_the_shapes_have_the_published_vocabulary(tmp_path: Path) -> None:
    words = chat_gguf.vocabulary_of(chat_file(reading.SMALLEST, default_dir()))
    assert len(words.merges) > 40_000
    assert {shape.vocabulary for shape in reading.SHAPES.values()} == {151_936}
