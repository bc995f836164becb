"""A built folder appears atomically."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.building import building


def build(folder: Path, text: str) -> Path:
    target = folder / "made-2"
    with building(target, "made-*", (target / "file").is_file) as scratch:
        (scratch / "file").write_text(text)
    return target


def test_what_was_built_takes_its_place_and_older_ones_go(tmp_path: Path) -> None:
    (tmp_path / "made-1").mkdir()
    target = build(tmp_path, "new")
    assert (target / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_complete_folder_of_another_process_stays_and_a_broken_one_is_replaced(tmp_path: Path) -> None:
    build(tmp_path, "first")
    assert (build(tmp_path, "second") / "file").read_text() == "first"
    (tmp_path / "made-2" / "file").rename(tmp_path / "made-2" / "half")
    assert (build(tmp_path, "third") / "file").read_text() == "third"
    assert [path.name for path in tmp_path.iterdir()] == ["made-2"]


def test_a_failure_leaves_nothing_new_and_keeps_the_old(tmp_path: Path) -> None:
    (tmp_path / "made-1").mkdir()
    with pytest.raises(ValueError, match="no"), building(tmp_path / "made-2", "made-*", lambda: False):
        raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["made-1"]
