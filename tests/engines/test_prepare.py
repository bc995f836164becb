"""Prepared files are those that the workers load."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import prepare
from streamsvc.core.config import Models
from streamsvc.core.errors import ModelMissing


@pytest.mark.models
def test_after_preparing_the_vision_graphs_are_built_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    models = Models().dir / "models"
    prepare.prepare(models)
    assert "vision" in capsys.readouterr().out
    assert list(models.glob("*/openvino-*/graph.xml"))


def test_without_weights_it_says_which_file_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="models pull"):
        prepare.prepare(tmp_path)
