"""Run `streamsvc` as a process, or a command that must fail in this one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streamsvc import __main__ as command_line


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamsvc", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=os.environ | environment, check=False
    )


def error_of(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    """What a command that must fail prints, run in this process: a process a case would take minutes."""
    monkeypatch.setattr(sys, "argv", ["streamsvc", *arguments])
    monkeypatch.setattr(command_line, "configure_logs", lambda **_: None)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    return capfd.readouterr().err
