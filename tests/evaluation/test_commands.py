"""The commands eval and bench, run from the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamsvc import __main__ as command_line
from tests.builders.command_line import error_of, run
from tests.builders.recorded import changed, recorded, same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "captions", "x.wav", "--speed", "2"), "--speed"),
        (("bench", "captions", "x.wav", "y.wav", "--truth", "x.txt"), "--truth"),
        (("bench", "captions", "/no/such.wav"), "/no/such.wav cannot be read"),
        (("bench", "vision", "--plot", "plot.png"), "ends with .svg"),
        (("eval", "x.json", "--speed", "2"), "--speed"),
        (("eval", "x.json", "--rows", "measure"), "--rows"),
        (("eval", "/no/such.json"), "/no/such.json does not exist"),
        (("replay", "/no/such"), "/no/such cannot be read"),
    ],
)
def test_bad_arguments_give_one_line_and_exit_status_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert message in error_of(arguments, monkeypatch, capfd)


@pytest.mark.models
@pytest.mark.media
def test_a_recording_is_measured(media: Path) -> None:
    ended = run(
        "bench", "captions", str(media / "speech" / "jfk_inaugural_excerpt.flac"), "--speed", "max", "--json"
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["speed"] == "max"
    assert report["runs"][0]["recording"] == "jfk_inaugural_excerpt"
    assert report["all"]["wer"] <= 0.14


@pytest.mark.models
@pytest.mark.media
def test_a_recording_is_evaluated_in_real_time_from_the_command_line(media: Path, tmp_path: Path) -> None:
    recording = str(media / "speech" / "sb_spk1_snt5.flac")
    ended = run("eval", recording, "--speed", "1", "--json", "--plot", str(tmp_path / "a.svg"))
    assert ended.returncode == 0, ended.stderr[-2000:]
    report = json.loads(ended.stdout)["scenarios"]["sb_spk1_snt5"]
    assert report["slices"]["accent"] == "non-native"
    assert report["speech"]["words_published"] >= 6
    assert report["cost"]["pss_max_mb"] > 100
    assert (tmp_path / "a.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("changes", [False, True])
def test_a_replay_says_in_one_line_whether_it_is_equal(
    changes: bool, stage: asyncio.Runner, tmp_path: Path
) -> None:
    bundle = stage.run(recorded(tmp_path, seconds=1.0))
    if changes:
        bundle = changed(
            bundle,
            lambda record: ("end", {"told": ["else", None]}, {}) if record.kind == "end" else same(record),
        )
    ended, shown = (  # in this process: one a case would take most of the time
        CliRunner().invoke(command_line.app, ["replay", str(bundle), *options])
        for options in ((), ("--json",))
    )
    told = json.loads(shown.stdout)
    status = int(changes)
    assert (ended.exit_code, shown.exit_code, told["equal"]) == (status, status, not changes), ended.output
    first = "diverged: event " if changes else f"equal: {told['events']} events, {told['recorded']} recorded"
    assert ended.stdout.startswith(first)
    assert ended.stdout.count("\n") == 1
