"""A missing model file is named, with the command that fetches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.files import model_file
from streamsvc.core.errors import ModelMissing


def test_a_file_with_content_is_returned_and_an_empty_or_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for _ in range(2):
        with pytest.raises(ModelMissing, match=r"model\.bin is missing: run `streamsvc models pull`"):
            model_file(path)
        path.touch()
    path.write_bytes(b"weights")
    assert model_file(path) == path
