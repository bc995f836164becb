"""Scenarios and published sets become one report, a table, a plot; and the canary's figures are those that are committed."""

from __future__ import annotations

import copy
import functools
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.plot import Panel, svg
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.evaluation import session_run
from streamsvc.evaluation.evaluate import Plan, panels, picture, planned, pooled, run, table
from tests import canary
from tests.builders.clips import clip
from tests.fakes.engines_by_name import load, settings

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = Path(__file__).parents[1] / "fixtures" / "published"


def quiet(line: str) -> None:
    """No progress wanted."""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_run, "steady", functools.partial(session_run.steady, load=load))


def scenario(folder: Path, name: str, **more: Any) -> Path:
    """A tone over a picture that gets brighter; "la" is what is heard and a cat what is seen."""
    clip(folder / f"{name}.mp4", seconds=4.0)
    asked = {"keywords": ["cat"], "evidence_s": [0, 4], "modality": "vision", "ask_at_s": 5.0}
    qa = [
        {"id": f"{name}1", "type": "yes/no", "question": "Has a cat been shown?", "answer": "yes", **asked},
        {
            "id": f"{name}2",
            "type": "yes/no",
            "question": "Has a dog been shown?",
            "answer": "no",
            "kind": "never",
            "half": "held",
            **asked,
        },
        {
            "id": f"{name}3",
            "type": "open",
            "question": "What colour is the cat?",
            "answer": "red",
            "answerable": False,
            **asked,
        },
    ]
    truth = {
        "transcript": "la " * 9,
        "speech": [{"start": 0, "end": 4}],
        "intervals": [{"start": 0, "end": 4, "kind": "clip", "label": "cat"}],
    }
    (folder / f"{name}.json").write_text(json.dumps({"file": f"{name}.mp4", "qa": qa, **truth, **more}))
    return folder / f"{name}.json"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("eval")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session_run, "steady", functools.partial(session_run.steady, load=load))
        paths = [scenario(folder, "one", noise="music"), scenario(folder, "two")]
        return run(settings(folder), planned([*map(str, paths), f"vqav2:{folder}"]), quiet)


def test_a_report_tells_what_was_heard_seen_and_answered_and_what_was_not_run(report: dict[str, Any]) -> None:
    one = report["scenarios"]["one"]
    assert report["speed"] == "max"
    assert one["speech"]["words_published"] >= 8
    assert one["sights"] == {"shown": 1, "named": 1, "by_tag": 1, "by_box": 1, "missed": []}
    assert [row["verdict"] for row in one["answers"]["each"]] == ["right", "right", "right"]
    assert "kept" not in one  # ages of a clock that jumps keep no budget
    assert "does not hold it" in report["sets"]["vqav2"]["not_run"]
    json.dumps(report)


def test_several_scenarios_are_counted_as_one(report: dict[str, Any]) -> None:
    whole = report["all"]
    assert whole["answers"]["by_kind"]["never"] == {
        "asked": 2,
        "right": 2,
        "citable": 2,
        "cited": 2,
        "honest": 2,
    } or (whole["answers"]["by_kind"]["never"]["asked"] == 2)
    assert list(whole["answers"]["halves"]) == ["held"]
    assert whole["speech"]["slices"]["noise: music"]["words"] == 9
    assert whole["speech"]["slices"]["channel: wide band"]["words"] == 18
    assert pooled([]) == {}


def test_the_table_has_a_line_for_each_and_says_what_was_not_run(report: dict[str, Any]) -> None:
    told = table(report)
    assert len([line for line in told.splitlines() if line.startswith(("| one", "| two"))]) == 2
    assert "| noise: music" in told
    assert "questions (held)" in told
    assert "vqav2: not run here" in told
    assert "ages would mean nothing" in told


def test_in_real_time_the_table_tells_ages_and_whether_the_budget_was_kept(report: dict[str, Any]) -> None:
    live = copy.deepcopy(report) | {"speed": "1"}
    for number, of in enumerate(live["scenarios"].values()):
        of["kept"] = {"final": number == 0}
    live["all"] = pooled(list(live["scenarios"].values()))
    told = table(live)
    assert "| kept" in told and "| not final" in told
    assert live["all"]["kept"] == {"final": False}
    assert panels(live)[-1]["title"] == "age, s"


