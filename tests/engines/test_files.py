"""A missing model file is named; files that were made here are noticed when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines import files
from engines.files import MADE, as_made, model_file, note_made, noted, read_stamp, sha256, write_stamp
from streamsvc.core.errors import ModelMissing


def test_a_file_with_content_is_returned_and_an_empty_or_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for _ in range(2):
        with pytest.raises(ModelMissing, match=r"model\.bin is missing: run `streamsvc models pull`"):
            model_file(path)
        path.touch()
    path.write_bytes(b"weights")
    assert model_file(path) == path


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A file that was made here."""
    path = tmp_path / "graph.bin"
    path.write_bytes(b"weights")
    (tmp_path / "graph.xml").write_bytes(b"graph")
    note_made(tmp_path, "graph.bin")
    note_made(tmp_path, "graph.xml")
    return path


def test_a_file_that_was_made_here_is_as_it_was_until_its_bytes_change(made: Path) -> None:
    names = (made.name, "graph.xml")
    assert as_made(made.parent, *names)
    os.utime(made, (1, 1))
    assert as_made(made.parent, *names), "another time, the same bytes"
    made.write_bytes(b"WEIGHTS")
    assert not as_made(made.parent, *names)
    made.write_bytes(b"weights")
    assert as_made(made.parent, *names)
    made.unlink()
    assert not as_made(made.parent, *names)


def test_a_file_that_nobody_noted_was_not_made_here(made: Path) -> None:
    (made.parent / "other").write_bytes(b"weights")
    assert not as_made(made.parent, "other")
    (made.parent / MADE).unlink()
    assert not as_made(made.parent, made.name)


def test_what_has_not_changed_is_not_hashed_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("hashed"))
    assert as_made(made.parent, made.name)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"sha256": ""}}', "\x00"])
def test_a_stamp_that_cannot_be_read_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "stamp").write_text(text)
    assert read_stamp(tmp_path / "stamp") == {}


def test_a_stamp_that_cannot_be_written_does_no_harm(tmp_path: Path, made: Path) -> None:
    stamp = {made.name: noted(made, sha256(made))}
    write_stamp(tmp_path / "absent" / "stamp", stamp)
    write_stamp(tmp_path / "stamp", stamp)
    assert read_stamp(tmp_path / "stamp") == stamp
