"""Model files on disk."""

from __future__ import annotations

from pathlib import Path

from streamsvc.core.errors import ModelMissing


def model_file(path: Path) -> Path:
    """The path, if it is a file that is not empty.

    Raises:
        ModelMissing: it is missing or empty; the message names it.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise ModelMissing(f"the model file {path} is missing: run `streamsvc models pull`")
    return path
