"""The question set is reproducible and balanced; a run over it is reported by kind and half."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from load_tests.question_set import good, halve, sheets, show, write
from load_tests.question_templates import Sheet
from load_tests.question_words import words_of
from streamsvc.evaluation.scenario import load_scenarios


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> list[Sheet]:
    media: Path = request.getfixturevalue("media")
    return sheets(media)


@pytest.mark.media
def test_there_are_enough_of_every_kind_in_both_halves(made: list[Sheet]) -> None:
    counts = Counter((question["kind"], question["half"]) for sheet in made for question in sheet.asked)
    never = counts["never", "tune"] + counts["never", "held"]
    assert never >= 60
    assert counts.total() - never >= 120
    for kind in ("speech", "screen", "time", "object", "attribute", "sound", "unknown", "never"):
        assert abs(counts[kind, "tune"] - counts[kind, "held"]) <= 1
        assert counts[kind, "held"] >= 5


@pytest.mark.media
def test_the_same_questions_are_made_every_time_and_none_twice(made: list[Sheet], media: Path) -> None:
    again = sheets(media)
    assert [sheet.asked for sheet in again] == [sheet.asked for sheet in made]
    texts = [(sheet.name, question["question"]) for sheet in made for question in sheet.asked]
    assert len(set(texts)) == len(texts)


@pytest.mark.media
def test_words_never_said_do_not_occur_in_the_played_part(made: list[Sheet]) -> None:
    for sheet in made:
        stems = {word.bare[:5] for word in words_of(sheet.truth, sheet.seconds)}
        for question in sheet.asked:
            quoted = question["question"].split('"')
            if question["kind"] == "never" and len(quoted) == 3 and stems and " " not in quoted[1]:
                assert quoted[1][:5] not in stems


@pytest.mark.media
def test_written_truths_load_as_scenarios(made: list[Sheet], tmp_path: Path) -> None:
    write(made, tmp_path)
    assert [scenario.name for scenario in load_scenarios([tmp_path])] == sorted(sheet.name for sheet in made)


def row(kind: str, half: str, verdict: str, honest: bool = False) -> dict[str, Any]:
    return {
        "kind": kind,
        "half": half,
        "verdict": verdict,
        "honest": honest,
        "answerable": kind != "never",
        "cited": verdict == "right",
    }


def test_of_what_never_was_no_and_declining_are_good() -> None:
    rows = [
        row("never", "tune", "declined", True),
        row("never", "held", "hallucinated"),
        row("speech", "held", "right", True),
    ]
    assert [good(row) for row in rows] == [True, False, True]
    report = show(rows)
    assert "| never  | 1 of 1     | 100 |" in report
    assert "right ones that are cited: 1 of 1" in report


def test_halves_are_equal_within_every_recording_and_kind() -> None:
    sheet = Sheet("a", Path("a.mp4"), 10.0, {})
    for number in range(6):
        sheet.ask("object", f"Is it {number}?", "yes")
    halve([sheet], random.Random(1))
    assert Counter(question["half"] for question in sheet.asked) == {"tune": 3, "held": 3}
