"""Workers take turns, finished cells stay, and the table is that of all runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from load_tests import captions_beside
from load_tests.captions_beside import Cell, cells, done, figures, measure, recordings, report, row
from streamsvc.core.errors import ConfigError
from tests.fakes.hear_engine import ends, spoken, written

# Writes the result of a run at once, in streambench's place; with DIE in the worker's command it fails.
HARNESS = """
import json, sys
at = {name: sys.argv.index("--" + name) for name in ("name", "audio", "ref", "out")}
command = sys.argv[sys.argv.index("--") + 1:]
open(sys.argv[at["out"] + 1] + ".stderr", "w").close()
if "DIE" in command:
    sys.exit("not ready")
truth = json.load(open(sys.argv[at["ref"] + 1]))
words = truth["truth"]
events = [[end + 0.5, " ".join(words[:number]), "more"] for number, end in enumerate(truth["end"], 1)]
events.append([truth["end"][-1] + 0.6, " ".join(truth["truth"][:-1] + ["wrong"] * ("WRONG" in command)), ""])
outcome = {"cmd": command, "events": events, "stream_s": truth["duration"] + 2, "cpu_s": 1.0,
        "machine_busy_s": 1.5, "rss_mb": 100.0, "flush_s": 0.25, "late_feed_s": 0.01, "finished": True}
