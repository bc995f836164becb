"""The conversion is done once, repeated when the source changes, and atomic."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import build_llm
from streamsvc.core.errors import ModelMissing


def fake(calls: list[Path]):  # type: ignore[no-untyped-def]
    def convert(source: Path, target: Path) -> None:
        calls.append(target)
        (target / "model.bin").write_bytes(b"m")
        (target / "tokenizer.json").write_bytes(b"t")

    return convert


def test_it_is_built_once_and_again_when_the_source_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(build_llm, "convert", fake(calls))
    source = tmp_path / "x.gguf"
    source.write_bytes(b"one")
    first = build_llm.built(source)
    assert build_llm.built(source) == first and len(calls) == 1
    source.write_bytes(b"three")
    assert build_llm.built(source) != first and len(calls) == 2
    assert not first.exists()


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(b"no model at all")
    with pytest.raises(ModelMissing, match="models pull"):
        build_llm.built(source)
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"x\.gguf"):
        build_llm.built(tmp_path / "x.gguf")
