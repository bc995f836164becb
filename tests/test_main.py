"""The command line: errors are one line and exit status 2; results are files."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import streamsvc
from streamsvc import __main__ as command_line
from streamsvc.core import clock
from streamsvc.core.config import Models
from streamsvc.service.http_server import LimitedProtocol
from tests.builders.clips import clip
from tests.builders.command_line import error_of, run
from tests.builders.fake_service import at_the_door
from tests.builders.screen import terminal

SPEECH = Path(__file__).parent / "fixtures" / "canary.ogg"


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


@pytest.mark.models
@pytest.mark.parametrize("name", ["whisper-tiny.en", "smollm2-135m-instruct"])
def test_with_broken_weights_the_service_does_not_say_that_it_is_ready(tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    for folder in (Models().dir / "models").iterdir():
        if folder.name != name and folder.is_dir():
            (tmp_path / "models" / folder.name).symlink_to(folder)
    shutil.copytree(Models().dir / "models" / name, tmp_path / "models" / name)
    (broken,) = (file for file in (tmp_path / "models" / name).iterdir() if file.suffix in (".bin", ".gguf"))
    broken.write_bytes(bytes(4096))
    ended = run("serve", "--port", "0", "--data-dir", str(tmp_path), STREAMSVC_MODELS__DIR=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"model {name}: {broken.name}: broken (4096 of" in ended.stderr
    assert f"`streamsvc models pull {name}`" in ended.stderr


def test_weights_are_looked_at_without_a_key_where_serve_would_need_one(tmp_path: Path) -> None:
    image = {"STREAMSVC_SERVER__HOST": "0.0.0.0", "STREAMSVC_MODELS__DIR": str(tmp_path)}
    ended = run("models", "list", **image)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "without a key" in run("serve", **image).stderr


def test_the_version_is_printed() -> None:
    ended = run("--version")
    assert (ended.returncode, ended.stdout.strip()) == (0, f"streamsvc {streamsvc.__version__}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--host", "0.0.0.0"), "without a key"),
        (("serve", "--sources", "/no/such/folder"), "no such folder"),
        (("serve", "--config", "/no/such.toml"), "does not exist"),
        (("serve", "--tls", "maybe"), "self-signed"),
        (("transcribe", "x.wav", "-o", "x.doc"), ".srt, .vtt or .json"),
        (("watch", "x.wav", "--speed", "fast"), "--speed"),
        (("ask", "http://127.0.0.1:9/", "Who?"), "not the address of a session"),
        (("ask", "http://127.0.0.1:9/v1/sessions/0.a", "Who?"), "cannot be reached"),
        (("watch", "/no/such [/talk].mp4"), "error: /no/such [/talk].mp4 does not exist"),
        (("watch", "http://127.0.0.1:9/a.m3u8"), "does not answer"),
        (("watch", "ftp://127.0.0.1/a.mp4"), "not ftp:"),
        (("transcribe", "/no/such.wav", "-o", "x.srt"), "/no/such.wav does not exist"),
        (("eval", "/no/such.json", "--json", "out"), "--json takes no file name"),
        (("watch", "x.mp4", "--json", "out"), "--json takes no file name"),
    ],
)
def test_bad_arguments_give_one_line_and_exit_status_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("models were to be loaded")

    monkeypatch.setattr("streamsvc.workers.supervisor.Worker.run", never)
    assert message in error_of(arguments, monkeypatch, capfd)


def test_a_file_without_sound_is_refused_before_the_models_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent.mp4"
    clip(silent, audio=None)
    arguments = ("transcribe", str(silent), "-o", str(tmp_path / "out.srt"))
    assert f"{silent} has no sound" in error_of(arguments, monkeypatch, capfd)


def test_what_is_loaded_is_frozen_once_and_freed_memory_returned_at_every_interval(
    virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[float] = []
    times: list[float] = []
    monkeypatch.setattr("streamsvc.core.malloc.freeze", lambda: frozen.append(clock.now()))
    monkeypatch.setattr("streamsvc.core.malloc.trim", lambda: times.append(clock.now()))
    with pytest.raises(TimeoutError):
        virtual.run(asyncio.wait_for(command_line.tend_memory(), 2.5 * command_line.TRIM_INTERVAL))
    assert len(times) == 2
    assert len(frozen) == 1
    assert frozen[0] < times[0]


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
def test_a_signal_lets_sessions_go_on_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamsvc", "serve", "--port", str(port), "--data-dir", str(tmp_path)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            assert client.post("/v1/sessions", json={}).status_code == 201
            process.send_signal(signal.SIGTERM)
            time.sleep(1.0)
            assert client.post("/v1/sessions", json={}).status_code == 503
            assert client.get("/readyz").json()["draining"]
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(command_line.HURRY_SECONDS + 3)
        assert b"Traceback" not in (tmp_path / "log").read_bytes()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_watch_on_a_terminal_redraws_one_line_and_leaves_captions_and_answers_in_order(
    tmp_path: Path,
) -> None:
    questions = ("What was said about slabs?", "What is the weather on Mars?")
    asked = [word for question in questions for word in ("--ask", question)]
    command = [sys.executable, "-m", "streamsvc", "watch", str(SPEECH), "--speed", "max", *asked]
    with terminal(1000) as opened:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=opened.output,
            stderr=opened.output,
            env=os.environ | {"TERM": "xterm-256color", "STREAMSVC_DATA_DIR": str(tmp_path)},
        )
        deadline = time.monotonic() + 270
        while process.poll() is None and time.monotonic() < deadline:
            opened.read()
            time.sleep(0.05)
        if process.poll() is None:
            process.terminate()
        assert process.wait() == 0, opened.read()
        rows = opened.read()
        drawn = opened.screen.drawn
    told = [row for row in rows if not re.match(r"\d{4}-\d\d-\d\dT", row)]  # log lines stand between them
    assert told and all(re.match(r" +\d+:\d\d\.\d \S| {9}(- |\[)", row) for row in told), told
    captions = [row for row in told if re.match(r" +\d+:\d\d\.\d [^\[]", row)]
    assert len(captions) > 2
    opening = " ".join(captions[0].split()[1:4])
    assert any(text.startswith(opening.split()[0]) for text in drawn), "no open caption was drawn"
    labelled = [row for row in told if "[" in row]
    assert [question in row for row, question in zip(labelled[::2], questions, strict=False)] == [True, True]


async def test_an_answer_is_sent_at_once_and_not_held_back_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[int] = []
    made = LimitedProtocol.connection_made

    def connection_made(protocol: LimitedProtocol, transport: asyncio.Transport) -> None:
        accepted = transport.get_extra_info("socket")
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(protocol, transport)

    monkeypatch.setattr(LimitedProtocol, "connection_made", connection_made)
    async with at_the_door(tmp_path) as (_, _, client):
        assert (await client.get("/healthz")).status_code == 200
    assert options
    assert all(options)
