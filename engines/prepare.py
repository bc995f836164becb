"""Builds what the first start would build.

The vision graphs for this CPU, and the converted language model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engines import build_llm, llm, vision


def prepare(models_dir: Path, tell: Callable[[str], None] = print) -> None:
    """Build what is not built yet: half a minute of one core the first time.

    Raises:
        ModelMissing: a required file is missing or broken.
    """
    tell("preparing the vision models for this processor")
    vision.load({"models": str(models_dir), "ocr": False})
    tell("preparing the language model")
    build_llm.built(llm.source(models_dir))
