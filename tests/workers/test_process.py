"""A worker process is started, says why it could not be, and is ended with its pipes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.workers import process
from streamsvc.workers.process import Job, WorkerProcess

ENGINE = {"test": "tests.fakes.worker_engine"}


async def test_a_process_lives_until_it_is_closed(tmp_path: Path) -> None:
    started = await WorkerProcess.start(Job("test", ENGINE, {}, 0), tmp_path / "a.sock")
    assert started.alive
    assert started.pid == started.process.pid
    assert started.runtimes == {"test": "of a test"}
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600
    await started.close()
    assert not started.alive


async def test_a_missing_model_is_named_and_the_process_ended(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="models pull"):
        await WorkerProcess.start(Job("test", ENGINE, {"missing": True}, 0), tmp_path / "a.sock")


async def test_an_engine_that_cannot_be_loaded_is_named_without_its_text(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="the engine failed with ModuleNotFoundError"):
        await WorkerProcess.start(Job("test", {"test": "no.such.module"}, {}, 0), tmp_path / "a.sock")


async def test_loading_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOAD_SECONDS", 0.01)
    with pytest.raises(WorkerError, match="had not loaded"):
        await WorkerProcess.start(Job("test", ENGINE, {}, 0), tmp_path / "a.sock")