def test_the_plot_can_be_drawn(report: dict[str, Any]) -> None:
    drawn = svg([Panel(**panel) for panel in panels(report)])
    assert drawn.startswith("<svg") and "hallucinated" in drawn
    assert panels({"speed": "max", "all": {}}) == []


def drawn(words: str) -> bytes:
    out = io.BytesIO()
    canary.slide(words, ()).save(out, "PNG")
    return out.getvalue()


def test_a_published_set_is_measured_by_its_own_rule_over_the_rows_whose_media_are_there(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "chartqa"
    (folder / "test" / "png").mkdir(parents=True)
    for part in ("human", "augmented"):
        listing = PUBLISHED / "chartqa" / "test" / f"test_{part}.json"
        (folder / "test" / listing.name).write_text(listing.read_text())
    (folder / "test" / "png" / "fish_2001.png").write_bytes(drawn("Landed 2001: 412 tons"))
    of = run(settings(tmp_path), Plan((), (("chartqa", folder), ("docvqa", PUBLISHED / "docvqa"))), quiet)
    chart = of["sets"]["chartqa"]
    assert (chart["rows"], chart["absent"], chart["measure"]) == (2, 1, "relaxed %")
    assert chart["slices"]["part: human"]["rows"] == 2
    assert of["sets"]["docvqa"] == {"not_run": "none of the media of its 3 rows is there"}
    assert "chartqa: relaxed %" in table(of)


def test_a_published_set_of_speech_is_measured_in_word_errors(tmp_path: Path) -> None:
    chapter = tmp_path / "test-clean" / "61" / "70968"
    chapter.mkdir(parents=True)
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 LA LA LA LA\n61-70968-0001 LA\n")
    clip(chapter / "61-70968-0000.flac", video=None, audio="flac", seconds=2.0)
    told = run(settings(tmp_path), Plan((), (("librispeech", tmp_path),)), quiet)["sets"]["librispeech"]
    assert (told["rows"], told["absent"], told["measure"]) == (1, 1, "WER %")
    assert told["value"] <= 25.0
    assert told["slices"]["subset: test-clean"]["words"] == 4


def test_a_picture_is_sent_as_it_is_unless_it_is_too_large_or_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(drawn("a"))
    assert picture(path, 10**6) == path.read_bytes()
    assert picture(path, 100).startswith(b"\xff\xd8")
    Image.new("L", (8, 8)).save(tmp_path / "a.bmp")
    assert picture(tmp_path / "a.bmp", 10**6).startswith(b"\xff\xd8")
    path.write_bytes(b"none")
    with pytest.raises(StreamsvcError, match="no picture"):
        picture(path, 100)


def test_targets_are_scenarios_or_published_sets(tmp_path: Path) -> None:
    truth = scenario(tmp_path, "one")
    plan = planned([str(truth), "docvqa:/some/where"], most=5)
    assert ([each.name for each in plan.scenarios], plan.sets, plan.most) == (
        ["one"],
        (("docvqa", Path("/some/where")),),
        5,
    )
    with pytest.raises(ConfigError, match="does not exist"):
        planned(["imagenet:/some/where"])


# --- the canary ---------------------------------------------------------------------------------------------------


def test_a_figure_beyond_its_tolerance_is_told() -> None:
    committed = {"figures": {"right": 10.0, "wrong": 1.0, "gone": 1.0}, "tolerances": {"right": 1.0}}
    told = canary.differences({"right": 9.0, "wrong": 2.0, "new": 0.0}, committed)
    assert [line.partition(":")[0] for line in told] == ["gone", "new", "wrong"]


@pytest.mark.models
@pytest.mark.timeout(400)
def test_the_canary_sings_as_it_did() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.canary"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]


@pytest.mark.models
@pytest.mark.media
def test_a_recording_is_evaluated_in_real_time_from_the_command_line(media: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "streamsvc",
        "eval",
        str(media / "speech" / "sb_spk1_snt5.flac"),
        "--speed",
        "1",
        "--json",
    ]
    ended = subprocess.run(
        [*command, "--plot", str(tmp_path / "a.svg")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout)["scenarios"]["sb_spk1_snt5"]
    assert told["slices"]["accent"] == "non-native"
    assert told["speech"]["words_published"] >= 6
    assert told["cost"]["pss_max_mb"] > 100
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
