"""Scenarios and published sets become one report; the canary's figures are the committed ones."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.evaluation import session_run
from streamsvc.evaluation.evaluate import Plan, encoded_image, planned, run
from streamsvc.evaluation.report import table
from tests import canary
from tests.builders.clips import clip
from tests.evaluation.conftest import quiet, scenario
from tests.fakes.engines_by_name import load, settings

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = Path(__file__).parents[1] / "fixtures" / "published"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        session_run, "fixed_time_service", functools.partial(session_run.fixed_time_service, load=load)
    )


def test_a_report_covers_speech_sights_answers_and_sets_that_were_not_run(report: dict[str, Any]) -> None:
    one = report["scenarios"]["one"]
    assert report["speed"] == "max"
    assert one["speech"]["words_published"] >= 8
    assert one["sights"] == {"shown": 1, "named": 1, "by_tag": 1, "by_box": 1, "missed": []}
    assert [row["verdict"] for row in one["answers"]["each"]] == ["right", "right", "right"]
    assert "kept" not in one  # ages of a clock that jumps keep no budget
    assert "does not hold it" in report["sets"]["vqav2"]["not_run"]
    json.dumps(report)


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
    result = run(settings(tmp_path), Plan((), (("librispeech", tmp_path),)), quiet)["sets"]["librispeech"]
    assert (result["rows"], result["absent"], result["measure"]) == (1, 1, "WER %")
    assert result["value"] <= 25.0
    assert result["slices"]["subset: test-clean"]["words"] == 4


def test_a_picture_is_sent_as_it_is_unless_it_is_too_large_or_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(drawn("a"))
    assert encoded_image(path, 10**6) == path.read_bytes()
    assert encoded_image(path, 100).startswith(b"\xff\xd8")
    Image.new("L", (8, 8)).save(tmp_path / "a.bmp")
    assert encoded_image(tmp_path / "a.bmp", 10**6).startswith(b"\xff\xd8")
    path.write_bytes(b"none")
    with pytest.raises(StreamsvcError, match="not an image"):
        encoded_image(path, 100)


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


# --- the canary ---------------------------------------------------------------------------------------------


def test_a_figure_beyond_its_tolerance_is_reported() -> None:
    committed = {"figures": {"right": 10.0, "wrong": 1.0, "gone": 1.0}, "tolerances": {"right": 1.0}}
    result = canary.differences({"right": 9.0, "wrong": 2.0, "new": 0.0}, committed)
    assert [line.partition(":")[0] for line in result] == ["gone", "new", "wrong"]


@pytest.mark.models
@pytest.mark.timeout(400)
def test_the_canary_has_its_committed_figures() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.canary"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