json.dump(outcome, open(sys.argv[at["out"] + 1], "w"))
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder as make_ref.py leaves it: recordings "a" and "b", of six words each."""
    for name in ("a", "b"):
        written(tmp_path / f"{name}.wav", spoken(6, 0.5))
        outcome = {
            "audio": f"{name}.wav",
            "duration": 2.4,
            "truth": [f"w{number}" for number in range(1, 7)],
            "end": ends(6),
        }
        (tmp_path / f"{name}.ref.json").write_text(json.dumps(outcome), encoding="utf-8")
    (tmp_path / "harness.py").write_text(HARNESS, encoding="utf-8")
    return tmp_path


def go(monkeypatch: pytest.MonkeyPatch, shelf: Path, *words: str) -> int:
    """The command line; its exit status."""
    outcome = [
        "captions_beside",
        str(shelf),
        "--out",
        str(shelf / "out"),
        "--harness",
        str(shelf / "harness.py"),
        *words,
    ]
    monkeypatch.setattr(sys, "argv", outcome)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handler would outlive the test
    with pytest.raises(SystemExit) as ended:
        captions_beside.main()
    return int(ended.value.code or 0)


def test_workers_take_turns_and_another_one_begins_each_time(shelf: Path) -> None:
    of = recordings(shelf)
    assert [(each.name, len(each.reference.words), each.seconds) for each in of] == [
        ("a", 6, 2.4),
        ("b", 6, 2.4),
    ]
    order = [
        (cell.recording.name, cell.run, cell.worker) for cell in cells({"x": ["x"], "y": ["y"]}, of, 2, shelf)
    ]
    assert order[:4] == [("a", 1, "x"), ("a", 1, "y"), ("b", 1, "y"), ("b", 1, "x")]
    assert sorted(order) == sorted((name, run, worker) for name in "ab" for run in (1, 2) for worker in "xy")


def test_a_folder_without_references_and_a_broken_reference_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make_ref"):
        recordings(tmp_path)
    (tmp_path / "a.ref.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError):
        recordings(tmp_path)


def test_what_is_finished_is_not_run_again_and_the_table_is_of_all_runs(
    monkeypatch: pytest.MonkeyPatch, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = ("--worker", "one=cmd", "--worker", "two, wrong=cmd WRONG")
    assert go(monkeypatch, shelf, *workers, "--runs", "2") == 0
    first = capsys.readouterr()
    assert first.err.count(" of 8: ") == 8
    assert go(monkeypatch, shelf, *workers, "--runs", "2") == 0
    second = capsys.readouterr()
    assert second.err == ""
    assert second.out == first.out
    outcome = json.loads((shelf / "out" / "table.json").read_text(encoding="utf-8"))
    assert (outcome["words"], outcome["seconds"]) == (12, 4.8)
    one, two = outcome["workers"]["one"], outcome["workers"]["two, wrong"]
    assert (one["runs"], one["wer"], one["commit_erased"], one["commit_p50"]) == (
        4,
        round(1 / 6, 4),
        4,
        0.5,
    )  # its last word is taken back
    assert (two["runs"], two["wer"]) == (4, round(1 / 6, 4))
    assert one["cpu_per_audio_s"] == pytest.approx(1 / 4.4, abs=0.001)
    assert "12 words, 5 s; fewer than 1500 words say little." in first.out


def test_another_command_under_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch, shelf: Path) -> None:
    assert go(monkeypatch, shelf, "--worker", "one=cmd", "--runs", "1") == 0
    (cell,) = [
        cell
        for cell in cells({"one": ["other"]}, recordings(shelf), 1, shelf / "out")
        if cell.recording.name == "a"
    ]
    with pytest.raises(SystemExit, match="result of another command"):
        done(cell)


def test_a_failing_worker_is_reported_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(monkeypatch, shelf, "--worker", "bad=cmd DIE", "--worker", "good=cmd", "--runs", "1") == 1
    out = capsys.readouterr().out
    assert out.count("failed, see") == 2
    assert "| good " in out
    assert "| bad " not in out


def test_an_interrupted_run_leaves_no_process_and_no_result(
    monkeypatch: pytest.MonkeyPatch, shelf: Path
) -> None:
    """Start a harness with a child in a session of its own, as streambench does; neither ends by itself."""
    sleeper = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True).wait()"
    (shelf / "harness.py").write_text(sleeper, encoding="utf-8")
    seen: list[list[int]] = []

    def look(pid: int) -> list[int]:
        found = psutil.Process(pid).children(recursive=True)
        if found:
            seen.append([each.pid for each in found])
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(captions_beside, "memory", look)
    monkeypatch.setattr(captions_beside, "WEIGH", 0.02)
    cell = Cell("one", ("cmd",), recordings(shelf)[0], 1, shelf / "out" / "one" / "a.1.json")
    with pytest.raises(KeyboardInterrupt):
        measure(cell, shelf / "harness.py")
    assert not [
        pid
        for pid in seen[0]
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]
    assert not cell.file.exists()


def test_memory_is_that_of_each_process_below() -> None:
    with subprocess.Popen(["sleep", "60"]) as alone:
        assert captions_beside.memory(alone.pid) == []
        alone.kill()


def test_word_errors_are_compared_with_offline_decoding_by_the_mean_of_the_runs(shelf: Path) -> None:
    (recording, _) = recordings(shelf)
    result: dict[str, Any] = {
        "stream_s": 4.4,
        "cpu_s": 1.0,
        "machine_busy_s": 1.0,
        "rss_mb": 1.0,
        "flush_s": 0.1,
        "late_feed_s": 0.0,
    }
    result |= {"pss": {"largest": 2e6, "all": 3e6}, "finished": True}
    right = {**result, "events": [[3.0, "w1 w2 w3 w4 w5 w6", ""]]}
    wrong = {**result, "events": [[3.0, "w1 w2 w3 w4 w5", ""]]}
    outcome = figures([(recording, right), (recording, wrong)], {"a": ["w1", "w2", "w3", "w4", "w5", "w6"]})
    assert outcome["wer_of_runs"] == [0.0, round(1 / 6, 4)]
    assert outcome["offline"]["difference"] == pytest.approx(1 / 12, abs=1e-4)
    line = row("one", outcome)
    assert line[2:4] == ("8.3", "+8.3 (+8.3)")
    assert "2 / 3" in line


def test_the_table_says_what_is_still_to_be_run(shelf: Path) -> None:
    of = recordings(shelf)
    every = list(cells({"one": ["cmd"]}, of, 1, shelf / "out"))
    assert measure(every[0], shelf / "harness.py")
    table, outcome = report(every, of, None, shelf / "out")
    assert "one: 1 of 2 runs so far" in table
    assert outcome["workers"]["one"]["runs"] == 1
