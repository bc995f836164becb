"""`streamsvc cluster serve-models` deploys what the settings say, says where, and leaves no connection."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from streamsvc import __main__ as command_line
from streamsvc.core.errors import WorkerError
from streamsvc.service import ray_models
from streamsvc.workers import ray_deployment
from tests.builders.command_line import error_of


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    said: list[Any] = []

    def deploy(settings: Any, address: str, only: Any) -> list[str]:
        said.append((address, list(only)))
        if address == "10.9.9.9:1":
            raise WorkerError("no Ray cluster is found at 10.9.9.9:1")
        return ["hear", "think"]

    monkeypatch.setenv("STREAMSVC_THINK__MODEL", "smollm2-135m-instruct")
    monkeypatch.setenv("STREAMSVC_SERVER__HOST", "0.0.0.0")  # of the image; no key: nothing listens there
    monkeypatch.setattr(ray_models, "deploy", deploy)
    monkeypatch.setattr(ray_deployment, "address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(ray_deployment, "disconnect", lambda: said.append("disconnected"))
    return said


def test_the_models_are_deployed_at_the_address_of_the_settings_or_of_the_option(told: list[Any]) -> None:
    ended = CliRunner().invoke(command_line.app, ["cluster", "serve-models", "--worker", "hear"])
    assert (ended.exit_code, ended.output) == (0, "ready: hear, think on Ray at 10.0.0.1:6379\n")
    ended = CliRunner().invoke(command_line.app, ["cluster", "serve-models", "--address", "head:6379"])
    assert ended.exit_code == 0
    assert told == [("auto", ["hear"]), "disconnected", ("head:6379", []), "disconnected"]


def end_once_it_waits(handler: Any) -> None:
    """Send SIGTERM to this process once it has another handler of it than this one."""
    while signal.getsignal(signal.SIGTERM) is handler:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_local_cluster_lives_until_a_signal(told: list[Any]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    sender = threading.Thread(target=end_once_it_waits, args=(before[signal.SIGTERM],))
    sender.start()
    try:
        ended = CliRunner().invoke(command_line.app, ["cluster", "serve-models", "--address", "local"])
    finally:
        sender.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.exit_code == 0
    assert told == [("local", []), "disconnected"]


@pytest.mark.parametrize(
    ("address", "message"),
    [("ray://head:10001", "carries no streams"), ("head", "host:port"), ("10.9.9.9:1", "no Ray cluster")],
)
def test_a_wrong_address_is_one_line(
    address: str,
    message: str,
    told: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert message in error_of(("cluster", "serve-models", "--address", address), monkeypatch, capfd)
