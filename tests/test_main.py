"""The command line: what is wrong is one clear line and exit status 2; what is right ends in a file."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streamsvc import __main__ as command_line
from streamsvc.core import clock


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamsvc", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=os.environ | environment, check=False
    )


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("serve", "--port", port, "--data-dir", str(tmp_path))
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.stderr


def test_a_missing_model_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    ended = run("serve", "--port", "0", STREAMSVC_MODELS__DIR=str(tmp_path))
    assert ended.returncode == 2
    assert "streamsvc models pull" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serve", "--host", "0.0.0.0"), "without a key"),
        (("serve", "--sources", "/no/such/folder"), "no such folder"),
        (("serve", "--config", "/no/such.toml"), "does not exist"),
        (("serve", "--tls", "maybe"), "self-signed"),
        (("transcribe", "x.wav", "-o", "x.doc"), ".srt, .vtt or .json"),
        (("watch", "x.wav", "--speed", "fast"), "--speed"),
        (("bench", "captions", "x.wav", "--speed", "2"), "--speed"),
        (("bench", "captions", "x.wav", "y.wav", "--truth", "x.txt"), "--truth"),
        (("bench", "captions", "/no/such.wav"), "/no/such.wav cannot be read"),
        (("bench", "vision", "--plot", "plot.png"), "ends with .svg"),
        (("eval", "x.json", "--speed", "2"), "--speed"),
        (("eval", "/no/such.json"), "/no/such.json does not exist"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["streamsvc", *arguments])
    monkeypatch.setattr(
        command_line, "_logs", lambda *, machine: None
    )  # those of this process stay as they are
    with pytest.raises(
        SystemExit
    ) as ended:  # no process each: that would take a hundred times as long as the telling
        command_line.main()
    assert ended.value.code == 2
    assert told in capfd.readouterr().err


def test_freed_memory_is_given_back_again_and_again(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    monkeypatch.setattr("streamsvc.core.malloc.trim", lambda: times.append(clock.now()))
    with pytest.raises(TimeoutError):
        virtual.run(asyncio.wait_for(command_line.tidy(), 2.5 * command_line.TIDY))
    assert len(times) == 2


@pytest.mark.models
def test_a_file_that_is_not_there_fails_to_transcribe_and_leaves_no_output(tmp_path: Path) -> None:
    ended = run("transcribe", str(tmp_path / "absent.wav"), "-o", str(tmp_path / "out.srt"))
    assert ended.returncode == 2
    assert "absent.wav" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.models
@pytest.mark.media
def test_a_recording_becomes_subtitles(media: Path, tmp_path: Path) -> None:
    ended = run("transcribe", str(media / "speech" / "harvard.flac"), "-o", str(tmp_path / "out.srt"))
    assert ended.returncode == 0, ended.stderr
    assert "stale smell of old beer" in (tmp_path / "out.srt").read_text().lower()


@pytest.mark.models
@pytest.mark.media
def test_a_recording_is_measured(media: Path) -> None:
    ended = run(
        "bench", "captions", str(media / "speech" / "jfk_inaugural_excerpt.flac"), "--speed", "max", "--json"
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["speed"] == "max"
    assert told["runs"][0]["recording"] == "jfk_inaugural_excerpt"
    assert told["all"]["wer"] <= 0.14
