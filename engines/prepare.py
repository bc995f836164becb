"""Builds what the first start would build: the vision graphs for this CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engines import vision


def prepare(models_dir: Path, tell: Callable[[str], None] = print) -> None:
    """Build what is not built yet: half a minute of one core the first time.

    Raises:
        ModelMissing: a required file is missing or broken.
    """
    tell("preparing the vision models for this processor")
    vision.load({"models": str(models_dir), "ocr": False})
