"""Vectors of the examples are kept in a file that a damaged or foreign one cannot be taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamsvc.answers import example_vectors, intents

EXAMPLES = example_vectors.ExampleVectors("intents", intents.examples, intents.Electorate)


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(intents.examples()), 8)).astype(np.float32)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    path = EXAMPLES.path_in(tmp_path / "new")
    assert example_vectors.load(path, len(intents.examples())) is None
    example_vectors.save(path, vectors())
    loaded = example_vectors.load(path, len(intents.examples()))
    assert loaded is not None
    assert np.array_equal(loaded, vectors())
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_damaged_file_or_one_of_another_size_is_none(tmp_path: Path) -> None:
    path = EXAMPLES.path_in(tmp_path)
    path.write_bytes(b"\x93NUMPY\x01\x00")
    assert example_vectors.load(path, len(intents.examples())) is None
    np.save(path, vectors()[1:])
    assert example_vectors.load(path, len(intents.examples())) is None


def test_a_folder_that_cannot_be_written_costs_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    example_vectors.save(tmp_path / "file" / "intents.npy", vectors())
