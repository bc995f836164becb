"""An outside program is started, watched, started again, told of, and ended; nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.errors import ConfigError
from streamsvc.ingest import door_process
from streamsvc.ingest.door_process import DoorProcess, Start

SERVES = 'echo "$SECRET$PLAIN" > seen; touch up; exec sleep 600'


@dataclass
class Script:
    """A shell script that serves once it has made the file `up`."""

    text: str = SERVES
    name: str = "test"
    folders: list[Path] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)

    def prepare(self, folder: Path) -> Start:
        self.folders.append(folder)
        self.modes.append(folder.stat().st_mode & 0o777)
        return Start(("/bin/sh", "-c", self.text), {"PLAIN": "plain"})

    async def ready(self, folder: Path) -> None:
        while not (folder / "up").exists():
            await clock.sleep(0.01)


async def comes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await clock.sleep(0.01)


async def test_it_is_started_again_in_a_folder_of_its_own_when_it_dies_and_ends_with_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door_process, "PAUSES", (0.01,))
    monkeypatch.setenv("SECRET", "secret")
    script = Script()
    before = metrics.door_restarts.labels("test")._value.get()
    async with DoorProcess(script) as door:
        first = door.pid
        assert first is not None
        assert door.serves
        assert (script.folders[0] / "seen").read_text() == "plain\n", "our environment may hold a key"
        os.kill(first, signal.SIGKILL)
        await comes(lambda: door.serves and door.pid != first)
        second = door.pid
        assert second is not None
        assert (door.restarts, script.modes) == (1, [0o700, 0o700])
        assert script.folders[0] != script.folders[1]
    assert metrics.door_restarts.labels("test")._value.get() - before == 1
    assert not psutil.pid_exists(second)
    assert not any(folder.exists() for folder in script.folders)


async def test_a_program_that_cannot_be_started_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script("echo 'bind() failed' >&2; exit 1")
    with pytest.raises(ConfigError, match="the test door cannot be opened: bind\\(\\) failed"):
        async with DoorProcess(script):
            pass
    with pytest.raises(ConfigError, match="exit status 3"):
        async with DoorProcess(Script("exit 3")):
            pass
    monkeypatch.setattr(door_process, "READY_SECONDS", 0.05)
    never = Script("exec sleep 600")
    with pytest.raises(ConfigError, match="no answer within"):
        async with DoorProcess(never):
            pass
    assert not never.folders[0].exists()


async def test_what_it_prints_once_it_serves_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(door_process, "PAUSES", (0.01,))
    script = Script("touch up; sleep 0.05; echo a-stream-key; exit 1")
    async with DoorProcess(script) as door:
        await comes(lambda: door.restarts > 2)
    told = capfd.readouterr()
    assert "door process ended" in told.out + told.err
    assert "a-stream-key" not in told.out + told.err


async def test_one_that_does_not_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_process, "END_SECONDS", 0.1)
    async with DoorProcess(Script("trap '' TERM; touch up; exec sleep 600")) as door:
        pid = door.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not there")
def test_it_ends_with_our_process_also_where_that_is_killed() -> None:
    ours = """
import asyncio, os
from tests.ingest.test_door_process import Script
from streamsvc.ingest.door_process import DoorProcess
async def main():
    async with DoorProcess(Script()) as door:
        print(door.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    command = (sys.executable, "-c", ours)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        pid = next(int(line) for line in lines if line.strip().isdigit())
        assert psutil.pid_exists(pid)
        process.kill()

    def gone() -> bool:
        try:
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    asyncio.run(comes(gone))
