"""Scenarios are found by a truth or a manifest; errors in them are raised before anything is played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.errors import ConfigError
from streamsvc.evaluation.scenario import Scenario, load_scenarios

QUESTION = {
    "id": "q1",
    "type": "open",
    "question": "What?",
    "answer": "a cat",
    "keywords": ["cat"],
    "evidence_s": [0, 1],
    "ask_at_s": 1,
}
WHOLE = QUESTION | {"modality": "vision"}


def folder(place: Path, **files: Any) -> Path:
    """Files by name (`_` for the dot): JSON, or nothing at all."""
    for name, body in files.items():
        stem, _, suffix = name.rpartition("_")
        (place / f"{stem}.{suffix}").write_text("" if body is None else json.dumps(body))
    return place


def names(scenarios: list[Scenario]) -> list[tuple[str, str]]:
    return [(scenario.name, scenario.media.name) for scenario in scenarios]


def test_a_truth_a_recording_and_their_folder_name_the_same_scenario(tmp_path: Path) -> None:
    folder(tmp_path, talk_mp4=None, talk_json={"file": "talk.mp4", "qa": [WHOLE], "play_s": 20})
    (scenario,) = load_scenarios([tmp_path])
    assert (
        load_scenarios([tmp_path / "talk.json"])
        == load_scenarios([tmp_path / "talk.mp4"])
        == load_scenarios([tmp_path, tmp_path / "talk.mp4"])
        == [scenario]
    )
    assert (scenario.name, scenario.seconds, scenario.media) == (
        "talk",
        20.0,
        (tmp_path / "talk.mp4").resolve(),
    )


def test_two_truths_about_one_recording_are_two_scenarios(tmp_path: Path) -> None:
    folder(
        tmp_path,
        talk_mp4=None,
        a_json={"file": "talk.mp4"},
        b_json={"file": "talk.mp4"},
        other_json={"what": "ever"},
    )
    assert names(load_scenarios([tmp_path])) == [("a", "talk.mp4"), ("b", "talk.mp4")]


def test_a_manifest_above_gives_transcript_and_slices(tmp_path: Path) -> None:
    entries = [
        {"path": "speech/a.flac", "transcript": "one two", "duration_s": 3.0, "note": "non-native speaker"},
        {
            "path": "speech/b.flac",
            "transcript": "one",
            "noise": "music",
            "snr_db": 10,
            "segments": [{"start": 1, "end": 2, "text": "one"}],
        },
        {
            "path": "speech/c.flac",
            "transcript": "one",
            "note": "8 kHz telephone-band source",
            "accent": "Scottish",
        },
        {"path": "speech/d.flac", "transcript": None},
    ]
    (tmp_path / "speech").mkdir()
    folder(tmp_path, manifest_json={"files": entries})
    folder(tmp_path / "speech", a_flac=None, b_flac=None, c_flac=None, d_flac=None, e_flac=None)
    a, b, c = load_scenarios([tmp_path / "speech"])
    assert a.slices == {"noise": "none", "accent": "non-native", "channel": "wide band"}
    assert b.slices == {"noise": "music 10 dB", "accent": "native", "channel": "wide band"}
    assert c.slices == {"noise": "none", "accent": "Scottish", "channel": "telephone"}
    assert a.truth["speech"] == [{"start": 0.0, "end": 3.0}]
    assert b.truth["speech"][0]["start"] == 1


@pytest.mark.parametrize(
    ("files", "named", "message"),
    [
        ({}, "absent.mp4", "does not exist"),
        ({}, ".", "holds no scenario"),
        ({"x_mp4": None}, "x.mp4", "has no truth"),
        ({"x_json": {"qa": []}}, "x.json", "names no recording"),
        ({"x_json": {"file": "y.mp4"}}, "x.json", "y.mp4 does not exist"),
        (
            {"x_mp4": None, "x_json": {"file": "x.mp4", "qa": [QUESTION]}},
            "x.mp4",
            "question 1 lacks modality",
        ),
        (
            {"x_mp4": None, "x_json": {"file": "x.mp4", "qa": [WHOLE | {"type": "essay"}]}},
            "x.mp4",
            "unknown type 'essay'",
        ),
        (
            {"x_mp4": None, "x_json": {"file": "x.mp4", "qa": [WHOLE, WHOLE | {"id": "q2", "after": "q0"}]}},
            "x.mp4",
            "question 2 follows 'q0', which is not asked before it",
        ),
    ],
)
def test_an_invalid_scenario_is_an_error(
    files: dict[str, Any], named: str, message: str, tmp_path: Path
) -> None:
    folder(tmp_path, **files)
    with pytest.raises(ConfigError, match=message):
        load_scenarios([tmp_path / named])


def test_a_truth_that_is_not_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenarios([tmp_path / "x.json"])
