"""What is made of fetched weights once per machine, ahead of the first start: graphs for this CPU, the language model's own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engines import build_llm, llm, vision


def prepare(models_dir: Path, tell: Callable[[str], None] = print) -> None:
    """Build whatever is not built yet; takes half a minute of one core the first time, and nothing after that.

    Raises:
        ModelMissing: a file that is needed is not there or broken.
    """
    tell("preparing the vision models for this processor")
    vision.load({"models": str(models_dir), "ocr": False})
    tell("preparing the language model")
    build_llm.built(llm.source(models_dir))
